"""How many processes a run has and which of them this one is, as its launcher says; the one place that reads it.

Launchers tell their processes by environment variables: torchrun by ``RANK`` and its companions, Slurm's ``srun`` by
``SLURM_PROCID``, Open MPI by ``OMPI_COMM_WORLD_RANK``, MPICH and Intel MPI by ``PMI_RANK``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from terrasieve.errors import WorldError

Launcher = Literal["torchrun", "Slurm", "Open MPI", "MPI"]

_PORTS = range(15_000, 25_000)
"""Ports that processes meet at where nobody names one: below those that systems hand out by themselves."""


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this one is.

    Attributes:
        rank: Number of this process among all, from 0.
        size: Number of processes on all machines, 1 or more.
        local_rank: Number of this process among those of its machine, from 0.
        nodes: Number of machines, 1 or more.
        per_node: Number of processes on each machine, 1 or more.
        source: Who launched them.
        address: Name or address of the first process's machine, where all processes meet.
        port: The port that they meet at.
    """

    rank: int
    size: int
    local_rank: int
    nodes: int
    per_node: int
    source: Launcher
    address: str
    port: int

    def check_devices(self, devices: int | None) -> None:
        """Refuse a number of devices that the launcher contradicts.

        Args:
            devices: How many devices of each machine were asked for; None takes the launcher's word.

        Raises:
            WorldError: There are as many processes on a machine as devices, but another number was asked for.
        """
        if devices is not None and devices != self.per_node:
            started = f"{self.source} started {self.per_node} {'process' if self.per_node == 1 else 'processes'}"
            raise WorldError(
                f"--devices is {devices}, but {started} on each machine, one for each device. Leave --devices out, or "
                "let the launcher start as many."
            )


