"""A baseline, ready to be measured: the encoder, and what a reader must know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from terrasieve.errors import BandError, ConfigError, nearest
from terrasieve.models.backbone import Encoder
from terrasieve.schema import Spec
from terrasieve.sensors import SENSORS, Band

RGB = ("red", "green", "blue")

KNOWN_BANDS: Mapping[str, Band] = {
    **{str(band.common_name): band for band in SENSORS["rgb8"].bands},
    **{band.name: band for sensor in ("s2-l1c", "s1") for band in SENSORS[sensor].bands},
}
"""Bands by the names that :attr:`Facts.bands` gives them."""


@dataclass(frozen=True)
class Facts:
    """What is known of a baseline before its file is opened.

    Attributes:
        bands: What its channels mean, in order: common names or band names of a sensor; None where nobody says.
        training: How it was trained, in one line.
        citation: The source to cite.
        licence: SPDX identifier of the weights' licence, None where none is known.
        scaling: What became of pixels before it was shown them in training; nothing where nobody says.
    """

    bands: tuple[str, ...] | None
    training: str
    citation: str
    licence: str | None = None
    scaling: str = ""


@dataclass(frozen=True)
class Baseline:
    """An encoder that is measured beside others.

    Attributes:
        name: Its name in tables.
        encoder: The encoder, in eval mode, on the CPU.
        facts: Bands, training, source and licence of the weights, as far as they are known.
        sha256: Hash of the weights file in hexadecimal; None for one without a file.
        notes: What was done to the file's content to load it, a line each.
    """

    name: str
    encoder: Encoder
    facts: Facts
    sha256: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Bands that the encoder takes."""
        return self.encoder.channels

    @property
    def bands(self) -> tuple[str, ...] | None:
        """What its channels mean, in order; None where nobody says."""
        return self.facts.bands

    def describe(self) -> str:
        """All of it as lines of text, for a report or a terminal."""
        bands = "unknown" if self.bands is None else ", ".join(self.bands)
        lines = [
            self.name,
            f"  trained   {self.facts.training}",
            f"  input     {self.channels} channel(s): {bands}",
            f"  scaling   {self.facts.scaling or 'unknown'}",
            f"  output    {self.encoder.features} features",
            f"  source    {self.facts.citation}",
            f"  licence   {self.facts.licence or 'unknown'}",
            f"  sha256    {self.sha256 or 'no file'}",
        ]
        return "\n".join([*lines, *(f"  note      {note}" for note in self.notes)])


# ------------------------------------------------------------------------ spec
# Which baseline is meant, in YAML or as one word on the command line.

Source = Literal[
    "imagenet", "byol-imagenet", "seco", "torchgeo", "coco-deeplabv3", "oceansar-1", "timm", "hub", "random"
]

FORMS: Mapping[Source, str] = {
    "imagenet": "imagenet:<timm name>, which downloads, or imagenet:<timm name>:<file>",
    "byol-imagenet": "byol-imagenet:<file>",
    "seco": "seco:<file>",
    "torchgeo": "torchgeo:<weights>, which downloads, or torchgeo:<weights>:<file>; torchgeo:<weights>@<bands> where "
    "the network takes any",
    "coco-deeplabv3": "coco-deeplabv3:<file>",
    "oceansar-1": "oceansar-1:<folder>",
    "timm": "timm:<timm name>:<file> or timm:<timm name>:<file>#<entry>",
    "hub": "hub:<owner>/<name>, which downloads, or hub:<folder>",
    "random": "random:<timm name> or random:<timm name>:<channels>",
}
"""How each is written."""

ABSENT: Mapping[str, str] = {
    "olmoearth": "OlmoEarth is a class of olmoearth_pretrain",
    "terramind": "TerraMind is a class of terratorch",
}
"""What is asked for by name and cannot be loaded, and where its network is."""

_NAMED = ("imagenet", "torchgeo", "timm", "hub", "random")


