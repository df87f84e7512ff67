"""The first layer of a pretrained network, given to other bands than it was trained on.

A kernel belongs to a band. It goes to the channel that shows the same band, and to no other: a channel without a kernel
of its own takes the mean of all. The sum over channels is kept, so that an image whose bands are all alike gets the
same response from the new layer as from the old one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from terrasieve.sensors import Band


@dataclass(frozen=True)
class ChannelMap:
    """Which kernels of the old first layer each channel of the new one takes.

    Attributes:
        taken: Of each new channel, the position of the old one whose kernels it takes; None for the mean of all.
        said: The same in words, for whoever reads of the model.
    """

    taken: tuple[int | None, ...]
    said: str


def keep_channels(channels: int, why: str) -> ChannelMap:
    """Leave every kernel where it is.

    Args:
        channels: Number of channels of both layers.
        why: The reason why that is right, in words.
    """
    return ChannelMap(tuple(range(channels)), f"kept as it was ({why})")


def average_channels(old: int, new: int) -> ChannelMap:
    """Give every channel the mean of all kernels.

    Args:
        old: Number of channels of the pretrained layer, 1 or more.
        new: Number of channels of the new layer, 1 or more.
    """
    said = f"averaged over {old} bands" if old > 1 else "that of one band, shared by all channels"
    return ChannelMap((None,) * new, said)


def match_bands(old: Sequence[Band], new: Sequence[Band]) -> ChannelMap:
    """Give every channel the kernels of the same band, by name.

    Bands are the same where both name and common name are; or else where the common name is, and no other band shares
    it. A name alone does not count: ``B02`` of another camera need not be blue.

    Args:
        old: What the channels of the pretrained layer show, in order.
        new: What those of the new layer show, in order.
    """
    taken = tuple(_same_band(band, old, new) for band in new)
    pairs = [(band, old[i]) for band, i in zip(new, taken, strict=True) if i is not None]
    matched = [to.name if to.name == of.name else f"{to.name} from {of.common_name}" for to, of in pairs]
    if not matched:
        return average_channels(len(old), len(new))
    rest = [band.name for band, i in zip(new, taken, strict=True) if i is None]
    averaged = f"; {', '.join(rest)} averaged over {len(old)} bands" if rest else ""
    return ChannelMap(taken, f"by name: {', '.join(matched)}{averaged}")


def move_kernels(kernels: Tensor, taken: Sequence[int | None]) -> Tensor:
    """The kernels of the new layer.

    Args:
        kernels: Those of the pretrained layer, ``(out, old, height, width)``.
        taken: As in :class:`ChannelMap`, one entry for each new channel.

    Returns:
        Shape ``(out, len(taken), height, width)``; where the numbers of channels differ, scaled by their ratio.
    """
    mean = kernels.mean(dim=1)
    moved = torch.stack([mean if i is None else kernels[:, i] for i in taken], dim=1)
    old = kernels.shape[1]
    return moved if old == len(taken) else moved * (old / len(taken))


def first_layer_keys(model: nn.Module) -> Collection[str]:
    """Names of the weights of a timm network that meet the bands, in its state dict."""
    # Nearly all networks have one such layer; a few look at the image with several.
    layers: Any = model.pretrained_cfg["first_conv"]  # type: ignore[index]  # nn.Module types it as a tensor
    return [f"{layer}.weight" for layer in ((layers,) if isinstance(layers, str) else layers)]


def _same_band(band: Band, old: Sequence[Band], new: Sequence[Band]) -> int | None:
    both = [i for i, one in enumerate(old) if (one.name, one.common_name) == (band.name, band.common_name)]
    if len(both) == 1:
        return both[0]
    common = [i for i, one in enumerate(old) if one.common_name is not None and one.common_name == band.common_name]
    alone = len(common) == 1 and sum(one.common_name == band.common_name for one in new) == 1
    return common[0] if alone else None
