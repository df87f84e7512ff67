"""Galleries of maps: where in a sample the score of a class comes from, by every method that the network allows.

The class is that of a linear probe on top of the encoder; both together are one network with a score for each class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from terrasieve.console import track
from terrasieve.embeddings.inputs import join
from terrasieve.embeddings.stream import device_of
from terrasieve.errors import ConfigError
from terrasieve.explain.maps import as_array, attention_layers, attention_maps, full_gradient, grad_cam, grad_cam_grid
from terrasieve.explain.record import Saliency, SaliencyGallery, SaliencyMap
from terrasieve.explain.subject import (
    GALLERY_PIXELS,
    Album,
    Subject,
    data_uri,
    overlay,
    read_album,
    read_pixels,
    right_and_wrong,
)
from terrasieve.models.backbone import Encoder
from terrasieve.probes.linear.logistic import LogisticProbe

AT_ONCE = 8
"""Samples whose activations and gradients are in memory together."""
_LEAST_GRID = 3
"""Pixels of a feature map along its longer side, below which Grad-CAM says nothing about where."""
_TINY = 1e-12
"""Length from which on a vector is taken for one; a vector of zeros stays zeros."""


class _Maps(NamedTuple):
    """One map a sample, and how complete it is where that can be said."""

    method: str
    maps: list[NDArray[np.float64]]
    errors: list[float] | None = None


class _Chosen(NamedTuple):
    """Samples to explain: index into the archive, class that the probe gives them, and its probability."""

    indices: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float64]


_Method = Callable[[Sequence[Encoder], nn.Linear, Sequence[Tensor], Sequence[NDArray[np.int64]]], list[_Maps]]
"""Draws maps of batches of pixels, for one class a sample, of the encoders of the members with a head."""


class _Joined(nn.Module):
    """A head on the vectors of several members, whose pixels stand one behind the other as channels."""

    def __init__(self, encoders: Sequence[Encoder], head: nn.Linear) -> None:
        super().__init__()
        self.encoders, self.head = nn.ModuleList(encoders), head
        self.channels = [encoder.channels for encoder in encoders]

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores ``(n, classes)``."""
        parts = zip(self.encoders, torch.split(pixels, self.channels, dim=1), strict=True)
        vectors = [encoder(part) for encoder, part in parts]
        # Joining divides by the length; as a number of its own it leaves the score piecewise linear.
        lengths = [vector.detach().norm(dim=1, keepdim=True).clamp_min(_TINY) for vector in vectors]
        joined = torch.cat([vector / length for vector, length in zip(vectors, lengths, strict=True)], dim=1)
        scores: Tensor = self.head(joined)
        return scores


def make_saliency(subject: Subject, per_class: int, notes: list[str], target: str = "label") -> SaliencyGallery:
    """Maps of a few test samples of each class, of the score of the class that a logistic probe gives them.

    Where the bands are shown one by one, the maps are of all of them together, under the probe of their joined vectors:
    the length of each vector, by which joining divides, is held as it is, so that the score stays piecewise linear.

    Args:
        subject: The encoder with its samples, classes and vectors.
        per_class: Most samples of each class that are recognised, and most that are mistaken.
        notes: Receives a sentence for each method that the network does not allow.
        target: Column of the archive's table that the classes come from.

    Raises:
        ConfigError: The probe cannot be fitted, or no method fits the network.
        SampleError: A sample cannot be read.
    """
    shown = subject.row.members
    head = affine_head(subject.probe)
    chosen = _choose(subject, head, per_class)
    device = device_of(subject.encoder)
    parts = (read_pixels(subject, one, chosen.indices, AT_ONCE) for one in shown)
    pixels = [torch.cat(batches, dim=1) for batches in zip(*parts, strict=True)]
    classes = np.split(chosen.predicted, range(AT_ONCE, len(chosen.predicted), AT_ONCE))
    drawn = _draw_all(subject.encoders, head.to(device), pixels, classes, notes)
    album = read_album(subject.archive, shown[0].sensor, chosen.indices, subject.splits, GALLERY_PIXELS)
    items = tuple(_item(position, chosen, drawn, album) for position in range(len(chosen.indices)))
    return SaliencyGallery(method=_describe(subject, per_class, target), inputs=subject.row.name, items=items)


def _choose(subject: Subject, head: nn.Linear, per_class: int) -> _Chosen:
    shares = probabilities(head, join(subject.test))
    predicted = shares.argmax(axis=1).astype(np.int64)
    positions = right_and_wrong(subject.labels, predicted, shares.max(axis=1), per_class, subject.seed)
    return _Chosen(subject.splits.test[positions], predicted[positions], shares.max(axis=1)[positions])


def _draw_all(
    encoders: Sequence[Encoder],
    head: nn.Linear,
    pixels: Sequence[Tensor],
    classes: Sequence[NDArray[np.int64]],
    notes: list[str],
) -> list[_Maps]:
    second: _Method = _draw_attention if attention_layers(encoders[0]) else _draw_grad_cam
    drawn: list[_Maps] = []
    reasons = []
    for method in (_draw_fullgrad, second):
        try:
            drawn += method(encoders, head, pixels, classes)
        except ConfigError as error:
            reasons.append(str(error))
    if not drawn:
        raise ConfigError(" ".join(reasons))
    notes += reasons
    return drawn