class BaselineSpec(Spec):
    """An encoder that others trained, or nobody.

    Attributes:
        source: Where it comes from; decides how its file is read.
        name: A timm architecture, for ``imagenet`` with an optional tag such as ``resnet50.tv_in1k``; for ``torchgeo``
            the weights, for example ``ResNet50_Weights.SENTINEL2_ALL_MOCO``; for ``hub`` a repository on Hugging Face's
            hub, for example ``timm/resnet18.a1_in1k``, or a folder with its files. Null for the other sources.
        file: The weights, or a folder of Hugging Face's. Null downloads for ``imagenet`` and ``torchgeo``.
        entry: For ``timm``: the entry of the file that holds the state dict, for example ``teacher``.
        bands: For ``torchgeo``: the bands that a network which takes any is loaded for: a sensor's name such as
            ``s2-l2a``, ``rgb``, or names with commas between them.
        channels: For ``random``: bands that it takes.
        seed: For ``random``: decides the weights.
    """

    source: Source
    name: str | None = None
    file: Path | None = None
    entry: str | None = None
    bands: str | None = None
    channels: int = Field(default=3, ge=1)
    seed: int = 0

    def need_name(self) -> str:
        """The name.

        Raises:
            ConfigError: There is none.
        """
        if self.name is None:
            raise ConfigError(f"Baseline {self.source!r} needs a name; write {FORMS[self.source]}.")
        return self.name

    def need_file(self) -> Path:
        """The file.

        Raises:
            ConfigError: There is none.
        """
        if self.file is None:
            raise ConfigError(f"Baseline {self.source!r} needs a local file; write {FORMS[self.source]}.")
        return self.file


def parse_baseline(text: str) -> BaselineSpec:
    """Read the text form, for example ``seco:seco_resnet50_1m.ckpt``.

    Args:
        text: A source, a colon and what it takes, in one of :data:`FORMS`.

    Raises:
        ConfigError: The source is unknown, or what follows it has another form.
    """
    said, _, rest = text.partition(":")
    source = next((known for known in FORMS if known == said), None)
    if said in ABSENT:
        raise ConfigError(
            f"{ABSENT[said]} and of none of timm, torchgeo and transformers, so it cannot be loaded here. Embed with "
            "that package, and give the vectors to the commands that take embeddings."
        )
    if source is None:
        raise ConfigError(f"There is no baseline {said!r}.{nearest(said, FORMS)} Write, for example, seco:<file>.")
    if not rest:
        raise ConfigError(f"Baseline {text!r} does not say which; write {FORMS[source]}.")
    if source not in _NAMED:
        return BaselineSpec(source=source, file=Path(rest))
    if source == "hub":
        return BaselineSpec(source=source, name=rest)
    name, _, last = rest.partition(":")
    if source == "random":
        return BaselineSpec(source=source, name=name, channels=_channels(text, last))
    if source == "timm":
        file, _, entry = last.partition("#")
        return BaselineSpec(source=source, name=name, file=Path(file) if file else None, entry=entry or None)
    if source == "torchgeo":
        name, _, bands = name.partition("@")
        return BaselineSpec(source=source, name=name, file=Path(last) if last else None, bands=bands or None)
    return BaselineSpec(source=source, name=name, file=Path(last) if last else None)


def _channels(text: str, written: str) -> int:
    if not written:
        return 3
    if not written.isascii() or not written.isdigit() or int(written) < 1:
        raise ConfigError(f"{written!r} in {text!r} is not a number of channels; write {FORMS['random']}.")
    return int(written)


# --------------------------------------------------------------------- showing
# A band shown to an encoder that takes several.


class Repeated(nn.Module):
    """An encoder of several channels that is shown one band in each of them.

    A single band is copied three times for a baseline of three channels (Jain et al. 2022, section IV). Its first
    convolution stays as it was trained.

    Args:
        encoder: Encoder that takes ``copies`` channels; it is not copied.
        copies: Number of channels that the band is shown in.

    Attributes:
        encoder: The encoder of several channels.
        copies: Number of channels that the band is shown in.
        channels: Number of bands that it takes, which is 1.
        features: Length of the vectors that it gives.

    Raises:
        BandError: The encoder takes another number of channels.
    """

    def __init__(self, encoder: Encoder, copies: int) -> None:
        super().__init__()
        if encoder.channels != copies:
            raise BandError(f"The encoder takes {encoder.channels} channel(s): copy the band {encoder.channels} times.")
        self.encoder = encoder
        self.copies = copies
        self.channels = 1
        self.features = encoder.features

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``(n, features)`` of normalised pixels ``(n, 1, height, width)``.

        Raises:
            BandError: The pixels have more than one band.
        """
        if pixels.shape[1] != 1:
            raise BandError(f"One band is copied {self.copies} times, but {pixels.shape[1]} were given; give one.")
        # A view: the copies take no memory.
        features: Tensor = self.encoder(pixels.expand(-1, self.copies, -1, -1))
        return features
