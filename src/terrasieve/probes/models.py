"""The models of a comparison, how each is shown the same bands, and the floors that a trained encoder has to beat.

Floors are statistics of the image itself, and the encoder's own backbone untrained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from terrasieve.baselines.baseline import Repeated
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.stream import device_of
from terrasieve.errors import BandError, ConfigError
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.export import EncoderCard
from terrasieve.probes.results import IMAGE_STATISTICS, RANDOM_INIT, InputRow, input_row
from terrasieve.sensors import Sensor

COPIES = 3
"""A single band is copied into the three channels of an RGB network (Jain et al. 2022, section IV), and no others."""


@dataclass(frozen=True)
class Candidate:
    """A model of a comparison.

    Attributes:
        name: What heads its column in a table.
        model: Maps ``(n, channels, height, width)`` to ``(n, features)``; runs on the device that it is on.
        channels: Bands that it takes. One that takes a single band sees the bands of a larger input one by one.
        bands: What its channels mean, in order, as band names or common names; None where any bands will do.
        is_floor: Whether it is there for a trained encoder to beat it.
        calibrates: Whether its batch normalisation is measured on the pixels at hand, for each input; a network that
            others published keeps the statistics that it came with.
    """

    name: str
    model: nn.Module
    channels: int
    bands: tuple[str, ...] | None = None
    is_floor: bool = False
    calibrates: bool = False

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
    return (
        Candidate(card.recipe, encoder, encoder.channels, calibrates=True),
        untrained(card.backbone, seed, device_of(encoder)),
        image_statistics(encoder.channels),
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


# ---------------------------------------------------------------------- floors

PERCENTILES = (5, 25, 50, 75, 95)
"""Percentiles of a band's pixels, in per cent."""
SPECTRAL_RINGS = ((1 / 16, 1 / 8), (1 / 8, 1 / 4), (1 / 4, 1 / 2))
"""Octaves of spatial frequency, in cycles per pixel."""

STATISTICS = (
    "mean",
    "std",
    "minimum",
    *(f"percentile_{p}" for p in PERCENTILES),
    "maximum",
    "gradient_mean",
    "gradient_std",
    *(f"log_energy_{low:g}_{high:g}" for low, high in SPECTRAL_RINGS),
)
"""What is measured of each band, in order."""


def untrained(backbone: BackboneSpec, seed: int, device: torch.device) -> Candidate:
    """A backbone as it is built.

    Args:
        backbone: The network to build.
        seed: Seed of the weights.
        device: The device that it is to run on.
    """
    encoder = build_encoder(backbone, seed).to(device)
    return Candidate(RANDOM_INIT, encoder, backbone.channels, is_floor=True, calibrates=True)


def image_statistics(channels: int) -> Candidate:
    """Statistics of the bands, of ``channels`` at a time."""
    return Candidate(IMAGE_STATISTICS, ImageStatistics(), channels, is_floor=True)


class ImageStatistics(nn.Module):
    """Statistics of the standardised pixels of each band, in place of an encoder.

    Of each band: mean, standard deviation, minimum, five percentiles, maximum, mean and standard
    deviation of the gradient's magnitude (central differences), and log(1 + e) of the mean spectral energy e
    in three octaves of spatial frequency (of the band less its mean).
    """

    def forward(self, pixels: Tensor) -> Tensor:
        """Statistics ``(n, channels * len(STATISTICS))`` of pixels ``(n, channels, height, width)``."""
        pixels = pixels.float()
        down, right = torch.gradient(pixels, dim=(2, 3))
        std, mean = torch.std_mean(torch.hypot(down, right).flatten(2), dim=-1, correction=0)
        gradients = torch.stack([mean, std], dim=-1)
        return torch.cat([_distribution(pixels), gradients, _spectrum(pixels)], dim=-1).flatten(1)


def _distribution(pixels: Tensor) -> Tensor:
    flat = pixels.flatten(2)
    # Nearest-rank percentiles from one sort: torch.quantile refuses more than 2**24 values.
    ordered = flat.sort(dim=-1).values
    ranks = [round(p / 100 * (ordered.shape[-1] - 1)) for p in (0, *PERCENTILES, 100)]
    std, mean = torch.std_mean(flat, dim=-1, correction=0)
    return torch.cat([torch.stack([mean, std], dim=-1), ordered[..., ranks]], dim=-1)


def _spectrum(pixels: Tensor) -> Tensor:
    height, width = pixels.shape[-2:]
    centred = pixels - pixels.mean(dim=(-2, -1), keepdim=True)
    energy = torch.fft.rfft2(centred, norm="ortho").abs().square()
    rows = torch.fft.fftfreq(height, device=pixels.device)[:, None]
    radius = torch.hypot(rows, torch.fft.rfftfreq(width, device=pixels.device)[None, :])
    rings = [((low <= radius) & (radius < high)).float() for low, high in SPECTRAL_RINGS]
    return torch.stack([((energy * ring).sum((-2, -1)) / ring.sum().clamp(min=1)).log1p() for ring in rings], dim=-1)