def read_world(variables: Mapping[str, str] = os.environ) -> World | None:
    """The world as the launcher says; None where nothing was launched, or a single process by Slurm or MPI.

    Where torchrun or MPI runs inside a Slurm job, its own variables count.

    Args:
        variables: The environment.

    Raises:
        WorldError: A variable is missing, is no number, or contradicts another.
    """
    found = _Variables(variables)
    if "RANK" in variables and "WORLD_SIZE" in variables:
        return _torchrun(found)
    if "OMPI_COMM_WORLD_RANK" in variables:
        names = tuple(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"))
        return _mpi(found, "Open MPI", names)
    # Slurm sets PMI_RANK, too, where it starts MPI programs itself.
    if "PMI_RANK" in variables and ("MPI_LOCALRANKID" in variables or "SLURM_PROCID" not in variables):
        return _mpi(found, "MPI", ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"))
    return _slurm(found) if "SLURM_PROCID" in variables else None


def is_first(variables: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the process that speaks for all, also where the variables are not fit for a run."""
    named = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID", "LOCAL_RANK")
    rank = next((variables[name] for name in named if name in variables), "0")
    return rank.strip() == "0" or not rank.strip().isdecimal()


class _Variables:
    """Environment variables that hold whole numbers."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.texts = variables

    def number(self, name: str, source: Launcher, least: int = 0) -> int:
        text = self.texts.get(name)
        if text is None:
            raise WorldError(
                f"{name} is not set, which {source} sets for each of its processes beside the others. Start the run by "
                "torchrun, srun or mpirun itself, and pass its environment on whole."
            )
        if not text.strip().isdecimal() or int(text) < least:
            raise WorldError(f"{name} is {text!r}; {source} sets it to a whole number of {least} or more.")
        return int(text)

    def first(self, names: tuple[str, ...], source: Launcher, least: int = 0) -> int:
        """The first of several that is set."""
        return self.number(next((name for name in names if name in self.texts), names[0]), source, least)

    def meeting_point(self, source: Launcher, nodes: int, address: str | None = None) -> tuple[str, int]:
        """Where processes meet: as MASTER_ADDR and MASTER_PORT say, else as follows from the job."""
        address = self.texts.get("MASTER_ADDR", address or ("127.0.0.1" if nodes == 1 else None))
        if not address:
            raise WorldError(
                f"MASTER_ADDR is not set, and {source} does not say where the first of {nodes} machines is. Set it to "
                "that machine's name for all processes."
            )
        if "MASTER_PORT" in self.texts:
            return address, self.number("MASTER_PORT", source, least=1)
        job = re.sub(r"\D", "", self.texts.get("SLURM_JOB_ID", "")) or "0"
        return address, _PORTS[int(job) % len(_PORTS)]


def _torchrun(found: _Variables) -> World:
    source: Launcher = "torchrun"
    rank, size = found.number("RANK", source), found.number("WORLD_SIZE", source, least=1)
    local, per_node = found.number("LOCAL_RANK", source), found.number("LOCAL_WORLD_SIZE", source, least=1)
    return _checked(found, source, rank, size, local, per_node, ("RANK", "WORLD_SIZE", "LOCAL_RANK"))


def _mpi(found: _Variables, source: Launcher, names: tuple[str, ...]) -> World | None:
    size = found.number(names[1], source, least=1)
    if size == 1:
        return None
    rank, local, per_node = (found.number(names[i], source, least=i == 3) for i in (0, 2, 3))
    return _checked(found, source, rank, size, local, per_node, names)


def _slurm(found: _Variables) -> World | None:
    source: Launcher = "Slurm"
    # Those of the step, where it has fewer tasks than the job.
    size = found.first(("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"), source, least=1)
    if size == 1:
        return None
    if "SLURM_STEP_ID" not in found.texts:
        raise WorldError(
            f"SLURM_NTASKS is {size}, but this is the batch script's only process. Start the run by srun in the "
            "script, which starts one for each task."
        )
    rank, local = found.number("SLURM_PROCID", source), found.number("SLURM_LOCALID", source)
    nodes = found.first(("SLURM_STEP_NUM_NODES", "SLURM_NNODES"), source, least=1)
    per_node, rest = divmod(size, nodes)
    if rest:
        raise WorldError(
            f"Slurm started {size} tasks on {nodes} nodes, which is not as many on each. Ask for --ntasks-per-node."
        )
    stated = "SLURM_NTASKS_PER_NODE"
    if stated in found.texts and found.number(stated, source, least=1) != per_node:
        raise WorldError(
            f"{stated} is {found.texts[stated]}, but Slurm started {size} tasks on {nodes} nodes. Give srun the same "
            "--nodes and --ntasks-per-node as the job."
        )
    listed = found.texts.get("SLURM_STEP_NODELIST") or found.texts.get("SLURM_JOB_NODELIST") or ""
    names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    return _checked(found, source, rank, size, local, per_node, names, first_node(listed))


def _checked(
    found: _Variables,
    source: Launcher,
    rank: int,
    size: int,
    local: int,
    per_node: int,
    names: tuple[str, ...],
    address: str | None = None,
) -> World:
    """The world, whose numbers must fit each other."""
    if rank >= size:
        raise WorldError(f"{names[0]} is {rank}, but {names[1]} is {size}: processes are numbered from 0.")
    if local >= per_node:
        raise WorldError(
            f"{names[2]} is {local}, but {source} started {per_node} on each machine: they are numbered from 0."
        )
    if size % per_node:
        raise WorldError(
            f"{source} started {size} processes, {per_node} of them on this machine, which is not as many on each. "
            "Start as many on every machine."
        )
    nodes = size // per_node
    return World(rank, size, local, nodes, per_node, source, *found.meeting_point(source, nodes, address))


def first_node(listed: str) -> str | None:
    """The first machine of a list in Slurm's short form, such as ``gpu[03-07,11],login1``; None of an empty one."""
    name = re.match(r"[^,\[]*(\[([^\],-]*)[^\]]*\])?[^,]*", listed.strip())
    assert name is not None, "every part of the pattern may be empty"
    whole = name.group(0)
    return (whole if name.group(1) is None else whole.replace(name.group(1), name.group(2))) or None
