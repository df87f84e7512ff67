"""An encoder of ours as a model of torchgeo-bench, which calls it by a line of a configuration file.

torchgeo-bench is imported only when it asks for a model, and nothing else here needs it. Written for its version 0.4.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from terrasieve.band_names import match_names
from terrasieve.errors import BandError, ConfigError
from terrasieve.models.export import EncoderCard, load_encoder


class BenchBand(Protocol):
    """What is used of a ``BandSpec`` of torchgeo-bench.

    Attributes:
        name: Short name of the band, for example ``b04``, ``red`` or ``vv``.
    """

    name: str


def bench_model(
    bands: Sequence[BenchBand],
    encoder: str,
    normalization: str = "bandspec_zscore",
    name: str = "",
    image_size: int | None = None,
    eval: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A ``BenchModel`` of torchgeo-bench around an exported encoder.

    A configuration names this function under ``_target_`` and the folder under ``encoder``; the benchmark adds the
    rest. By default it standardises each band on the train split, as :mod:`terrasieve.probing` does.

    Args:
        bands: The bands of the images, in order.
        encoder: The folder of a run, or of an exported encoder.
        normalization: The benchmark's name of what is done to pixels before they are shown.
        name: What the benchmark's table calls the model; of no effect here.
        image_size: What the benchmark resizes images to; of no effect here.
        eval: The benchmark's own settings of the model; of no effect here.

    Returns:
        A module from pixels ``(n, bands, height, width)`` to vectors; of an encoder of one band those of all bands,
        joined in their order.

    Raises:
        ConfigError: torchgeo-bench is not installed.
        BandError: Bands that the encoder was trained on are missing.
        CheckpointError: There is no encoder, or it is damaged.
    """
    del name, image_size, eval
    try:
        base: Any = importlib.import_module("torchgeo_bench.models.interface").BenchModel
    except ImportError as error:
        raise ConfigError(
            "torchgeo-bench is not installed: install it from github.com/torchgeo/torchgeo-bench, which runs this."
        ) from error
    network, card = load_encoder(Path(encoder))
    shown = shown_bands([band.name for band in bands], card)

    class TerrasieveBench(base):  # type: ignore[misc]  # a class that is known only now
        """The encoder, behind the benchmark's own normalisation."""

        def __init__(self) -> None:
            super().__init__(bands=list(bands), normalization=normalization)
            self.backbone = network

        def _forward_patch_features(self, images: Tensor, _bboxes: Tensor | None = None) -> Tensor:
            return torch.cat([self.backbone(images[:, list(places)]) for places in shown], dim=1)

    model: nn.Module = TerrasieveBench()
    return model.eval()


def shown_bands(names: Sequence[str], card: EncoderCard) -> list[tuple[int, ...]]:
    """Which bands an encoder is shown, and in which order.

    Args:
        names: Names of the bands that there are, in any spelling.
        card: Says what the encoder was trained on.

    Returns:
        Of each pass through the encoder, the positions of the bands: of one that takes a single band a pass for each;
        of one whose channels each stand for a band, these; of any other, all bands as they come.

    Raises:
        BandError: No view of the training has all its bands there, or their number is another.
    """
    channels = card.backbone.channels
    if channels == 1:
        return [(place,) for place in range(len(names))]
    fixed = [view for view in card.view_bands if len(view) == channels]
    for view in fixed:
        places = _places(names, view, card)
        if None not in places:
            return [tuple(place for place in places if place is not None)]
    if not fixed and len(names) == channels:
        return [tuple(range(channels))]
    trained = "; or ".join(", ".join(view) for view in fixed) or f"any {channels} bands"
    raise BandError(
        f"The encoder {card.recipe} takes {channels} bands ({trained}), but the data set has {', '.join(names)}. "
        "Choose them by dataset.bands, or leave the data set out."
    )


def _places(names: Sequence[str], view: Sequence[str], card: EncoderCard) -> list[int | None]:
    places: list[int | None] = []
    for band in view:
        key, _, own = band.partition(":")
        # Beside its sensor's other bands, so that a name that could mean several means none.
        meant = match_names(names, card.sensors[key])
        places.append(meant.index(own) if own in meant else None)
    return places
