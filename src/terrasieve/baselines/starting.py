"""A run that starts from pretrained weights: where they are found, and how they are made to fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from terrasieve.baselines.baseline import FORMS, KNOWN_BANDS, BaselineSpec, parse_baseline
from terrasieve.baselines.loading import load_baseline
from terrasieve.baselines.timm_files import POSITIONS
from terrasieve.baselines.weights import fill
from terrasieve.errors import CheckpointError, ConfigError
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard, load_encoder
from terrasieve.models.first_layer import (
    ChannelMap,
    average_channels,
    first_layer_keys,
    keep_channels,
    match_bands,
    move_kernels,
)
from terrasieve.runs import RunFolder, StartingWeights
from terrasieve.sensors import Band
from terrasieve.views.plan import ViewPlanner
from terrasieve.views.recipe import ViewRecipe

_LOOKS = 64
"""Samples whose views are looked at; that two bands change places and do so in none of them is beyond chance."""


@dataclass(frozen=True)
class _Source:
    """Pretrained weights that were found.

    Attributes:
        encoder: The network with its weights, on the CPU.
        weights: All that is known of them; ``first_layer`` is still to be written.
        bands: What each channel shows; None where nobody says, or it changes from view to view.
        card: The card, where the weights are of a run of ours.
    """

    encoder: Encoder
    weights: StartingWeights
    bands: tuple[Band, ...] | None
    card: EncoderCard | None = None


def start_from(encoder: Encoder, init: str, card: EncoderCard) -> StartingWeights:
    """Fill an encoder with pretrained weights, in place.

    All weights are exactly the source's, except those of the first layer where it was trained on other bands: it is
    given to the bands of the new run by :mod:`terrasieve.models.first_layer`.

    Args:
        encoder: The network of the new run, of any initial weights; it is changed in place.
        init: Where the weights are: a run folder or encoder folder of ours, a file with a state dict of the same
            network (with ``#entry`` where it holds several), a folder of Hugging Face's, or a text form of
            :data:`terrasieve.baselines.baseline.FORMS`.
        card: The card that the new run will write, of which backbone, sensors and bands of the views count here.

    Returns:
        What the run starts from, and what became of the first layer.

    Raises:
        ConfigError: There is nothing of that name, or it is of another network.
        CheckpointError: A file cannot be read or downloaded, or holds something else.
    """
    found = _find(init, card.backbone.name)
    _check_network(init, found.encoder.model, encoder.model)
    channels = _channel_map(found, card)
    tensors: dict[str, Tensor] = dict(found.encoder.model.state_dict())
    for key in first_layer_keys(encoder.model):
        tensors[key] = move_kernels(tensors[key], channels.taken)
    fill(encoder.model, tensors, card.backbone.name)
    return found.weights.model_copy(update={"first_layer": channels.said})


# -------------------------------------------------------------------- finding


def _find(init: str, network: str) -> _Source:
    path, _, entry = init.partition("#")
    at = Path(path)
    if at.is_dir() and RunFolder(at).exported():
        return _own(init, at)
    if at.is_dir():
        return _foreign(init, BaselineSpec(source="hub", name=path))
    if at.is_file():
        try:
            return _foreign(init, BaselineSpec(source="timm", name=network, file=at, entry=entry or None))
        except CheckpointError as error:
            raise CheckpointError(f"{error} It was read as a {network}: set model.name if it is another.") from error
    if init.partition(":")[0] not in FORMS:
        raise ConfigError(
            f"model.init={init}: there is no such file or folder. Name a run folder or a file with the weights of "
            f"{network}; or write what --baseline takes, for example imagenet:{network}, or hub:<owner>/<name> for a "
            "repository on Hugging Face's hub."
        )
    spec = parse_baseline(init)
    if spec.source == "random":
        raise ConfigError(f"model.init={init}: a run starts from random weights by itself. Set model.init=null.")
    return _foreign(init, spec)


def _own(init: str, folder: Path) -> _Source:
    encoder, card = load_encoder(folder)
    before = card.provenance.start
    weights = StartingWeights(
        source=init,
        name=f"{card.recipe} {card.backbone.name}",
        training=f"{card.method}, {card.provenance.step or 0:,} steps",
        first_layer="",
        citation=f"terrasieve {card.provenance.terrasieve}".strip(),
        licence=before.licence if before else "",
        sha256=card.weights_sha256 or "",
        notes=(f"which itself started from {before.name} ({before.training})",) if before else (),
    )
    return _Source(encoder, weights, _bands_of_channels(card), card)


def _foreign(init: str, spec: BaselineSpec) -> _Source:
    baseline = load_baseline(spec)
    facts = baseline.facts
    weights = StartingWeights(
        source=init,
        name=baseline.name,
        training=facts.training,
        first_layer="",
        citation=facts.citation,
        licence=facts.licence or "",
        sha256=baseline.sha256 or "",
        notes=baseline.notes,
    )
    bands = tuple(KNOWN_BANDS[name] for name in facts.bands or () if name in KNOWN_BANDS)
    return _Source(baseline.encoder, weights, bands if len(bands) == baseline.channels else None)


# -------------------------------------------------------------------- fitting


def _check_network(init: str, old: Any, new: Any) -> None:
    """Say which setting is wrong, where :func:`terrasieve.baselines.weights.fill` could only say which keys are."""
    if not hasattr(old, "pretrained_cfg"):
        raise ConfigError(
            f"model.init={init} is no network of timm's, and a run trains these alone. It can be measured beside a run "
            f"by --baseline {init}."
        )
    found, wanted = (model.pretrained_cfg["architecture"] for model in (old, new))
    shapes = [{key: tensor.shape for key, tensor in model.state_dict().items()} for model in (old, new)]
    differing = {key for key in shapes[0] | shapes[1] if shapes[0].get(key) != shapes[1].get(key)}
    differing -= {*first_layer_keys(new)}
    if differing == {POSITIONS} and found == wanted:
        size = old.patch_embed.img_size[0]
        raise ConfigError(
            f"model.init={init} has its position embedding laid out for images of {size} pixels. Set "
            f"model.image_size={size}; views of other sizes are interpolated."
        )
    if differing and found != wanted:
        raise ConfigError(
            f"model.init={init} holds a {found}, but model.name is {wanted}. Set model.name={found}, or name other "
            "weights."
        )


def _channel_map(found: _Source, card: EncoderCard) -> ChannelMap:
    old, new, bands = found.encoder.channels, card.backbone.channels, _bands_of_channels(card)
    if old == new == 1:
        return keep_channels(1, "one channel")
    if old == new and found.card is not None and found.bands == bands:
        return keep_channels(new, "the same bands" if bands else "no channel stands for one band, neither then nor now")
    if found.bands is not None and bands is not None:
        return match_bands(found.bands, bands)
    return average_channels(old, new)


def _bands_of_channels(card: EncoderCard) -> tuple[Band, ...] | None:
    """The one band that each channel shows in all views; None where a channel shows several, or nobody says."""
    recipe, channels = card.provenance.config.get("views"), card.backbone.channels
    if recipe is None or any(len(view) != channels for view in card.view_bands):
        return None
    # As many bands as channels may still change places; a look at a few views tells.
    planner = ViewPlanner(ViewRecipe.model_validate(recipe), card.sensors, seed=0)
    plans = planner.plan(0, np.full((_LOOKS, 2), card.image_size))
    shown: list[set[Band]] = [set() for _ in range(channels)]
    for bands, plan in zip(planner.channels, plans, strict=True):
        for channel, positions in enumerate(plan.channels.T):
            for key, name in (bands[position] for position in positions):
                sensor = card.sensors[key]
                shown[channel].add(sensor.bands[sensor.names.index(name)])
    return tuple(one for bands in shown for one in bands) if all(len(bands) == 1 for bands in shown) else None
