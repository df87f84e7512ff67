"""What the processes of a run tell each other inside a loss; a run of one process has nobody to tell."""

from __future__ import annotations

from torch import Tensor, distributed


def own_rank() -> int:
    """Number of this process, from 0; 0 where it is the only one."""
    return distributed.get_rank() if _several() else 0


def sum_over_ranks(tensor: Tensor) -> None:
    """Replace a tensor by its sum over all processes, in place and without gradient."""
    if _several():
        distributed.all_reduce(tensor)


def largest_over_ranks(tensor: Tensor) -> None:
    """Replace every element of a tensor by its largest value in any process, in place and without gradient."""
    if _several():
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()
