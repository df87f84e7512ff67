"""What an archive of twelve million samples costs before and between the steps of training: seconds and memory.

A packed store is made without pixels: its table has every row with a name, an outline, a time and a file, its chunk
files are absent, and nothing here reads one. Each step then runs in a process of its own, which imports everything
first. The figures are seconds of the processor, since a benchmark seldom has a machine to itself, and the gibibytes
that the process grew by at its highest, mapped files included; the table shows the seconds that went by as well.

- ``open``: the archive is opened, with the digest of its table, and all names are read.
- ``sampler``: the sampler is made and draws the batches on both sides of the end of a pass.
- ``round``: of an open archive 30 % are chosen (at random), judged and recorded as in a run, all names read for it.
  What costs most of a round in a run is left out: the pass that embeds, and the clusters.
- ``checkpoint``: the run after that round, a small model and a sampler, is written.
- ``resume``: the archive is opened and the run is taken up from that checkpoint, up to the indices of the next batch.

    python benchmarks/large.py
    python benchmarks/large.py --rows 1000000

The last line is JSON: ``open_s``, ``open_gib`` and so on for each step; ``peak_gib`` is the most that any of the
processes held, Python and torch included. It needs Linux, which says how much memory a process held.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.table import Table

from large_store import make_store
from machine import describe
from terrasieve.archive.opening import open_archive
from terrasieve.config import load_config
from terrasieve.console import console
from terrasieve.pretraining import make_job
from terrasieve.training.checkpoints import Checkpointer
from terrasieve.training.job import TrainingJob
from terrasieve.training.optimisation import build_optimiser
from terrasieve.training.pool import PoolSampler
from terrasieve.training.round_features import Features
from terrasieve.training.rounds import Rounds

_GIB = 2**30
_FEATURES = 4
"""Numbers a sample that the pool is chosen by, where a model would give hundreds."""


class MadeFeatures:
    """Stands for the features of a run, so that no pixel is read.

    Args:
        samples: Archive indices of all candidates, ``(n,)``.
    """

    memory = None

    def __init__(self, samples: NDArray[np.int64]) -> None:
        drawn = np.random.default_rng(0).standard_normal((len(samples), _FEATURES), dtype=np.float32)
        self.features = Features(drawn.astype(np.float16), samples)

    def collect(self, pool: NDArray[np.int64], generator: np.random.Generator) -> Features:
        """The same random vectors ``(n, 4)`` whatever the pool."""
        return self.features


# ----------------------------------------------------------------------- steps
# Each makes ready what is not measured, and gives what is.


def open_step(folder: Path) -> Callable[[], None]:
    def work() -> None:
        archive = open_archive(folder / "store.zarr")
        assert len(archive.ids) == len(archive)

    return work


def sampler_step(folder: Path) -> Callable[[], None]:
    rows = len(open_archive(folder / "store.zarr"))
    return lambda: cross_a_pass(rows)


def cross_a_pass(rows: int) -> None:
    """Make a sampler, and draw the first batch of a pass, and the one that holds its end and the next one's beginning.

    Args:
        rows: Samples in the pool, from 0 on.
    """
    sampler = PoolSampler(np.arange(rows), 256, seed=0)
    drawn = sampler.micro_batch(0, 1)
    for _ in range(rows // 256):
        sampler.advance()
    last = sampler.micro_batch(0, 1)
    assert len(drawn) == len(last)


def round_step(folder: Path) -> Callable[[], None]:
    job = the_job(folder)
    assert job.curation is not None
    rounds = Rounds(job.curation, job, the_fabric(), frozenset((1,)))
    rounds.features = MadeFeatures(job.pool)  # type: ignore[assignment]
    return lambda: np.save(folder / "pool.npy", rounds.run(1, job.pool))


def checkpoint_step(folder: Path) -> Callable[[], None]:
    sampler, checkpointer = the_run(folder)
    checkpointer.start(resume=False)
    # The next step's pool would be the one that the round chose; the whole one is more to write.
    assert len(sampler.pool) > len(np.load(folder / "pool.npy", mmap_mode="r"))
    return lambda: checkpointer.write(1)


def resume_step(folder: Path) -> Callable[[], None]:
    def work() -> None:
        sampler, checkpointer = the_run(folder)
        checkpointer.start(resume=True)
        assert len(sampler.micro_batch(0, 1)) == sampler.batch_size

    return work


STEPS: Mapping[str, Callable[[Path], Callable[[], None]]] = {
    "open": open_step,
    "sampler": sampler_step,
    "round": round_step,
    "checkpoint": checkpoint_step,
    "resume": resume_step,
}


def the_fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1)


def the_job(folder: Path) -> TrainingJob:
    """A run of OceanSAR's small recipe, but for the curator, on the whole store."""
    config = load_config("oceansar-small", ["curation.curator=random", "train.epochs=4"])
    job = make_job(config, open_archive(folder / "store.zarr"), folder / "run")
    # The export measures batch norms on pixels, which the store has not.
    return replace(job, export=lambda encoder, step: None)


