"""The leg of the benchmark of parts that runs on a local Ray cluster."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from faults_commands import command
from terrasieve.archive.packed import packing
from terrasieve.cli import on_ray
from terrasieve.curation import kmeans
from terrasieve.parts import sharing

MISSING = None if find_spec("ray") else "Ray is not installed: pip install 'terrasieve[ray]'"
"""Why there is no such leg; None where there is."""


class NotingWorker(on_ray.PartWorker):
    """A worker that notes what it spends after it has imported everything and opened the source."""

    folder: Path
    chunk_bytes: int
    rows_at_once: int

    def prepare(self) -> None:
        """See ``PartWorker``."""
        packing.CHUNK_BYTES, kmeans._ROWS_AT_ONCE, sharing.POLL = self.chunk_bytes, self.rows_at_once, 0.05
        torch.set_num_threads(1)
        super().prepare()
        self._began = seconds(resource.RUSAGE_SELF)

    def do(self, number: int) -> None:
        """See ``PartWorker``."""
        super().do(number)
        spent = seconds(resource.RUSAGE_SELF) - self._began
        (self.folder / f"{os.getpid()}.json").write_text(json.dumps(spent))


def seconds(who: int) -> float:
    """Processor seconds of this process, or of those that it has waited for."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def daemons() -> float:
    """Processor seconds that the processes which this one started have spent: Ray's own."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found += int(fields[11]) + int(fields[12])
    return found / os.sysconf("SC_CLK_TCK")


def spent_on_ray(words: Sequence[object], folder: Path, workers: int) -> float:
    """Processor seconds of a command on Ray: of its workers, of the driver that merges, and of Ray's own processes.

    Starting the cluster and the workers, and importing torch, do not count: neither do they for plain workers.

    Args:
        words: The command with ``--out`` and the number of parts.
        folder: An empty folder for notes and logs.
        workers: How many work at a time.

    Raises:
        RuntimeError: It fails.
    """
    log = folder / "driver.log"
    pid = os.fork()
    if not pid:
        with log.open("wb", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os._exit(_drive([*words, "--on", "ray"], folder, workers))
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"{words[0]} fails on Ray: {log.read_text(errors='replace')[-1000:]}")
    notes: Mapping[str, float] = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return sum(notes.values())


def _drive(words: Sequence[object], folder: Path, workers: int) -> int:
    NotingWorker.folder = folder
    NotingWorker.chunk_bytes, NotingWorker.rows_at_once = packing.CHUNK_BYTES, kmeans._ROWS_AT_ONCE
    on_ray.spare_cores = lambda: workers  # type: ignore[attr-defined]  # a name that it imports
    on_ray.PartWorker = NotingWorker  # type: ignore[misc]
    code = 0
    with on_ray.cluster("ray") as ray:
        # With the attributes that were set here.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        own, others = seconds(resource.RUSAGE_SELF), daemons()
        try:
            command(words)()
        except SystemExit as ended:
            code = int(ended.code or 0)
        spent = seconds(resource.RUSAGE_SELF) - own + daemons() - others
        (folder / "driver.json").write_text(json.dumps(spent))
    return code
