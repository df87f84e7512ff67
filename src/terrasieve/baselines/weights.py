"""A weights file, from its bytes to a network: read without running it, unwrapped by stated rules, nothing lost.

Each step refuses what it cannot answer for: :func:`read_weights` whatever is no tensor, :func:`find_entry` and
:func:`own_keys` what could be meant in two ways, :func:`rename` and :func:`fill` each key that fits nowhere.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

from terrasieve.errors import CheckpointError, nearest

# --------------------------------------------------------------------- reading

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8})\.[a-z]+")
"""The start of the file's SHA-256, as the names on torch.hub's and torchgeo's servers carry it."""

_BYSTANDERS = (
    ("argparse", "Namespace"),
    ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("pytorch_lightning.utilities.argparse", "_gpus_arg_default"),
    ("pytorch_lightning.utilities.argparse_utils", "_gpus_arg_default"),
)
"""What trainers leave beside the weights: settings, and the keys of Lightning's callbacks before 1.5."""


class WeightsFile(NamedTuple):
    """What a file holds, and the SHA-256 of its bytes."""

    content: Any
    sha256: str


def read_weights(path: Path) -> WeightsFile:
    """Read a ``.safetensors`` file, or one that ``torch.save`` wrote, onto the CPU.

    Nothing in the file is executed: torch restores tensors and plain containers only, and classes of
    trainers' settings become empty stand-ins.

    Args:
        path: The file; a name that ends like ``-cd0a2569.pth`` states the start of its SHA-256, which is checked.

    Raises:
        CheckpointError: The file cannot be read, holds other classes, or is not the one that its name says.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"Cannot read the weights {path}: {error}. Give the path of the downloaded file."
        ) from error
    sha256 = hashlib.sha256(data).hexdigest()
    _check_name(path, sha256)
    return WeightsFile(_safetensors(path, data) if path.suffix == ".safetensors" else _saved(path, data), sha256)


def _check_name(path: Path, sha256: str) -> None:
    stated = _HASH_IN_NAME.search(path.name)
    if stated and not sha256.startswith(stated[1]):
        raise CheckpointError(
            f"{path} has the SHA-256 {sha256}, but its name says that it starts with {stated[1]}: the download is "
            "damaged or incomplete. Download it again; if the name means something else, rename the file."
        )


def _safetensors(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}. Download it again.") from error
    return tensors


def _saved(path: Path, data: bytes) -> Any:
    try:
        with _bystanders_allowed():
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # A damaged or hostile pickle can raise nearly anything; whatever it is, the file cannot be used.
    except Exception as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        foreign = re.search(r"(?:unsupported|Unsupported) (?:global: )?GLOBAL (\S+)", str(error))
        reason = f"it holds {foreign[1]}, which is no tensor" if foreign else first_line
        raise CheckpointError(
            f"{path} cannot be read safely: {reason}. "
            "Download it again; if you trust its origin, load it there and save its state dict alone as .safetensors."
        ) from error


@contextmanager
def _bystanders_allowed() -> Iterator[None]:
    # torch keeps one list for the whole process: afterwards it is what it was.
    before = get_safe_globals()
    add_safe_globals([type(name, (_Bystander,), {"__module__": module}) for module, name in _BYSTANDERS])
    try:
        yield
    finally:
        clear_safe_globals()
        add_safe_globals(before)


class _Bystander:
    """Takes the place of a class by its name, and does nothing."""

    def __init__(self, *arguments: object) -> None:
        pass


# ------------------------------------------------------------------- unwrapping

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
        content: What a file holds, as :func:`read_weights` gives it.
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
        offer = f" State dicts are in: {', '.join(found)}; name one, as in <file>#<entry>." if found else ""
        raise CheckpointError(f"No entry is a state dict that is known by name ({', '.join(ENTRIES)}).{offer}")
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
        tensors: Tensors by key, of a network or of what a network was wrapped in.
        own: Keys of the network itself.

    Raises:
        CheckpointError: Two prefixes are possible at once, or a key beside the prefix is of no head.
    """
    taken: list[str] = []
    inside, outside = dict(tensors), dict[str, Tensor]()
    while not all(key in inside or key.endswith(COUNTER) for key in own):
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


# ------------------------------------------------------------------- accounting

SHOWN = 3
"""Keys that a message names."""

COUNTER = ".num_batches_tracked"
"""Batch normalisation counts batches since torch 0.4.1; nothing computes with it, so it may be absent."""


def rename(
    tensors: Mapping[str, Tensor], new_name: Callable[[str], str | None], dropped: Sequence[str], what: str
) -> dict[str, Tensor]:
    """The same tensors under other names.

    Args:
        tensors: Tensors by key, which are not copied.
        new_name: Function of a key that gives its new name; None for a key that has no business there.
        dropped: Starts of keys that are left out.
        what: Name of what the state dict should be, for messages.

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
        model: The network whose weights are replaced.
        tensors: Its whole state dict; counters of batches may be missing.
        what: Name of the network, for messages.

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
    # Counters that the file lacks stay as they are.
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
