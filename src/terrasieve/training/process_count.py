"""Whether a run that goes on with another number of processes is the same run, and what it is told."""

from __future__ import annotations

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

from timm.layers.drop import DropPath
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from terrasieve.errors import CheckpointError
from terrasieve.methods.base import Method

_DRAWING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


def depends_on_processes(method: Method, synchronised: bool) -> str | None:
    """What of a step depends on how its batch is split over processes, as the beginning of a sentence.

    Samples, views and gradients do not: each is drawn for the batch of all, or summed over all.

    Args:
        method: The method, with its networks.
        synchronised: Whether batch normalisation takes its statistics over all processes.

    Returns:
        None where nothing does, but for the order in which numbers are summed.
    """
    modules = list(method.modules())
    if not synchronised and any(isinstance(one, _BatchNorm) for one in modules):
        return "Batch normalisation sees the samples of one process"
    if method.mixes_samples:
        return "The loss compares the samples of a process with each other"
    if method.draws_in_forward:
        return f"Each process draws {method.draws_in_forward}"
    paths = (isinstance(one, DropPath) and one.drop_prob for one in modules)
    if any(paths) or any(isinstance(one, _DRAWING) and one.p for one in modules):
        return "Each process draws which paths or features are dropped"
    return None


def check_processes(before: int | None, now: int, method: Method, synchronised: bool) -> str | None:
    """Refuse to go on with another number of processes where that would be another run.

    Args:
        before: How many processes wrote the checkpoint; None where it does not say.
        now: How many there are now.
        method: The method that is trained.
        synchronised: Whether batch normalisation takes its statistics over all processes.

    Returns:
        What to say of the change; None where there is none.

    Raises:
        CheckpointError: A step depends on the number of processes.
    """
    if before in (None, now):
        return None
    reason = depends_on_processes(method, synchronised)
    if reason is None:
        return f"Going on with {now} processes instead of {before}: exact, up to the order in which numbers are summed."
    raise CheckpointError(
        f"The checkpoint was written by {before} processes, and now the number is {now}. {reason}, so that this "
        f"would be another run. Resume with {before} processes, or start a new run in another folder."
    )
