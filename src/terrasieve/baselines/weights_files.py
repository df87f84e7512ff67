"""Weights files, read without running what they hold."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

from terrasieve.errors import CheckpointError

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


def _safetensors(path: Path, data: bytes) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}. Download it again.") from error
    return tensors


def _saved(path: Path, data: bytes) -> Any:
    try:
        with _bystanders_allowed():
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # A damaged or hostile pickle can raise nearly anything; whatever it is, the file cannot be used.
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{path} cannot be read safely: {_unsafe(str(error)) or (reason[0] if reason else type(error).__name__)}. "
            "Download it again; if you trust its origin, load it there and save its state dict alone as .safetensors."
        ) from error


def _unsafe(message: str) -> str | None:
    named = re.search(r"(?:unsupported|Unsupported) (?:global: )?GLOBAL (\S+)", message)
    return f"it holds {named[1]}, which is no tensor" if named else None


@contextmanager
def _bystanders_allowed() -> Iterator[None]:
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
