"""Several views in one pass, each normalised by its own batch statistics.

A view must be normalised by itself: optical and radar views have little in common, and statistics over both would
tell a network which is which. Passing views one by one does that, and loads every weight once a view. Convolutions
of one larger batch are faster, so here the views of one size are passed together and only batch normalisation takes
them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from terrasieve.models.replace_modules import replace_modules


class _SplitBatchNorm(_BatchNorm):
    """Batch normalisation that may be told that its batch is several views, one after the other."""

    views = 1

    def forward(self, batch: Tensor) -> Tensor:
        if self.views == 1 or not self.training:
            return super().forward(batch)
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
        for norm in norms:
            norm.views = 1
