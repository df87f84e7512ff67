"""Checkpoints: safetensors for tensors, JSON for what people read, nothing that can execute.

A checkpoint is a folder ``step-00001200``. It is written under a temporary name, flushed to disk and
then renamed, so that a kill or a full disk leaves the ones before it untouched.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from terrasieve.errors import CheckpointError, WriteError
from terrasieve.writing import clear_partials, write_tensors, write_text, write_whole

VERSION = 1
_PREFIX = "step-"


class Snapshot(NamedTuple):
    """What a resumed run needs besides the weights.

    Attributes:
        tensors: Named tensors, for example the pool and the state of torch's generator.
        facts: JSON-able values.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def write_checkpoint(
    folder: Path, step: int, method: nn.Module, optimiser: torch.optim.Optimizer, snapshot: Snapshot, keep: int
) -> Path:
    """Write a checkpoint and remove all but the last ``keep``.

    Args:
        folder: Where checkpoints of this run lie; made if absent.
        step: Optimiser steps done.
        method: Weights and buffers of student and teacher.
        optimiser: Its momenta.
        snapshot: The rest of the run's state.
        keep: How many checkpoints stay.

    Returns:
        The new checkpoint's folder.

    Raises:
        WriteError: The system refused it; earlier checkpoints are untouched.
    """
    final = folder / f"{_PREFIX}{step:08d}"
    clear_partials(folder, f"{_PREFIX}*")
    tensors, facts = _flatten(optimiser)
    state = {"version": VERSION, "step": step, "optimiser": facts, **snapshot.facts}
    try:
        with write_whole(final) as partial:
            write_tensors(partial / "method.safetensors", method.state_dict())
            write_tensors(partial / "optimiser.safetensors", tensors)
            write_tensors(partial / "run.safetensors", snapshot.tensors)
            write_text(partial / "state.json", json.dumps(state, indent=1))
    except WriteError as error:
        raise WriteError(f"{error} Earlier checkpoints are untouched; go on with --resume.") from error
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, the oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / "state.json").is_file())


def read_facts(path: Path) -> Mapping[str, Any]:
    """The JSON-able part of a checkpoint's snapshot.

    Raises:
        CheckpointError: It is damaged or of another version.
    """
    with _explained(path):
        facts: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if facts["version"] != VERSION:
            raise CheckpointError(
                f"{path} is a checkpoint of version {facts['version']}, but this release reads version {VERSION}. "
                "Resume with the release that wrote it, or start a new run in another folder."
            )
        return facts


def read_checkpoint(path: Path, method: nn.Module, optimiser: torch.optim.Optimizer) -> Snapshot:
    """Load weights and momenta in place and return the rest.

    Raises:
        CheckpointError: A file is missing, damaged, of another version or of another model.
    """
    facts = read_facts(path)
    with _explained(path):
        method.load_state_dict(load_file(path / "method.safetensors"))
        _restore(optimiser, load_file(path / "optimiser.safetensors"), facts["optimiser"])
        return Snapshot(load_file(path / "run.safetensors"), facts)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what a damaged file can raise into one error that says what to do."""
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be resumed: {error}. Delete that folder to go on from the checkpoint before it."
        ) from error


def _flatten(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    state = optimiser.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
    return tensors, {"groups": groups, "scalars": scalars}


def _restore(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {int(i): dict(values) for i, values in facts["scalars"].items()}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        # Momenta take their parameter's memory format, without which fused updates fall back to a slow path.
        like = torch.empty_like(parameter) if tensor.shape == parameter.shape else torch.empty_like(tensor)
        state.setdefault(int(index), {})[name] = like.copy_(tensor)
    groups = optimiser.state_dict()["param_groups"]
    for group, stored in zip(groups, facts["groups"], strict=True):
        group.update(stored)
    optimiser.load_state_dict({"state": state, "param_groups": groups})