def _draw_fullgrad(
    encoders: Sequence[Encoder], head: nn.Linear, pixels: Sequence[Tensor], classes: Sequence[NDArray[np.int64]]
) -> list[_Maps]:
    network = nn.Sequential(encoders[0], head) if len(encoders) == 1 else _Joined(encoders, head)
    pairs = track(zip(pixels, classes, strict=True), "FullGrad (batches)", total=len(pixels))
    found = [full_gradient(network, batch, codes) for batch, codes in pairs]
    maps = [one for batch in found for one in batch.saliency]
    return [_Maps("FullGrad", maps, [float(error) for batch in found for error in batch.completeness_error])]


def _draw_grad_cam(
    encoders: Sequence[Encoder], head: nn.Linear, pixels: Sequence[Tensor], classes: Sequence[NDArray[np.int64]]
) -> list[_Maps]:
    if len(encoders) > 1:
        raise ConfigError("Grad-CAM was left out: it is of one feature map, and the bands pass the encoder one by one.")
    network = nn.Sequential(encoders[0], head)
    rows, columns = grad_cam_grid(network, pixels[0][:1])
    if max(rows, columns) < _LEAST_GRID:
        size = f"{pixels[0].shape[2]}x{pixels[0].shape[3]}"
        raise ConfigError(
            f"Grad-CAM was left out: for images of {size} its map is {rows}x{columns}, which shows the "
            "network's stride and no place in the image; explain larger images."
        )
    pairs = track(zip(pixels, classes, strict=True), "Grad-CAM (batches)", total=len(pixels))
    return [_Maps("Grad-CAM", [one for batch, codes in pairs for one in grad_cam(network, batch, codes)])]


def _draw_attention(
    encoders: Sequence[Encoder], head: nn.Linear, pixels: Sequence[Tensor], classes: Sequence[NDArray[np.int64]]
) -> list[_Maps]:
    channels = [encoder.channels for encoder in encoders]
    mean: list[NDArray[np.float64]] = []
    rolled: list[NDArray[np.float64]] = []
    for batch in track(pixels, "attention (batches)", total=len(pixels)):
        found = [attention_maps(*one) for one in zip(encoders, torch.split(batch, channels, dim=1), strict=True)]
        mean += list(np.mean([one.mean for one in found], axis=0))
        rolled += list(np.mean([one.rollout for one in found], axis=0))
    return [_Maps("attention", mean), _Maps("attention rollout", rolled)]


def _item(position: int, chosen: _Chosen, drawn: Sequence[_Maps], album: Album) -> Saliency:
    index = int(chosen.indices[position])
    return Saliency(
        sample=album.thumbnail(index),
        predicted=album.classes[chosen.predicted[position]],
        probability=min(1.0, float(chosen.probability[position])),
        maps=tuple(
            SaliencyMap(
                method=one.method,
                picture=data_uri(overlay(album.pictures[index], one.maps[position]), album.size),
                completeness_error=one.errors[position] if one.errors else None,
            )
            for one in drawn
        ),
    )


def _describe(subject: Subject, per_class: int, target: str) -> str:
    sentences = [
        f"Score of the {target} that a logistic probe gives the sample, in float32; of each class at most {per_class} "
        f"recognised test samples, drawn with seed {subject.seed}, and {per_class} most confidently mistaken ones; "
        "each map from its least to its greatest value.",
    ]
    if not attention_layers(subject.encoder):
        sentences.append("On small images the grid of the network's strides shows in FullGrad.")
    if len(subject.row.members) > 1:
        sentences.append(
            "The encoder sees one band at a time: the maps are of all bands together, with the length of each band's "
            "vector held as it is."
        )
    return " ".join(sentences)


# ------------------------------------------------------------------------ head


def affine_head(probe: LogisticProbe) -> nn.Linear:
    """Standardisation and weights of a fitted probe as one affine map, from vectors to scores of classes.

    ``(x - mean) / scale @ weights + intercept`` is ``x @ (weights / scale) + (intercept - mean / scale @ weights)``.

    Args:
        probe: Fitted on vectors ``(n, features)``.

    Returns:
        Maps ``(n, features)`` to ``(n, classes)`` in float32, on the CPU; a class that the train split lacks scores
        minus infinity.
    """
    weights = probe.weights_.detach().double().cpu() / torch.from_numpy(np.asarray(probe.scaler_.scale_))[:, None]
    bias = probe.intercept_.detach().double().cpu() - torch.from_numpy(np.asarray(probe.scaler_.mean_)) @ weights
    head = nn.Linear(len(weights), int(probe.classes_.max()) + 1)
    head.requires_grad_(False).weight.zero_()
    head.bias.fill_(-torch.inf)
    head.weight[probe.classes_], head.bias[probe.classes_] = weights.T.float(), bias.float()
    return head


def probabilities(head: nn.Linear, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax of a head's scores of vectors ``(n, features)``: shape ``(n, classes)``."""
    return as_array(functional.softmax(head(torch.from_numpy(vectors)).double(), dim=1))
