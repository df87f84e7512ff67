"""Nothing is lost and nothing is made up when one state dict becomes another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from terrasieve.errors import CheckpointError

SHOWN = 3
COUNTER = ".num_batches_tracked"
"""Batch normalisation counts batches since torch 0.4.1; nothing computes with it, so it may be absent."""


def rename(
    tensors: Mapping[str, Tensor], new_name: Callable[[str], str | None], dropped: Sequence[str], what: str
) -> dict[str, Tensor]:
    """The same tensors under other names.

    Args:
        tensors: A state dict.
        new_name: The new name of a key; None for a key that has no business there.
        dropped: Starts of keys that are left out.
        what: What the state dict should be, for messages.

    Raises:
        CheckpointError: A key is neither renamed nor left out, or two get one name.
    """
    wanted = {key: new_name(key) for key in tensors if not key.startswith(tuple(dropped))}
    foreign = [key for key, new in wanted.items() if new is None]
    if foreign:
        left_out = f" (left out are {', '.join(dropped)})" if dropped else ""
        raise CheckpointError(
            f"These keys do not belong to {what}{left_out}: {first(foreign)}. "
            "Check that the file is what the baseline's name says, or load it as timm:<timm name>:<file>."
        )
    renamed = {new: tensors[key] for key, new in wanted.items() if new is not None}
    if len(renamed) < len(wanted):
        raise CheckpointError(f"Two keys of {what} mean the same weights; save one copy alone.")
    return renamed


def fill(model: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load a state dict, in place; every key must fit.

    Args:
        model: A network.
        tensors: Its whole state dict; counters of batches may be missing.
        what: What the network is, for messages.

    Raises:
        CheckpointError: A key is missing or superfluous, or has another shape.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in tensors and not key.endswith(COUNTER)]
    extra = [key for key in tensors if key not in own]
    if missing or extra:
        raise CheckpointError(
            f"The weights are not those of {what}: missing {first(missing)}; superfluous {first(extra)}. "
            "Name the architecture that the file was trained with, or download it again."
        )
    reshaped = [
        f"{key} {tuple(tensors[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    if reshaped:
        raise CheckpointError(
            f"The weights have other shapes than {what}: {first(reshaped)}. "
            "Name the architecture, and the number of bands, that the file was trained with."
        )
    model.load_state_dict({**own, **tensors})


def first(keys: Iterable[str]) -> str:
    """The first few of some keys in alphabetical order, and how many there are."""
    found = sorted(keys)
    if not found:
        return "none"
    shown = ", ".join(found[:SHOWN])
    return shown if len(found) <= SHOWN else f"{shown}, ... ({len(found)} in all)"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put a file's path before the message of any :class:`CheckpointError` within."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
