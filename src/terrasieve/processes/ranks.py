"""What the processes of a run tell each other; a run of one process has nobody to tell.

Every process has to call the same function at the same point, each with its own values.
"""

from __future__ import annotations

import gc
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

Number = TypeVar("Number", bound=np.generic)


def own_rank() -> int:
    """Number of this process, from 0; 0 where it is the only one."""
    return distributed.get_rank() if _several() else 0


def rank_count() -> int:
    """How many processes there are, 1 or more."""
    return distributed.get_world_size() if _several() else 1


def own_part(count: int) -> slice:
    """This process's part of so many things, which the processes share evenly and in their order."""
    first, last = (count * one // rank_count() for one in (own_rank(), own_rank() + 1))
    return slice(first, last)


def sum_over_ranks(tensor: Tensor) -> None:
    """Replace a tensor by its sum over all processes, in place and without gradient."""
    if _several():
        distributed.all_reduce(tensor)


def largest_over_ranks(tensor: Tensor) -> None:
    """Replace every element of a tensor by its largest value in any process, in place and without gradient."""
    if _several():
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)


def largest_number(number: int) -> int:
    """The largest of a whole number below ``2**63`` in any process."""
    if not _several():
        return number
    told = torch.tensor(number, device=_meeting_place())
    largest_over_ranks(told)
    return int(told)


def alike_over_ranks(number: int) -> bool:
    """Whether a whole number, below ``2**63`` in magnitude, is the same in all processes; all get the same answer."""
    return largest_number(number) == -largest_number(-number)


def everyones(own: NDArray[Number], places: Any, shape: tuple[int, ...]) -> NDArray[Number]:
    """An array of which every process knows some rows, made known to all.

    Args:
        own: The rows of this process, of any type of 32 or 64 bits.
        places: Where they stand in the whole, a slice or positions; no two processes have the same place.
        shape: The shape of the whole.

    Returns:
        The whole, with 0 where no process has the place.
    """
    whole = np.zeros(shape, dtype=own.dtype)
    whole[places] = own
    if _several():
        # Nobody else adds to a place, so that sums are exact; whole numbers have no sign to lose to a sum.
        view = whole.view(f"i{own.dtype.itemsize}") if own.dtype.kind in "iu" else whole
        told = torch.from_numpy(view).to(_meeting_place())
        sum_over_ranks(told)
        view[...] = told.cpu().numpy()
    return whole


def as_rank_zero(tensor: Tensor) -> Tensor:
    """What the first process gives, of any shape with as many dimensions as this one's, on this one's device."""
    if not _several():
        return tensor
    shape = torch.tensor(tensor.shape, dtype=torch.int64, device=_meeting_place())
    distributed.broadcast(shape, 0)
    told = torch.empty(shape.tolist(), dtype=tensor.dtype, device=_meeting_place())
    if own_rank() == 0:
        told.copy_(tensor)
    distributed.broadcast(told, 0)
    return told.to(tensor.device)


def leave() -> None:
    """Part from the other processes at the end of this one, which threads that still listen to them might abort."""
    if _several():
        distributed.destroy_process_group()
        # The threads end with the last object that knows the group: a run that failed leaves some behind in cycles.
        gc.collect()


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _meeting_place() -> torch.device:
    """Where tensors lie that processes exchange: NCCL knows GPUs alone."""
    on_gpus = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_gpus else torch.device("cpu")
