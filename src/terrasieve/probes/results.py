"""The rows of a comparison: what is shown to an encoder, what a probe then reached, and what it predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ConfigDict, model_validator

from terrasieve.archive.protocol import source_name
from terrasieve.embeddings.inputs import EncoderInput, resolve_inputs
from terrasieve.errors import BandError
from terrasieve.probes.metrics import Task
from terrasieve.probes.splits import Splits
from terrasieve.runs import Record
from terrasieve.sensors import Sensor

JOINED_BANDS = 3
"""Size of the band sets that a single-band encoder is also probed on, such as ``rgb``."""

RANDOM_INIT = "random init"
"""The floor that is the encoder's own backbone untrained."""
IMAGE_STATISTICS = "image statistics"
"""The floor that sees statistics of each band's pixels."""
PER_PIXEL = "per-pixel"
"""The floor of segmentation that sees nothing but the bands of the pixel itself."""


@dataclass(frozen=True)
class InputRow:
    """Inputs whose vectors a probe sees together.

    Attributes:
        members: One input, or several that are embedded one by one and whose vectors are joined.
    """

    members: tuple[EncoderInput, ...]

    @property
    def sensor(self) -> str:
        """Key of the sensor that all bands are of."""
        return self.members[0].sensor

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands in order, whether they are shown together or one by one."""
        return tuple(band for one in self.members for band in one.bands)

    @property
    def name(self) -> str:
        """``s2:B04,B03,B02`` for bands shown together, ``s2:B04+B03+B02`` for bands shown one by one."""
        return f"{self.sensor}:{(',' if len(self.members) == 1 else '+').join(self.bands)}"


class ProbeRow(Record):
    """One result of a comparison with everything that is needed to read it.

    Attributes:
        model: The recipe of the encoder, or the name of a baseline or of a floor.
        inputs: Name of the :class:`InputRow`.
        sensor: Key of the sensor whose bands were shown.
        bands: Names of these bands in order, whether they were shown together or one by one.
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
        seed: Seed of the floor's weights and of everything drawn.
        note: What a reader must know beyond the protocol, for example ``band copied 3 times``.
        is_floor: Whether the model is one that a trained encoder has to beat.
        data_set: Layout of the archive, for example ``eurosat``.
        simulated: Whether the pixels of the archive are simulated, and none was measured.
    """

    model: str
    inputs: str
    sensor: str
    bands: tuple[str, ...]
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
    is_floor: bool = False
    data_set: str = "unknown"
    simulated: bool = False

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, values: Any) -> Any:
        return {**_described_in_words(values), **values} if isinstance(values, Mapping) else values

    @property
    def shown_bands(self) -> str:
        """``s2:B04,B03,B02``, whether the bands were shown together or one by one: one line of a table."""
        return f"{self.sensor}:{','.join(self.bands)}"


def _described_in_words(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a row that files of earlier versions lack, read from the texts in which these say the same."""
    if not all(isinstance(values.get(name), str) for name in ("inputs", "data", "model")):
        return {}
    sensor, _, bands = values["inputs"].partition(":")
    words = values["data"].partition(":")[2].partition(",")[0].split()
    return {
        "sensor": sensor,
        "bands": bands.replace("+", ",").split(","),
        "is_floor": values["model"] in (RANDOM_INIT, IMAGE_STATISTICS, PER_PIXEL),
        "data_set": words[0] if words else "unknown",
        "simulated": "SIMULATED" in values["data"],
    }


def data_set_of(source: Mapping[str, Any]) -> str:
    """Layout of an archive, which stands for its data set; ``source`` is :attr:`Archive.source`."""
    return str(source.get("layout", "unknown"))


def describe_source(source: Mapping[str, Any]) -> str:
    """The beginning of a row's ``data``: layout and folder of an archive, and that it is simulated where it is.

    Args:
        source: What :attr:`Archive.source` says of the archive.
    """
    return f"{'SIMULATED data' if source.get('simulated') else 'data'}: {source_name(source)}"


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
    count = JOINED_BANDS if channels == 1 else channels
    wanted: list[EncoderInput] = []
    for key, sensor in seen.items():
        # Backwards, so that of sets of the same bands the one named first is the one that stays.
        candidates = [*sensor.sets.values(), sensor.names]
        distinct = {frozenset(bands): bands for bands in reversed(candidates) if len(bands) == count}
        wanted += [EncoderInput(sensor=key, bands=bands) for bands in reversed(distinct.values())]
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


def members_named(texts: Sequence[str], sensors: Mapping[str, Sensor], channels: int) -> tuple[EncoderInput, ...]:
    """What an encoder is shown one after the other for inputs as users write them.

    Args:
        texts: Such as ``s2:B04`` or ``s2:rgb``; the first input that fits where empty.
        sensors: The archive's sensors by key.
        channels: Input channels of the encoder.

    Raises:
        BandError: An input does not exist in the archive or does not fit the encoder, or none is offered.
        ConfigError: A text is no input.
    """
    rows = [input_row(EncoderInput.parse(one), sensors, channels) for one in texts]
    return distinct_members(rows or default_rows(sensors, channels)[:1])


# ----------------------------------------------------------------- predictions


@dataclass(frozen=True)
class Measured:
    """A row and the predictions behind it.

    Attributes:
        row: The result with its protocol.
        predicted: Predictions of the test samples in the order of the split: class codes, scores by label, or numbers.
    """

    row: ProbeRow
    predicted: NDArray[Any]


def predictions_table(measured: Sequence[Measured], splits: Splits, ids: NDArray[np.str_]) -> pa.Table:
    """One line per test sample and row, with the model, its input, probe, target, share of train and seed.

    ``truth`` and ``predicted`` are text: a class, or a number in full precision. Several labels a sample are left out.

    Args:
        measured: Results with their predictions, from :func:`terrasieve.probes.compare.compare`.
        splits: The split that they were measured on.
        ids: Ids of every sample of the archive, shape ``(n,)``.
    """
    truth = _texts(splits.labels[splits.test], splits.classes) if splits.target.task != "multilabel" else None
    tables = [_table(one, ids[splits.test], truth, splits.classes) for one in measured if one.row.task != "multilabel"]
    return pa.concat_tables([_SCHEMA.empty_table(), *tables])


def _table(one: Measured, ids: NDArray[np.str_], truth: pa.Array, classes: tuple[str, ...]) -> pa.Table:
    row = one.row
    facts = [(row.model, pa.string()), (row.inputs, pa.string()), (row.probe, pa.string()), (row.target, pa.string())]
    constant = [pa.repeat(pa.scalar(value, kind), len(ids)) for value, kind in facts]
    numbers = [pa.repeat(pa.scalar(row.train_share), len(ids)), pa.repeat(pa.scalar(row.seed), len(ids))]
    own = [pa.array(ids.tolist(), pa.string()), truth, _texts(one.predicted, classes)]
    return pa.table([*constant, *numbers, *own], schema=_SCHEMA)


_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("inputs", pa.string()),
        ("probe", pa.string()),
        ("target", pa.string()),
        ("train_share", pa.float64()),
        ("seed", pa.int64()),
        ("id", pa.string()),
        ("truth", pa.string()),
        ("predicted", pa.string()),
    ]
)


def _texts(values: NDArray[Any], classes: tuple[str, ...]) -> pa.Array:
    if not classes:
        return pa.array([repr(float(value)) for value in values], pa.string())
    return pa.array(classes, pa.string()).take(pa.array(np.asarray(values, dtype=np.int64)))
