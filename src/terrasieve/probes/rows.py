"""The rows of a comparison: what is shown to an encoder, and what a probe then reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from terrasieve.embeddings.inputs import EncoderInput, resolve_inputs
from terrasieve.errors import BandError
from terrasieve.probes.metrics import Task
from terrasieve.sensors import Sensor

JOINED_BANDS = 3
"""Size of the band sets that a single-band encoder is also probed on, such as ``rgb``."""


@dataclass(frozen=True)
class InputRow:
    """Inputs whose vectors a probe sees together.

    Attributes:
        members: One input, or several that are embedded one by one and whose vectors are joined.
    """

    members: tuple[EncoderInput, ...]

    @property
    def name(self) -> str:
        """``s2:B04,B03,B02`` for bands shown together, ``s2:B04+B03+B02`` for bands shown one by one."""
        if len(self.members) == 1:
            return str(self.members[0])
        return f"{self.members[0].sensor}:{'+'.join(band for one in self.members for band in one.bands)}"


@dataclass(frozen=True)
class ProbeRow:
    """One result of a comparison with everything that is needed to read it.

    Attributes:
        model: The recipe of the encoder, the name of a baseline, or ``random init`` or ``image statistics``.
        inputs: Name of the :class:`InputRow`.
        probe: Name of the probe.
        protocol: Name, version and every setting of the probe, in one line.
        data: Archive, sizes, split and normalisation, in one line.
        metrics: By name, as :data:`terrasieve.probes.metrics.METRIC_INFO` describes them.
        ci95: Bootstrap 95 % interval of each metric.
        chosen: Settings that fitting chose on the validation split.
        n_train: Samples that the probe was fitted on.
        n_test: Samples in the test split.
        target: Column of the archive's table that was predicted, or the sensor with the map of classes.
        task: What kind of target it is.
        classes: Names of the classes by code; none for a regression.
        confusion: Counts, a row per true class and a column per predicted one; empty where there are no classes
            that exclude each other.
        train_share: Share of the train split that the probe was fitted on.
        seed: Of the floor's weights and of everything drawn.
        note: What a reader must know beyond the protocol, for example ``band copied 3 times``.
    """

    model: str
    inputs: str
    probe: str
    protocol: str
    data: str
    metrics: Mapping[str, float]
    ci95: Mapping[str, tuple[float, float]]
    chosen: Mapping[str, float]
    n_train: int
    n_test: int
    target: str = "label"
    task: Task = "classification"
    classes: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    train_share: float = 1.0
    seed: int = 0
    note: str = ""

    @property
    def bands(self) -> str:
        """The bands of the input, whether they were shown together or one by one: one line of a table."""
        return self.inputs.replace("+", ",")


def input_row(wanted: EncoderInput, sensors: Mapping[str, Sensor], channels: int) -> InputRow:
    """The row for one wanted input.

    A single-band encoder is shown the bands of a larger input one by one, and their vectors are joined.

    Raises:
        BandError: The input does not exist in the archive or does not fit the encoder.
    """
    resolved = wanted.resolve(sensors)
    if channels == 1:
        return InputRow(tuple(EncoderInput(sensor=resolved.sensor, bands=(band,)) for band in resolved.bands))
    return InputRow(resolve_inputs([resolved], sensors, channels))


def default_inputs(sensors: Mapping[str, Sensor], channels: int) -> tuple[EncoderInput, ...]:
    """Every input that an archive offers to an encoder.

    For a single-band encoder each band of each optical or radar sensor, then each named set of three
    bands, joined. For any other encoder each named set of as many bands as it takes, and each sensor
    that has exactly as many. Sets of the same bands count once.

    Args:
        sensors: The archive's sensors by key.
        channels: Input channels of the encoder.

    Raises:
        BandError: The archive offers nothing that fits.
    """
    seen = {key: sensor for key, sensor in sensors.items() if sensor.kind != "map"}
    wanted = [
        EncoderInput(sensor=key, bands=bands)
        for key, sensor in seen.items()
        for bands in _selections(sensor, JOINED_BANDS if channels == 1 else channels)
    ]
    if channels == 1:
        single = [EncoderInput(sensor=key, bands=(band,)) for key, sensor in seen.items() for band in sensor.names]
        wanted = single + wanted
    if not wanted:
        raise BandError(
            f"The encoder takes {channels} bands, and no sensor of the archive has that many or a named set of them; "
            "name the inputs, for example s2:B04,B03,B02."
        )
    return tuple(wanted)


def default_rows(sensors: Mapping[str, Sensor], channels: int) -> tuple[InputRow, ...]:
    """The rows for :func:`default_inputs`."""
    return tuple(input_row(one, sensors, channels) for one in default_inputs(sensors, channels))


def distinct_members(rows: Iterable[InputRow]) -> tuple[EncoderInput, ...]:
    """Each input that any row needs, once, in order of first use."""
    return tuple(dict.fromkeys(one for row in rows for one in row.members))


def _selections(sensor: Sensor, count: int) -> list[tuple[str, ...]]:
    candidates = [*sensor.sets.values(), sensor.names]
    distinct = {frozenset(bands): bands for bands in reversed(candidates) if len(bands) == count}
    return list(reversed(distinct.values()))
