"""Checkpoints: safetensors for tensors, JSON for what people read, nothing that can execute.

A checkpoint is a folder ``step-00001200``. It is written under a temporary name, flushed to disk and
then renamed, so that a kill or a full disk leaves the ones before it untouched. It holds

- ``method.safetensors``: weights and buffers of student and teacher,
- ``optimiser.safetensors``: the optimiser's momenta,
- ``run.safetensors``: the pool, the feature bank, the state of torch's generator, losses that are not logged yet,
- ``state.json``: the position in the pool, clocks, the last logged numbers, the configuration.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from terrasieve.console import console
from terrasieve.errors import CheckpointError, ConfigError, WorldError, WriteError
from terrasieve.files.writing import clear_partials, write_tensors, write_text, write_whole
from terrasieve.methods.base import Method
from terrasieve.processes.ranks import alike_over_ranks, largest_number
from terrasieve.runs import RunFolder
from terrasieve.schema import read_json
from terrasieve.training.job import TrainingJob
from terrasieve.training.process_count import check_processes

VERSION = 1
_PREFIX = "step-"


class Snapshot(NamedTuple):
    """What a resumed run needs besides the weights.

    Attributes:
        tensors: Tensors by name, of any shape and type, for example the pool and the state of torch's generator.
        facts: Values by name that JSON can hold.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


class Stateful(Protocol):
    """A part of a run that goes on where it was; no two parts use the same name for a tensor or for a fact."""

    def snapshot(self) -> Snapshot:
        """Everything that the part needs to go on."""
        ...

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot that holds, among others, what :meth:`snapshot` gave."""
        ...


class Checkpointer:
    """Writes the checkpoints of a run, and takes a run up again from the last of them.

    Args:
        job: The run's folder, its configuration, and how often a checkpoint is written and how many stay.
        fabric: The processes, of which the first alone writes, and the scale of gradients in 16 bits.
        method: The method whose weights and buffers are kept; its exported encoder is written with each checkpoint.
        optimiser: The optimiser whose momenta are kept.
        parts: The other parts of the run that go on where they were.
    """

    def __init__(
        self,
        job: TrainingJob,
        fabric: Fabric,
        method: Method,
        optimiser: torch.optim.Optimizer,
        parts: Sequence[Stateful],
    ) -> None:
        self.job = job
        self.fabric = fabric
        self.method = method
        self.optimiser = optimiser
        self.parts = parts
        self.folder = RunFolder(job.folder).checkpoints
        self._written: int | None = None
        self._last_time = time.monotonic()

    @property
    def last(self) -> Path:
        """The folder of the last whole checkpoint; there has to be one."""
        return checkpoints(self.folder)[-1]

    def start(self, resume: bool) -> None:
        """Restore the last checkpoint, if there is one, or make the folder.

        Raises:
            ConfigError: The folder holds a run and ``resume`` is false.
            WorldError: The processes do not see the same folder.
            CheckpointError: The checkpoint is damaged, of another configuration, or of another number of processes
                on which the run depends.
        """
        found = checkpoints(self.folder)
        if not alike_over_ranks(int(found[-1].name.removeprefix(_PREFIX)) if found else -1):
            raise WorldError(
                f"{self.job.folder} does not hold the same checkpoints for all processes; let --out be a folder that "
                "all machines share."
            )
        if found and not resume:
            raise ConfigError(
                f"{self.job.folder} already holds a run ({found[-1].name}). "
                "Go on with it by --resume, or choose another folder with --out."
            )
        if found:
            if self.fabric.is_global_zero:
                _remove_old(self.folder, self.job.spec.keep_checkpoints)
            self._restore(found[-1])
        elif self.fabric.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._last_time = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether the last checkpoint was written too long ago, on which several processes agree now and then.

        Args:
            step: The step that is next, from 0.
        """
        late = time.monotonic() - self._last_time > 60 * self.job.spec.checkpoint_minutes
        if self.fabric.world_size == 1:
            return late
        return step % self.job.spec.log_every == 0 and largest_number(late) == 1

    def write(self, step: int) -> None:
        """Write a checkpoint, unless there is one of this step, and export the encoder.

        Every process has to call it, and the first one writes.

        Args:
            step: How many optimiser steps are done, 0 or more.

        Raises:
            CheckpointError: The disk refused it; earlier checkpoints are untouched.
        """
        snapshot = None if step == self._written else self._snapshot()
        if self.fabric.is_global_zero and snapshot is not None:
            keep = self.job.spec.keep_checkpoints
            write_checkpoint(self.folder, step, self.method, self.optimiser, snapshot, keep)
        # Statistics that processes take together are measured by all of them.
        if self.fabric.is_global_zero or self.job.spec.sync_batchnorm:
            self.job.export(self.method.exported, step)
        self._last_time = time.monotonic()

    def _snapshot(self) -> Snapshot:
        tensors: dict[str, Tensor] = {"rng": torch.get_rng_state()}
        facts: dict[str, Any] = {
            "precision": self.fabric.strategy.precision.state_dict(),  # the scale of gradients in 16 bits
            "curation": None,  # as stands for a run without rounds
            "config": self.job.config,
            "processes": self.fabric.world_size,
        }
        for part in self.parts:
            own = part.snapshot()
            tensors |= own.tensors
            facts |= own.facts
        return Snapshot(tensors, facts)

    def _restore(self, path: Path) -> None:
        # First of all, since the weights of another configuration need not fit.
        facts = read_facts(path)
        _refuse_other_config(path, facts["config"], self.job.config)
        synchronised = self.job.spec.sync_batchnorm
        said = check_processes(facts.get("processes"), self.fabric.world_size, self.method, synchronised)
        if said and self.fabric.is_global_zero:
            console.print(said, highlight=False)
        snapshot = read_checkpoint(path, self.method, self.optimiser)
        for part in self.parts:
            part.restore(snapshot)
        torch.set_rng_state(snapshot.tensors["rng"])
        self.fabric.strategy.precision.load_state_dict(snapshot.facts["precision"])
        self._written = snapshot.facts["step"]


