"""Training throughput: end to end, against the same step in memory, and against peers.

Four contenders train the same recipe on the same scenes, in turn, some steps at a time: rs-byol-1 with all its
augmentations, at the size that two CPU cores can train (ResNet18, 32-pixel views, batch 64). The first turn of each is
not counted.

- end to end: terrasieve's own loop, reading from the packed store, views, step, log; the others have their turn where
  it would run the online probe;
- in memory: the same steps on views that were rendered beforehand, and nothing else;
- peer: the same recipe from lightly, torchvision and rasterio (``peer_lightly.py``), with whichever number of
  worker processes is fastest here;
- torchgeo: its BYOL trainer (``peer_torchgeo.py``) on the same images and as many steps, likewise.

lightly-train (release 0.18) is no contender and was not run: BYOL is not among its methods, so that it would train
another step. A line says so, and ``vs_lightly_train`` is null.

Usage: ``python benchmarks/pretrain_step.py [--data DIR]``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from machine import describe
from peer_lightly import Peer, ScenePairs
from peer_torchgeo import TorchgeoPeer
from terrasieve.archive.opening import open_archive, scenes_spec_from_options
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.config import RunConfig, load_config
from terrasieve.console import console
from terrasieve.models.backbone import Encoder
from terrasieve.pretraining import make_job
from terrasieve.training.feeding import Batches
from terrasieve.training.loop import make_fabric, train
from terrasieve.training.optimisation import build_optimiser
from terrasieve.training.pool import PoolSampler, ViewReader
from terrasieve.views.render import render

SIZE = (
    "model.name=resnet18",
    "views.branches.*.size=32",
    "train.batch_size=64",
    "train.schedule=cosine",
    "train.schedule.warmup_epochs=1",
)


REST = 2.0
"""Seconds before each turn, in which workers of a peer read ahead what else they would read in the next one's turn."""


class InMemory:
    """The bare step, on views that were read and rendered before the clock starts."""

    def __init__(self, config: RunConfig, archive: PackedArchive, folder: Path, kept: int = 4) -> None:
        job = make_job(config, archive, folder)
        self.fabric = make_fabric(config.train, "cpu")
        self.method = job.method.to(memory_format=torch.channels_last)
        self.module, self.optimiser = self.fabric.setup(
            self.method, build_optimiser(self.method, config.train, self.fabric.device)
        )
        sampler = PoolSampler(job.pool, config.train.batch_size, config.train.seed)
        batches = Batches(ViewReader(archive, job.planner, config.train.batch_size), sampler, workers=0)
        views = (render(next(batches), job.normaliser) for _ in range(kept))
        self.views = [[view.contiguous(memory_format=torch.channels_last) for view in both] for both in views]
        self.count = 0

    def step(self) -> None:
        """Train."""
        output = self.module(self.views[self.count % len(self.views)])
        self.fabric.backward(output.loss)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.method.after_step(0.5)
        self.count += 1


class Turns:
    """Stands in for the online probe of a run: notes the time since it was last called, then lets the others train."""

    def __init__(self, others: dict[str, Callable[[], None]], steps: int) -> None:
        self.others = others
        self.steps = steps
        self.times: dict[str, list[float]] = {name: [] for name in ("end to end", *others)}
        self.began = time.perf_counter()

    def __call__(self, encoder: Encoder) -> dict[str, float]:
        """One turn of each of the others."""
        self.times["end to end"].append(time.perf_counter() - self.began)
        # Each of the others begins every second turn, so that none always runs in the wake of the same one.
        order = list(self.others.items())
        for name, step in order if len(self.times["end to end"]) % 2 else reversed(order):
            time.sleep(REST)
            self.times[name].append(seconds(step, self.steps))
        console.print(f"turn {len(self.times['end to end'])}")
        time.sleep(REST)
        self.began = time.perf_counter()
        return {}


def seconds(step: Callable[[], None], steps: int) -> float:
    """Time of so many steps."""
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - began


