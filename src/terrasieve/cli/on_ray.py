"""Parts on a Ray cluster: each worker opens the source once and does one part after the other, as `--part` does.

Ray decides where workers run, and lets a cluster grow. Who does which part is decided by the leases alone, so that
workers of Ray and others can share one piece of work.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrasieve.console import console, progress_bar
from terrasieve.errors import ConfigError, PartsError
from terrasieve.processes.parallel import spare_cores

MOST_WORKERS = 1024
"""Most workers that are asked for; those that find no place yet wait, and tell Ray to let the cluster grow."""
RETRIES = 3
"""How often a part is given to another worker because one died of it."""

STARTS = 3
"""How often a cluster of this machine is started, which Ray gives up after some seconds where the machine is busy."""

_NOT_STARTED = "See that the machine has memory and cores left, and try again."
_NOT_THERE = "See that a cluster runs there and its version of Ray is this one's, or say --on ray for this machine."
_STORE_BYTES = 128 * 2**20
"""Memory of a local cluster for objects, of which there are hardly any: results go to files."""


@dataclass(frozen=True)
class RayWork:
    """What is done on a cluster.

    Attributes:
        work: Name of the command.
        out: The result to be.
        parts: Number of parts.
        missing: Numbers of the parts that are not done yet, from 0.
        options: Options of the command, by which each worker opens the source.
        cpus: Cores that each worker needs.
        device: The value of ``--device``; None where the command has none.
    """

    work: str
    out: Path
    parts: int
    missing: tuple[int, ...]
    options: Mapping[str, Any]
    cpus: int = 1
    device: str | None = None


class PartWorker:
    """Lives in a process of its own on some machine of the cluster.

    Args:
        work: Name of the command.
        out: The result to be.
        parts: Number of parts.
        options: Options of the command.
    """

    def __init__(self, work: str, out: str, parts: int, options: Mapping[str, Any]) -> None:
        self._words = work, out, parts, options
        self._do: Callable[[int], None] | None = None
        console.quiet = True

    def prepare(self) -> None:
        """Open the source, and load the encoder where there is one."""
        from terrasieve.cli.parts import part_worker

        self._do = part_worker(*self._words)

    def do(self, number: int) -> None:
        """Do a part, counted from 0, or wait for whoever does it."""
        assert self._do is not None
        self._do(number)


def run_on_ray(address: str, asked: RayWork) -> None:
    """Do all parts that are missing.

    Args:
        address: ``ray`` for a cluster of this machine's cores, or for the one that ``RAY_ADDRESS`` names;
            ``ray://host:port`` for one elsewhere.
        asked: What to do.

    Raises:
        ConfigError: Ray is not installed, no cluster answers, or workers need more cores than this machine has.
        PartsError: A part fails, or its worker dies whenever it is begun.
    """
    cores = max(1, spare_cores())
    if address == "ray" and not os.environ.get("RAY_ADDRESS") and asked.cpus > cores:
        raise ConfigError(
            f"--workers {asked.cpus} gives each worker {asked.cpus} cores, and here are {cores}: it would wait for "
            "ever. Leave --workers out, and there are as many workers as cores."
        )
    with cluster(address) as ray, progress_bar() as bar:
        shown = bar.add_task(f"{asked.work} (parts)", total=asked.parts, note="workers: 0")
        bar.update(shown, completed=asked.parts - len(asked.missing))
        pool = _Pool(ray, asked)
        try:
            for finished, workers in pool.work():
                bar.update(shown, advance=finished, note=f"workers: {workers}")
        finally:
            pool.close()


@dataclass
class _Pool:
    """The workers, and what each is at.

    Attributes:
        ray: The package.
        asked: What is done.
        left: Parts that no worker has; the next one last.
        busy: By the promise of an answer: the worker, and the part that it has; None while it prepares.
        died: How many workers died of each part, and, under None, of preparing since a part was last done.
    """

    ray: Any
    asked: RayWork
    left: list[int] = field(init=False)
    busy: dict[Any, tuple[Any, int | None]] = field(default_factory=dict)
    died: Counter[int | None] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        # From the last: plain workers begin at the first, so that both meet once.
        self.left = sorted(self.asked.missing)
        needs = worker_needs(self.asked, self.ray.cluster_resources().get("GPU", 0))
        # Made once: Ray sends every class that is made to all machines.
        self._remote = self.ray.remote(PartWorker).options(**needs)
        for _ in range(min(len(self.left), MOST_WORKERS)):
            self._hire()

    def work(self) -> Iterator[tuple[int, int]]:
        """Hand out parts until all are done.

        Yields:
            How many parts were finished now, and how many workers are at one.
        """
        unfinished = set(self.left)
        while unfinished:
            answered, _ = self.ray.wait(list(self.busy), num_returns=1, timeout=1.0)
            before = len(unfinished)
            for promise in answered:
                worker, number = self.busy.pop(promise)
                if self._survived(promise, number):
                    unfinished.discard(-1 if number is None else number)
                    self._give(worker)
                else:
                    # To whoever is free first; Ray would have it wait until its own worker is started again.
                    self.left += [] if number is None else [number]
                    self._hire()
            if not self.left:
                self._dismiss([promise for promise, (_, number) in self.busy.items() if number is None])
            yield before - len(unfinished), sum(number is not None for _, number in self.busy.values())

    def close(self) -> None:
        """End all workers, those that found no place among them."""
        self._dismiss(list(self.busy))

    def _hire(self) -> None:
        """Ask for a worker, which comes when there is a place for it."""
        asked = self.asked
        worker = self._remote.remote(asked.work, str(asked.out), asked.parts, dict(asked.options))
        self.busy[worker.prepare.remote()] = worker, None

    def _give(self, worker: Any) -> None:
        """Give a worker the next part; it is not needed any more where there is none."""
        if self.left:
            number = self.left.pop()
            self.busy[worker.do.remote(number)] = worker, number
        else:
            self.ray.kill(worker)

    def _dismiss(self, promises: list[Any]) -> None:
        for promise in promises:
            worker, _ = self.busy.pop(promise)
            with suppress(Exception):
                self.ray.kill(worker)

    def _survived(self, promise: Any, number: int | None) -> bool:
        """Whether the worker did what it was given and lives; an error of its own is raised here as it was there."""
        errors = self.ray.exceptions
        try:
            self.ray.get(promise)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayActorError as error:
            self.died[number] += 1
            if self.died[number] > RETRIES:
                what = "opens the source" if number is None else f"does part {number + 1} of {self.asked.parts}"
                raise PartsError(
                    f"A worker of Ray dies whenever it {what}; {1 + RETRIES} did ({_first_line(error)}). Memory may be "
                    "short: have more and smaller parts, or fewer workers on a machine. Parts that are done stay done."
                ) from error
            return False
        if number is not None:
            self.died[None] = 0
        return True


def worker_needs(asked: RayWork, gpus: float) -> dict[str, Any]:
    """What a worker asks the cluster for, as options of a Ray actor.

    Args:
        asked: What is done.
        gpus: GPUs of the cluster as it is now; one that grows may have none yet.
    """
    device = asked.device or "cpu"
    return {
        "num_cpus": asked.cpus,
        "num_gpus": int(device.startswith("cuda") or (device == "auto" and gpus >= 1)),
    }


def _local() -> dict[str, Any]:
    """A cluster of the cores that this process may use, for as long as it lives."""
    return {
        "address": "local",
        "num_cpus": max(1, spare_cores()),
        "object_store_memory": _STORE_BYTES,
        "include_dashboard": False,
    }


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def cluster(address: str) -> Iterator[Any]:
    """Connect to a cluster, or start one, for the block; where the process is connected already it stays so.

    Args:
        address: As of :func:`run_on_ray`.

    Yields:
        The package ``ray``.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers.
    """
    # Read when Ray is imported and by all processes that it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"--on {address} needs Ray: pip install 'terrasieve[ray]'.") from error
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    where = os.environ.get("RAY_ADDRESS") if address == "ray" else address
    for left in reversed(range(1 if where else STARTS)):
        try:
            ray.init(**{"address": where} if where else _local(), **quiet)
            break
        except Exception as error:
            # Of no kind of its own: what Ray says of a cluster that is not there, and of one that is slow to start.
            ray.shutdown()
            if not left:
                said = f"--on {address}: Ray does not answer ({_first_line(error)})."
                raise ConfigError(f"{said} {_NOT_THERE if where else _NOT_STARTED}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