def _refuse_other_config(path: Path, stored: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    differing = sorted(_differences(stored, own))
    if differing:
        raise CheckpointError(
            f"{path} was written under another configuration: {'; '.join(differing)}. "
            "Resume with the settings it was started with (its config.yaml serves as a recipe), or start a new run in "
            "another folder."
        )


def _differences(stored: Any, own: Any, key: str = "") -> list[str]:
    if isinstance(stored, Mapping) and isinstance(own, Mapping):
        return [
            line
            for name in sorted({*stored, *own})
            for line in _differences(stored.get(name), own.get(name), f"{key}.{name}" if key else name)
        ]
    if isinstance(stored, list) and isinstance(own, list) and len(stored) == len(own):
        return [
            line for i, pair in enumerate(zip(stored, own, strict=True)) for line in _differences(*pair, f"{key}.{i}")
        ]
    # What a checkpoint does not know of was off. Curators called that precision float32 once.
    alike = [(None, False)] + [("float32", "32")] * key.endswith(".precision")
    if stored == own or (stored, own) in alike:
        return []
    return [f"{key} was {stored!r}, now {own!r}"]


# -------------------------------------------------------------------- on disk


def write_checkpoint(
    folder: Path, step: int, method: nn.Module, optimiser: torch.optim.Optimizer, snapshot: Snapshot, keep: int
) -> Path:
    """Write a checkpoint and remove all but the last ``keep``.

    Args:
        folder: Where checkpoints of this run lie; made if absent.
        step: How many optimiser steps are done, 0 or more; it names the checkpoint.
        method: The method whose weights and buffers, of student and teacher, are written.
        optimiser: The optimiser whose momenta are written.
        snapshot: The rest of the run's state.
        keep: How many checkpoints stay, this one included; 1 or more.

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
    _remove_old(folder, keep)
    return final


def _remove_old(folder: Path, keep: int) -> None:
    """Remove all but the last checkpoints, and with them what is left of one whose removal was cut short."""
    for old in set(folder.glob(f"{_PREFIX}*")).difference(checkpoints(folder)[-keep:]):
        shutil.rmtree(old)


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, the oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / "state.json").is_file())


def read_facts(path: Path) -> Mapping[str, Any]:
    """The JSON-able part of a checkpoint's snapshot.

    Raises:
        CheckpointError: It is damaged or of another version.
    """
    with _explained(path):
        facts: dict[str, Any] = read_json(path / "state.json")
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
        # How parameters are moved is the matter of the device that goes on, not of the one that stopped.
        group.update({name: value for name, value in stored.items() if name not in ("fused", "foreach", "capturable")})
    optimiser.load_state_dict({"state": state, "param_groups": groups})
