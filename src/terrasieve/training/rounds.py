"""A round of curation: embed the archive, choose a pool, and write down what was done."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.archive.selection import write_selection
from terrasieve.console import console, track
from terrasieve.curation.curator import Selection
from terrasieve.curation.diagnostics import Diagnostics, diagnose
from terrasieve.embeddings.inputs import join
from terrasieve.embeddings.stream import EmbedSettings, embed_batches
from terrasieve.errors import CurationError
from terrasieve.models.backbone import Encoder
from terrasieve.training.bank import FeatureMemory
from terrasieve.training.job import Curation, TrainingJob
from terrasieve.training.spec import FeatureBank
from terrasieve.writing import write_text

FOLDER = "curation"


@dataclass(frozen=True)
class _Features:
    """Vectors of samples: row ``i`` of ``vectors`` is sample ``samples[i]`` of the archive."""

    vectors: NDArray[Any]
    samples: NDArray[np.int64]


@dataclass
class _Clock:
    """Seconds of each part of a round."""

    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def lap(self, part: str) -> None:
        now = time.monotonic()
        self.seconds[part] = round(now - self._since, 3)
        self._since = now


class Rounds:
    """Chooses the pool anew, again and again, from the same candidates.

    Every process calls the same methods. Each embeds its share of the archive; the first one chooses, and tells the
    others.

    Args:
        curation: The rule and what the encoder is shown.
        job: The run.
        fabric: Device and processes.

    Attributes:
        memory: The feature bank, where features come from training; None otherwise.
        done: Rounds so far.
        seconds: Time that they took.
        latest: What is logged of the last one.
    """

    def __init__(self, curation: Curation, job: TrainingJob, fabric: Fabric) -> None:
        self.curation = curation
        self.job = job
        self.fabric = fabric
        banked = isinstance(curation.spec.features, FeatureBank)
        self.memory = FeatureMemory(job.pool, job.method.encoder.features) if banked else None
        self.done = 0
        self.step: int | None = None
        self.seconds = 0.0
        self.latest: dict[str, float] = {}

    def run(self, step: int, pool: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pool from this step on.

        Args:
            step: The step before which the round takes place.
            pool: The pool so far.

        Raises:
            CurationError: No sample has usable features, or the disk refused them.
            WriteError: The system refused the record.
            SampleError: A sample cannot be read.
        """
        clock = _Clock()
        began = time.monotonic()
        features = self._features()
        clock.lap("embed")
        chosen = self._choose(features, pool, step, clock)
        self.done, self.step = self.done + 1, step
        self.seconds += time.monotonic() - began
        self.latest["curation_seconds"] = self.seconds
        return chosen

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a resumed run needs, as tensors and as JSON-able facts."""
        facts = {"done": self.done, "step": self.step, "seconds": self.seconds, "latest": self.latest}
        return (self.memory.state_dict() if self.memory else {}), facts

    def load_state_dict(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Continue where the state was taken."""
        if self.memory:
            self.memory.load_state_dict(tensors)
        self.done, self.step, self.seconds = facts["done"], facts["step"], facts["seconds"]
        self.latest = dict(facts["latest"])

    # ---------------------------------------------------------------- features

    def _features(self) -> _Features:
        source = self.curation.spec.features
        if self.memory is None:
            assert not isinstance(source, FeatureBank)
            samples = self._share(source.share)
            return _Features(self._embed(self.job.method.target_encoder, samples), samples)
        assert isinstance(source, FeatureBank)
        self._refresh(self.memory, source.refresh)
        seen = self.memory.seen()
        vectors = self.memory.vectors.numpy()
        whole = len(seen) == len(vectors)
        return _Features(vectors if whole else vectors[seen], self.job.pool[seen])

    def _share(self, share: float) -> NDArray[np.int64]:
        """The samples that this round looks at, another part in each round."""
        if share == 1:
            return self.job.pool
        count = max(1, round(share * len(self.job.pool)))
        return np.sort(self._generator().permutation(self.job.pool)[:count])

    def _refresh(self, memory: FeatureMemory, share: float) -> None:
        memory.settle()
        # Before training has seen as many samples as the pool is to have, the missing ones are embedded.
        missing = self.curation.spec.pool_size(len(memory.candidates)) - len(memory.seen())
        rows = memory.stalest(max(round(share * len(memory.candidates)), missing))
        if not len(rows):
            return
        # By the student, as in training, so that old and new features are of one space.
        fresh = self._embed(self.job.method.encoder, memory.candidates[rows])
        step = int(memory.steps.max())
        memory.update(step, memory.candidates[rows], torch.from_numpy(np.array(fresh)))
        memory.settle()

    def _embed(self, encoder: Encoder, samples: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors ``(n, d)`` of samples, each process embedding every so-manieth batch into one mapped file.

        The batches do not depend on the number of processes, and so neither do the vectors.
        """
        spec, ranks = self.curation.spec, self.fabric.world_size
        _share_buffers(encoder, ranks)
        path = self.job.folder / FOLDER / ".features.npy"
        shape = (len(samples), len(self.curation.inputs) * encoder.features)
        if self.fabric.is_global_zero:
            _make_map(path, shape)
        self.fabric.barrier()
        vectors = np.lib.format.open_memmap(path, mode="r+")
        blocks = range(self.fabric.global_rank, -(-len(samples) // spec.batch_size), ranks)
        own = [samples[block * spec.batch_size :][: spec.batch_size] for block in blocks]
        settings = EmbedSettings(size=spec.size, batch_size=spec.batch_size)
        if own:
            batches = embed_batches(
                encoder, self.job.archive, self.curation.inputs, self.job.normaliser, settings, np.concatenate(own)
            )
            shown = track(batches, "curate: embed (batches)", total=len(own)) if self.fabric.is_global_zero else batches
            for block, (_, found) in zip(blocks, shown, strict=True):
                vectors[block * spec.batch_size :][: len(found)] = join(found)
        vectors.flush()
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            # The mapping lives on without the name, which nobody needs any more.
            path.unlink()
        return vectors

    # ---------------------------------------------------------------- choosing

    def _choose(self, features: _Features, pool: NDArray[np.int64], step: int, clock: _Clock) -> NDArray[np.int64]:
        """The new pool, chosen by the first process and told to the others, as is whatever went wrong."""
        outcome: tuple[NDArray[np.int64], dict[str, float]] | str = ""
        failure: Exception | None = None
        if self.fabric.is_global_zero:
            try:
                outcome = self._chosen(features, pool, step, clock)
            except Exception as error:  # told before it is raised: the others would wait for ever
                failure, outcome = error, str(error)
        outcome = self.fabric.broadcast(outcome)
        if failure is not None:
            raise failure
        if isinstance(outcome, str):
            raise CurationError(outcome)
        chosen, self.latest = outcome
        return chosen

    def _chosen(
        self, features: _Features, pool: NDArray[np.int64], step: int, clock: _Clock
    ) -> tuple[NDArray[np.int64], dict[str, float]]:
        spec = self.curation.spec
        seed = int(self._generator().integers(2**63))
        keep = spec.pool_size(len(self.job.pool))
        selection = spec.curator.select(features.vectors, keep, seed, str(self.fabric.device), features.samples)
        clock.lap("choose")
        previous = np.flatnonzero(np.isin(features.samples, pool)) if self.done else None
        diagnostics = diagnose(features.vectors, selection, previous, seed=seed)
        clock.lap("diagnose")
        chosen = features.samples[selection.indices]
        self._record(step, chosen, selection, diagnostics, clock)
        return chosen, _logged(chosen, diagnostics)

    def _record(
        self, step: int, chosen: NDArray[np.int64], selection: Selection, diagnostics: Diagnostics, clock: _Clock
    ) -> None:
        """Write ``curation/round-00001.json`` and ``.parquet``, and say so on the console."""
        stem = self.job.folder / FOLDER / f"round-{self.done + 1:05d}"
        facts = {
            "round": self.done + 1,
            "step": step,
            "candidates": len(self.job.pool),
            "pool": len(chosen),
            "inputs": [str(one) for one in self.curation.inputs],
            "seconds": clock.seconds,
            "diagnostics": diagnostics.as_dict(),
            "selection": dict(selection.provenance),
        }
        groups = selection.leaves[selection.indices]
        write_selection(stem.with_suffix(".parquet"), chosen, self.job.archive.ids[chosen], groups, facts)
        sizes = np.bincount(selection.leaves[selection.leaves >= 0], minlength=len(selection.quotas))
        quotas = {"group_sizes": sizes.tolist(), "quotas": selection.quotas.tolist()}
        write_text(stem.with_suffix(".json"), json.dumps(facts | quotas, indent=1))
        console.print(_sentence(facts, diagnostics), highlight=False)

    def _generator(self) -> np.random.Generator:
        # A counter that neither passes of the sampler nor plans of views begin at.
        return np.random.Generator(np.random.Philox(key=[self.job.spec.seed, self.done], counter=[0, 0, 1, 0]))


def _share_buffers(encoder: Encoder, ranks: int) -> None:
    """Give every process the first one's running statistics, as data-parallel training does before each step."""
    if ranks > 1:
        for buffer in encoder.buffers():
            torch.distributed.broadcast(buffer, 0)


def _make_map(path: Path, shape: tuple[int, int]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        if hasattr(os, "posix_fallocate"):
            # Writing to a map of a full disk would kill the process; asking for the space now raises instead.
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, mapped.offset + mapped.nbytes)
    except OSError as error:
        raise CurationError(
            f"Cannot write {path}, {shape[0] * shape[1] * 4 / 1e6:,.0f} MB of features: {error}. Free some space and "
            "go on with --resume, or embed less: curation.features.share."
        ) from error


def _logged(chosen: NDArray[np.int64], diagnostics: Diagnostics) -> dict[str, float]:
    numbers = {"pool": float(len(chosen)), "effective_clusters": diagnostics.occupancy_after.effective}
    if diagnostics.turnover is not None:
        numbers["turnover"] = diagnostics.turnover
    return numbers


def _sentence(facts: Mapping[str, Any], diagnostics: Diagnostics) -> str:
    turnover = "" if diagnostics.turnover is None else f" · {diagnostics.turnover:.0%} new"
    return (
        f"Curation round {facts['round']} before step {facts['step']}: {facts['pool']:,} of {facts['candidates']:,} "
        f"samples · effective clusters {diagnostics.occupancy_before.effective:.0f} -> "
        f"{diagnostics.occupancy_after.effective:.0f}{turnover} · {sum(facts['seconds'].values()):.1f} s"
    )
