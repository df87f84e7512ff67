"""The state dict inside a checkpoint of unknown make: found by stated rules, reported, never guessed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from terrasieve.baselines.accounting import COUNTER, first
from terrasieve.errors import CheckpointError, nearest

ENTRIES = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema", "teacher", "student")
"""Entries of a checkpoint that may hold the state dict."""

PREFIXES = ("module.", "_orig_mod.", "backbone.", "encoder.", "model.")
"""What wrappers put before the names of a network."""

HEADS = ("fc.", "head.", "heads.", "classifier.", "projector.", "projection_head.", "predictor.", "prototypes.")
"""What is left out where the network itself has no such part."""


class Unwrapped(NamedTuple):
    """A network's own state dict, and what was taken off to find it, a line each."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


def find_entry(content: Any, entry: str | None) -> Unwrapped:
    """The state dict of a checkpoint.

    Args:
        content: What the file holds.
        entry: Name of the entry that is meant; None where there must be only one.

    Raises:
        CheckpointError: There is none, there are several and none was named, or the named one is not there.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"The file holds a {type(content).__name__}, not a state dict; save one.")
    if entry is None and is_state_dict(content):
        return Unwrapped(dict(content), ())
    found = [key for key, value in content.items() if isinstance(key, str) and is_state_dict(value)]
    wanted = [entry] if entry else [key for key in found if key in ENTRIES]
    if len(wanted) > 1:
        raise CheckpointError(f"Several entries may be meant: {', '.join(wanted)}. Name one, as in <file>#{wanted[0]}.")
    if not wanted:
        raise CheckpointError(f"No entry is a state dict that is known by name ({', '.join(ENTRIES)}).{_offer(found)}")
    if wanted[0] not in found:
        raise CheckpointError(
            f"No entry {wanted[0]!r} is a state dict.{nearest(wanted[0], found)} "
            "Check that the file is what the baseline's name says, or load it as timm:<timm name>:<file>."
        )
    return Unwrapped(dict(content[wanted[0]]), (f"state dict taken from the entry {wanted[0]!r}",))


def own_keys(tensors: Mapping[str, Tensor], own: Collection[str]) -> Unwrapped:
    """A network's state dict without the prefixes of wrappers and without heads.

    Prefixes are taken off one by one until every key of the network is there; a key without the prefix then must
    belong to a head.

    Args:
        tensors: A state dict.
        own: Keys of the network.

    Raises:
        CheckpointError: Two prefixes are possible at once, or a key beside the prefix is of no head.
    """
    taken: list[str] = []
    inside, outside = dict(tensors), dict[str, Tensor]()
    while not _complete(inside, own):
        options = [prefix for prefix in PREFIXES if any(key.startswith(prefix) for key in inside)]
        if not options:
            break
        if len(options) > 1:
            raise CheckpointError(f"Keys start with {' and '.join(options)}; save the encoder's state dict alone.")
        outside |= {key: tensor for key, tensor in inside.items() if not key.startswith(options[0])}
        inside = {key.removeprefix(options[0]): t for key, t in inside.items() if key.startswith(options[0])}
        taken.append(options[0])
    return _without_heads(inside, outside, own, tuple(taken))


def is_state_dict(value: Any) -> bool:
    """Whether a value is a mapping from names to tensors, and not empty."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _complete(tensors: Collection[str], own: Collection[str]) -> bool:
    return all(key in tensors or key.endswith(COUNTER) for key in own)


def _without_heads(
    inside: Mapping[str, Tensor], outside: Mapping[str, Tensor], own: Collection[str], taken: tuple[str, ...]
) -> Unwrapped:
    foreign = [key for key in outside if not key.startswith(HEADS)]
    if foreign:
        raise CheckpointError(
            f"Beside {''.join(taken)} there are keys of neither the network nor a head ({', '.join(HEADS)}): "
            f"{first(foreign)}. Save the encoder's state dict alone."
        )
    heads = [key for key in inside if key not in own and key.startswith(HEADS)]
    kept = {key: tensor for key, tensor in inside.items() if key not in heads}
    notes = [f"prefix {''.join(taken)!r} taken off"] if taken else []
    left_out = [*outside, *heads]
    notes += [f"left out: {first(left_out)}"] if left_out else []
    return Unwrapped(kept, tuple(notes))


def _offer(found: Collection[str]) -> str:
    return f" State dicts are in: {', '.join(found)}; name one, as in <file>#<entry>." if found else ""