def the_run(folder: Path) -> tuple[PoolSampler, Checkpointer]:
    """A sampler of the run's whole pool, and what writes and resumes its checkpoints."""
    job, fabric = the_job(folder), the_fabric()
    _, optimiser = fabric.setup(job.method, build_optimiser(job.method, job.spec, fabric.device))
    sampler = PoolSampler(job.pool, job.spec.batch_size, job.spec.seed)
    return sampler, Checkpointer(job, fabric, job.method, optimiser, (sampler,))


# ------------------------------------------------------------------- measuring


def resident() -> tuple[int, int]:
    """Bytes that this process holds, and the most that it has held since it began."""
    status = Path("/proc/self/status").read_text()
    found = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Vm")}
    return int(found["VmRSS"]) * 1024, int(found["VmHWM"]) * 1024


def measure(work: Callable[[], None]) -> dict[str, float]:
    """Seconds of some work, GiB that the process grew by at its highest, and the most that it held.

    Args:
        work: What is done, once.
    """
    # The highest mark of what was before, such as imports, is taken back, where the system lets it.
    Path("/proc/self/clear_refs").write_text("5")
    before, wall, start = resident()[0], time.perf_counter(), time.process_time()
    work()
    seconds, wall, highest = time.process_time() - start, time.perf_counter() - wall, resident()[1]
    return {"s": seconds, "wall": wall, "gib": max(0, highest - before) / _GIB, "peak": highest / _GIB}


def measure_apart(step: str, folder: Path) -> dict[str, float]:
    """The same, of a step in a process of its own."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def figures(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The figures of the last line, of what was measured of each step."""
    each = {f"{step}_{unit}": round(one[unit], 3) for step, one in found.items() for unit in ("s", "gib")}
    return {**each, "peak_gib": round(max(one["peak"] for one in found.values()), 3)}


def table_of(found: Mapping[str, Mapping[str, float]], title: str) -> Table:
    table = Table("step", "seconds of processor", "seconds in all", "GiB more", "GiB in all", title=title)
    for step, one in found.items():
        table.add_row(step, *(f"{one[unit]:.2f}" for unit in ("s", "wall", "gib", "peak")))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=12_000_000, help="samples of the store")
    parser.add_argument("--folder", type=Path, help="where the store is made, or lies already; a temporary folder")
    parser.add_argument("--step", choices=STEPS, help="measure one step in this process; the store has to be there")
    options = parser.parse_args()
    if options.step:
        print(json.dumps(measure(STEPS[options.step](options.folder))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "store.zarr").exists():
            make_store(folder / "store.zarr", options.rows)
        found = {}
        for step in STEPS:
            console.print(f"Measuring {step}", highlight=False)
            found[step] = measure_apart(step, folder)
    console.print(table_of(found, f"{options.rows:,} rows; {describe(0)}"))
    print(json.dumps(figures(found)))


if __name__ == "__main__":
    main()
