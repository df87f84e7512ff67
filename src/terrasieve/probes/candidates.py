"""The models of a comparison, and how each is shown the same bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from terrasieve.baselines.showing import Repeated
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.stream import device_of
from terrasieve.errors import BandError, ConfigError
from terrasieve.models.backbone import Encoder, build_encoder
from terrasieve.models.export import EncoderCard
from terrasieve.probes.floors import ImageStatistics
from terrasieve.probes.rows import InputRow, input_row
from terrasieve.sensors import Sensor

RANDOM_INIT = "random init"
IMAGE_STATISTICS = "image statistics"
FLOORS = (RANDOM_INIT, IMAGE_STATISTICS)
"""What a trained encoder has to beat."""

COPIES = 3
"""A single band is copied into the three channels of an RGB network (Jain et al. 2022, section IV), and no others."""


@dataclass(frozen=True)
class Candidate:
    """A model of a comparison.

    Attributes:
        name: Heading of its column.
        model: Maps ``(n, channels, height, width)`` to ``(n, features)``; runs on the device that it is on.
        channels: Bands that it takes. One that takes a single band sees the bands of a larger input one by one.
        bands: What its channels mean, in order, as band names or common names; None where any bands will do.
    """

    name: str
    model: nn.Module
    channels: int
    bands: tuple[str, ...] | None = None

    @property
    def repeats(self) -> bool:
        """Whether it is shown a single band as copies of it in all its channels; every such row says so."""
        return self.channels == COPIES and isinstance(self.model, Encoder)


@dataclass(frozen=True)
class Showing:
    """How one candidate is shown one input.

    Attributes:
        model: The candidate's model, or it behind a copying of the band.
        row: The inputs whose vectors are joined.
        note: What a reader must know; empty where the bands are shown as they are.
    """

    model: nn.Module
    row: InputRow
    note: str = ""


def showing(candidate: Candidate, wanted: EncoderInput, sensors: Mapping[str, Sensor]) -> Showing:
    """How a candidate is shown some bands.

    Raises:
        BandError: The input does not exist in the archive or does not fit the candidate.
    """
    resolved = wanted.resolve(sensors)
    if len(resolved.bands) == 1 and candidate.repeats:
        assert isinstance(candidate.model, Encoder), "only an encoder is shown copies"
        note = f"band copied {candidate.channels} times"
        return Showing(Repeated(candidate.model, candidate.channels), InputRow((resolved,)), note)
    row = input_row(resolved, sensors, candidate.channels)
    return Showing(candidate.model, row, _checked(candidate, resolved, sensors[resolved.sensor]))


def _checked(candidate: Candidate, shown: EncoderInput, sensor: Sensor) -> str:
    """A note where other bands than a network was trained on are shown to it; an error where that would be a guess."""
    if candidate.bands is None or len(shown.bands) != candidate.channels:
        return ""
    bands = [sensor.bands[position] for position in sensor.indices(shown.bands)]
    if all(wanted in (band.name, band.common_name) for wanted, band in zip(candidate.bands, bands, strict=True)):
        return ""
    if candidate.channels == COPIES:
        return f"{', '.join(shown.bands)} in the place of {', '.join(candidate.bands)}"
    raise BandError(
        f"{candidate.name} was trained on {', '.join(candidate.bands)} in this order, but {shown} shows it "
        f"{', '.join(shown.bands)}; name its bands in its order, or leave it out."
    )


def fits(candidate: Candidate, wanted: EncoderInput, sensors: Mapping[str, Sensor]) -> bool:
    """Whether a candidate can be shown some bands at all; an input that does not exist is still an error.

    Raises:
        BandError: The input does not exist in the archive.
    """
    count = len(wanted.resolve(sensors).bands)
    return candidate.channels in (1, count) or (count == 1 and candidate.repeats)


def with_floors(encoder: Encoder, card: EncoderCard, seed: int) -> tuple[Candidate, ...]:
    """A trained encoder, its own backbone untrained, and image statistics, which see the bands as it does."""
    channels = encoder.channels
    untrained = build_encoder(card.backbone, seed).to(device_of(encoder))
    return (
        Candidate(card.recipe, encoder, channels),
        Candidate(RANDOM_INIT, untrained, channels),
        Candidate(IMAGE_STATISTICS, ImageStatistics(), channels),
    )


def check_names(candidates: Sequence[Candidate]) -> None:
    """Refuse two candidates of one name, whose columns could not be told apart.

    Raises:
        ConfigError: Two have the same name.
    """
    names = [candidate.name for candidate in candidates]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise ConfigError(f"Two models are called {doubled!r}; name each run or baseline differently.")
