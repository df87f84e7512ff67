"""Layers that compute the same in another way, put into a network that is already built.

Several views in one pass, each normalised by its own batch statistics: optical and radar views have little in common,
and statistics over both would tell a network which is which. Passing views one by one does that, and loads every weight
once a view. Convolutions of one larger batch are faster, so here the views of one size are passed together and only
batch normalisation takes them apart.

Convolutions whose output is one pixel, computed as the linear maps that they are: the last stage of a ResNet sees one
pixel of a 32-pixel view, and a kernel of 3 by 3 then multiplies eight of nine weights by padding. On the CPU, leaving
these out halves the time of a training step at that size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

# --------------------------------------------------- views and their statistics


class _SplitBatchNorm(_BatchNorm):
    """Batch normalisation that may be told that its batch is several views, one after the other."""

    views = 1

    def forward(self, batch: Tensor) -> Tensor:
        if self.views == 1 or not self.training:
            return super().forward(batch)
        # One after the other, so that running statistics move once a view, as they would if views came alone.
        return torch.cat([super(_SplitBatchNorm, self).forward(view) for view in batch.chunk(self.views)])


class SplitBatchNorm1d(_SplitBatchNorm, nn.BatchNorm1d):
    """:class:`torch.nn.BatchNorm1d` that can take views apart; same parameters, buffers and names."""


class SplitBatchNorm2d(_SplitBatchNorm, nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d` that can take views apart; same parameters, buffers and names."""


def split_batchnorm(model: nn.Module) -> None:
    """Replace a network's batch normalisation, in place, for one that can take views apart.

    Parameters, buffers and the names in its state dict stay as they are. Kinds of batch normalisation other than
    torch's own stay too; :func:`pass_views` then passes views one by one.
    """
    replace_modules(model, {nn.BatchNorm1d: SplitBatchNorm1d, nn.BatchNorm2d: SplitBatchNorm2d})


def pass_views(model: nn.Module, views: Sequence[Tensor]) -> list[Tensor]:
    """The output of each view as if it were passed alone, in one pass for all views of one shape where possible.

    Args:
        model: A network that has been through :func:`split_batchnorm`; it must not mix samples other than by batch
            normalisation.
        views: Batches of equal length; their other dimensions may differ, as those of DINO's crops do.

    Returns:
        One output for each view, in their order.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    apart = [norm for norm in norms if isinstance(norm, _SplitBatchNorm)]
    # One that cannot take views apart would mix their statistics.
    if len(apart) < len(norms):
        return [model(view) for view in views]
    outputs: dict[int, Tensor] = {}
    for members in _alike(views):
        with _several_views(apart, len(members)):
            output = model(torch.cat([views[i] for i in members]))
        outputs.update(zip(members, output.chunk(len(members)), strict=True))
    return [outputs[i] for i in range(len(views))]


def _alike(views: Sequence[Tensor]) -> Iterable[list[int]]:
    """Positions of the views of each shape, in the order in which the shapes appear."""
    groups: dict[torch.Size, list[int]] = {}
    for i, view in enumerate(views):
        groups.setdefault(view.shape, []).append(i)
    return groups.values()


@contextmanager
def _several_views(norms: Sequence[_SplitBatchNorm], count: int) -> Iterator[None]:
    for norm in norms:
        norm.views = count
    try:
        yield
    finally:
        # Also after an error: a later pass of one view alone must not be cut into parts.
        for norm in norms:
            norm.views = 1


# ------------------------------------------------------------------ replacing


def replace_modules(model: nn.Module, kinds: Mapping[type[nn.Module], type[nn.Module]]) -> None:
    """Make layers instances of a subclass, in place; parameters, buffers, hooks and names stay as they are.

    Args:
        model: The network whose layers at any depth are replaced; the network itself never is.
        kinds: Of each kind of layer the subclass that takes its place. A kind stands for itself alone, not for its own
            subclasses, whose forward pass would be lost.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) in kinds:
                # Not constructed, which would draw weights: the subclass takes over everything the layer holds.
                kind = kinds[type(child)]
                replaced = kind.__new__(kind)
                replaced.__dict__ = child.__dict__.copy()
                setattr(parent, name, replaced)


# ---------------------------------------------------- convolutions to one pixel


class PixelConv2d(nn.Conv2d):
    """:class:`torch.nn.Conv2d` that spares multiplications by padding where its output is one pixel, on the CPU.

    The result is that of the convolution up to the order of summation; parameters and names are the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The convolution of ``(n, in_channels, height, width)``."""
        covered = self._covered(input)
        if covered is None:
            return super().forward(input)
        # The kernel begins ``padding`` before the input, so that its first weights there meet nothing but zeros.
        rows, columns = covered
        (top, left) = (int(self.padding[0]), int(self.padding[1]))
        weight = self.weight[:, :, top : top + rows, left : left + columns]
        pixels = input[:, :, :rows, :columns]
        return functional.linear(pixels.flatten(1), weight.flatten(1), self.bias)[:, :, None, None]

    def _covered(self, input: Tensor) -> tuple[int, int] | None:
        """Rows and columns of the input under the kernel, where the output is one pixel; None otherwise."""
        plain = self.groups == 1 and self.dilation == (1, 1) and self.padding_mode == "zeros"
        if input.device.type != "cpu" or not plain or isinstance(self.padding, str):
            return None
        covered = []
        for size, kernel, pad, stride in zip(
            input.shape[-2:], self.kernel_size, self.padding, self.stride, strict=True
        ):
            # Room for the kernel once and not a stride further: one place along this axis.
            if not 0 <= size + 2 * pad - kernel < stride:
                return None
            covered.append(min(size, kernel - pad))
        return covered[0], covered[1]


def spare_padding(model: nn.Module) -> None:
    """Replace a network's convolutions, in place; its state dict stays as it is."""
    replace_modules(model, {nn.Conv2d: PixelConv2d})