LIGHTLY_TRAIN = "lightly-train is not measured: BYOL is not among the methods of its release 0.18."


def fastest_workers(name: str, make: Callable[[int], Peer | TorchgeoPeer], steps: int) -> Peer | TorchgeoPeer:
    """A peer with the number of workers that is fastest here, from a function that makes it with so many."""
    peers = {}
    for workers in (0, 1, 2):
        peer = make(workers)
        seconds(peer.step, 2)
        peers[workers] = (seconds(peer.step, steps), peer)
    best = min(peers, key=lambda w: peers[w][0])
    console.print(f"{name}, seconds by workers: " + ", ".join(f"{w}: {t:.2f}" for w, (t, _) in peers.items()))
    for workers, (_, peer) in peers.items():
        if workers != best:
            del peer.batches
    return peers[best][1]


def make_peers(scenes: Path, config: RunConfig, steps: int) -> dict[str, Peer | TorchgeoPeer]:
    """Every peer by the name of its column."""
    view, model, batch_size = config.views.branches[0], config.model.name, config.train.batch_size

    def dataset() -> ScenePairs:
        # One for each peer and number of workers: these must not inherit open files, whose position they would share.
        return ScenePairs(scenes, 64, view.size, view.augmentation)

    return {
        "peer": fastest_workers("peer", lambda workers: Peer(dataset(), model, batch_size, workers), steps),
        "torchgeo": fastest_workers(
            "torchgeo", lambda workers: TorchgeoPeer(dataset(), model, view.size, batch_size, workers), steps
        ),
    }


def main() -> None:
    """Run the comparison and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TERRASIEVE_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder that holds la_texas_pairs")
    parser.add_argument("--recipe", default="rs-byol-1")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="as in terrasieve pretrain")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender that count")
    parser.add_argument("--steps", type=int, default=20, help="steps a round; many more than workers read ahead")
    arguments = parser.parse_args()
    length = (
        f"train.steps={(arguments.rounds + 1) * arguments.steps}",
        f"train.evaluate_steps={arguments.steps}",
        "train.checkpoint_minutes=1e6",
    )
    config = load_config(arguments.recipe, [*SIZE, *length, "train.seed=0", *arguments.settings])
    scenes = arguments.data / "la_texas_pairs"
    with tempfile.TemporaryDirectory() as folder:
        spec = scenes_spec_from_options(scenes, ["s2=s2-rgb8", "s1=s1-vh8"], 64, None, "stem")
        pack(open_archive(spec), Path(folder) / "packed.zarr")
        archive = PackedArchive(Path(folder) / "packed.zarr")
        memory = InMemory(config, archive, Path(folder) / "memory")
        peers = make_peers(scenes, config, arguments.steps)
        others = {"in memory": memory.step, **{name: peer.step for name, peer in peers.items()}}
        turns = Turns(others, arguments.steps)
        train(make_job(config, archive, Path(folder) / "run", evaluate=turns), make_fabric(config.train, "cpu"))
        report(config, {name: times[1:] for name, times in turns.times.items()}, arguments.steps)
        for peer in peers.values():
            del peer.batches


def report(config: RunConfig, times: dict[str, list[float]], steps: int) -> None:
    """Print the table, what it was measured on, and the line of JSON."""
    images = steps * config.train.batch_size
    rates = {name: images / statistics.median(values) for name, values in times.items()}
    own = np.array(times["end to end"])
    versus = {name: float(np.median(np.array(values) / own)) for name, values in times.items()}
    table = Table("contender", "pairs/s", "end to end is", title=f"{config.name}: training throughput")
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.0f}", f"{versus[name]:.2f} times as fast")
    Console().print(table)
    print(LIGHTLY_TRAIN)
    print(describe(config.train.seed))
    figures = {
        "vs_in_memory": round(versus["in memory"], 3),
        "vs_peer": round(versus["peer"], 3),
        "vs_torchgeo": round(versus["torchgeo"], 3),
        "vs_lightly_train": None,
        "images_per_s": round(rates["end to end"], 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
