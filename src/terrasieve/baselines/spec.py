"""Which baseline is meant, in YAML or as one word on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeGuard

from pydantic import Field

from terrasieve.errors import ConfigError, nearest
from terrasieve.schema import Spec

Source = Literal["imagenet", "byol-imagenet", "seco", "torchgeo", "coco-deeplabv3", "oceansar-1", "timm", "random"]

FORMS: Mapping[Source, str] = {
    "imagenet": "imagenet:<timm name>, which downloads, or imagenet:<timm name>:<file>",
    "byol-imagenet": "byol-imagenet:<file>",
    "seco": "seco:<file>",
    "torchgeo": "torchgeo:<weights>, which downloads, or torchgeo:<weights>:<file>",
    "coco-deeplabv3": "coco-deeplabv3:<file>",
    "oceansar-1": "oceansar-1:<folder>",
    "timm": "timm:<timm name>:<file> or timm:<timm name>:<file>#<entry>",
    "random": "random:<timm name> or random:<timm name>:<channels>",
}
"""How each is written."""

_NAMED = ("imagenet", "torchgeo", "timm", "random")


class BaselineSpec(Spec):
    """An encoder that others trained, or nobody.

    Attributes:
        source: Where it comes from; decides how its file is read.
        name: A timm architecture, for ``imagenet`` with an optional tag such as ``resnet50.tv_in1k``; for ``torchgeo``
            the weights, for example ``ResNet50_Weights.SENTINEL2_ALL_MOCO``. Null for the other sources.
        file: The weights, or a folder of Hugging Face's. Null downloads for ``imagenet`` and ``torchgeo``.
        entry: For ``timm``: the entry of the file that holds the state dict, for example ``teacher``.
        channels: For ``random``: bands that it takes.
        seed: For ``random``: decides the weights.
    """

    source: Source
    name: str | None = None
    file: Path | None = None
    entry: str | None = None
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
    """Read the text form, for example ``seco:seco_resnet50_1m.ckpt``; :data:`FORMS` lists all.

    Raises:
        ConfigError: The source is unknown, or what follows it has another form.
    """
    source, _, rest = text.partition(":")
    if not _is_source(source):
        raise ConfigError(f"There is no baseline {source!r}.{nearest(source, FORMS)} Write, for example, seco:<file>.")
    if not rest:
        raise ConfigError(f"Baseline {text!r} does not say which; write {FORMS[source]}.")
    if source not in _NAMED:
        return BaselineSpec(source=source, file=Path(rest))
    name, _, last = rest.partition(":")
    if source == "random":
        return BaselineSpec(source=source, name=name, channels=_channels(text, last))
    if source == "timm":
        file, _, entry = last.partition("#")
        return BaselineSpec(source=source, name=name, file=Path(file) if file else None, entry=entry or None)
    return BaselineSpec(source=source, name=name, file=Path(last) if last else None)


def _is_source(text: str) -> TypeGuard[Source]:
    return text in FORMS


def _channels(text: str, written: str) -> int:
    if not written:
        return 3
    if not written.isascii() or not written.isdigit() or int(written) < 1:
        raise ConfigError(f"{written!r} in {text!r} is not a number of channels; write {FORMS['random']}.")
    return int(written)
