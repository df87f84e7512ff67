"""What a round of curation looks at: one vector a sample, from a pass over the archive or from training itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.console import track
from terrasieve.curation.candidates import Vectors
from terrasieve.curation.shares import SharedVectors
from terrasieve.embeddings.inputs import join
from terrasieve.embeddings.stream import EmbedSettings, calibrated_encoders, embed_batches
from terrasieve.errors import CurationError
from terrasieve.models.backbone import Encoder
from terrasieve.runs import RunFolder
from terrasieve.training.ageing import PAIRS, as_of_today, spread_over_ages
from terrasieve.training.job import Curation, TrainingJob
from terrasieve.training.spec import CleanPass, FeatureBank


class Features(NamedTuple):
    """Vectors of samples of the archive.

    Attributes:
        vectors: ``(n, d)`` floats, of any length; where there are several processes, each holds its share of them.
        samples: ``(n,)`` archive indices, ascending; row ``i`` of ``vectors`` is of sample ``samples[i]``.
    """

    vectors: Vectors
    samples: NDArray[np.int64]


class RoundFeatures:
    """Gives the features of each round; every process calls the same methods.

    Args:
        curation: Where features come from and what the encoder is shown.
        job: The run, whose method embeds and whose pool is looked at.
        fabric: The device and processes, each of which embeds a share.

    Attributes:
        memory: The feature bank, where features come from training; None otherwise.
    """

    def __init__(self, curation: Curation, job: TrainingJob, fabric: Fabric) -> None:
        self.curation = curation
        self.job = job
        self.fabric = fabric
        banked = isinstance(curation.spec.features, FeatureBank)
        self.memory = FeatureMemory(job.pool, job.method.encoder.features) if banked else None

    def collect(self, pool: NDArray[np.int64], generator: np.random.Generator) -> Features:
        """The features that a round chooses by.

        Args:
            pool: What the model is trained on so far, archive indices ``(n,)``.
            generator: Decides which samples a pass over a share of the archive looks at.

        Raises:
            CurationError: The disk refused the features.
            SampleError: A sample cannot be read.
        """
        source = self.curation.spec.features
        if isinstance(source, CleanPass):
            samples = self.job.pool
            if source.share < 1:
                count = max(1, round(source.share * len(samples)))
                samples = np.sort(generator.permutation(samples)[:count])
            return Features(self._embed(self.job.method.target_encoder, samples, pool), samples)
        assert self.memory is not None
        self.memory.settle()
        return self._remembered(self.memory, source.refresh, pool, generator)

    def _remembered(
        self, memory: FeatureMemory, share: float, pool: NDArray[np.int64], generator: np.random.Generator
    ) -> Features:
        """What the bank holds, as today's encoder would give it; some of each age are embedded anew for that."""
        seen, n = memory.seen(), len(memory.candidates)
        # A run that an older version began may have seen fewer samples than the pool is to hold.
        missing = max(0, self.curation.spec.pool_size(n) - len(seen))
        unseen = np.setdiff1d(np.arange(n), seen, assume_unique=True)[:missing]
        count = min(len(seen), max(round(share * n), PAIRS))
        renewed = spread_over_ages(memory.ages[seen], count, generator)
        rows = np.concatenate([seen[renewed], unseen])
        # By the student, as in training.
        embedded = torch.from_numpy(np.array(self._embed(self.job.method.encoder, memory.candidates[rows], pool)[:]))
        fresh = torch.nn.functional.normalize(embedded, dim=1).half()
        today = fresh[:count]
        if count < len(seen):
            old = memory.vectors[torch.from_numpy(seen)]
            today = as_of_today(old, memory.ages[seen], renewed, today, self.fabric.device)
        memory.renew(rows, fresh)
        found = np.concatenate([seen, unseen])
        order = np.argsort(found)
        vectors = torch.cat([today, fresh[count:]])[order].numpy()
        own = self._share(len(vectors))
        shared = vectors if self.fabric.world_size == 1 else SharedVectors(vectors[own], own.start, len(vectors))
        return Features(shared, self.job.pool[found[order]])

    def _share(self, samples: int) -> slice:
        """The samples that this process embeds and holds: whole batches, which are the same for any number of them."""
        size, ranks, rank = self.curation.spec.batch_size, self.fabric.world_size, self.fabric.global_rank
        blocks = -(-samples // size)
        return slice(*(min(samples, blocks * one // ranks * size) for one in (rank, rank + 1)))

    def _embed(self, encoder: Encoder, samples: NDArray[np.int64], pool: NDArray[np.int64]) -> Vectors:
        """Vectors ``(n, d)`` of samples, each process embedding a share of them into a mapped file of its own.

        Batch normalisation is measured on the pool that the model is trained on, for each input, by every process
        alike. Statistics of the whole archive would be those of its most frequent kind, whose copies they would spread
        out (``docs/curation-study.md``). Neither they nor the batches depend on the number of processes, and so neither
        do the vectors.
        """
        spec, own = self.curation.spec, self._share(len(samples))
        path = RunFolder(self.job.folder).curation / f".features-{self.fabric.global_rank}.npy"
        width = len(self.curation.inputs) * encoder.features
        settings = EmbedSettings(size=spec.size, batch_size=spec.batch_size)
        shown_as = (self.job.archive, self.curation.inputs, self.job.normaliser, settings)
        encoders = calibrated_encoders(encoder, *shown_as, pool, self.job.spec.seed)
        vectors = np.empty((0, width), dtype=np.float32)
        if own.start < own.stop:
            vectors = _make_map(path, (own.stop - own.start, width))
            batches = embed_batches(encoders, *shown_as, samples[own])
            total = -(-len(vectors) // spec.batch_size)
            done = 0
            for _, found in track(batches, "curate: embed (batches)", total=total):
                joined = join(found)
                vectors[done : done + len(joined)] = joined
                done += len(joined)
            # The mapping lives on without the name, which nobody needs any more.
            path.unlink()
        return vectors if self.fabric.world_size == 1 else SharedVectors(vectors, own.start, len(samples))


def _make_map(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
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
    return mapped


# -------------------------------------------------------------------- the feature bank

NEVER = -1


class FeatureMemory:
    """One vector a sample, half precision, in the memory of the CPU: ``2 * samples * features`` bytes.

    Updates wait on the device until they are needed, so that filling the memory does not make training wait.

    Args:
        candidates: Archive indices of the samples that may get a vector, ``(n,)``, ascending.
        features: How many numbers a vector has.

    Attributes:
        vectors: ``(n, features)``, float16, of unit length.
        steps: ``(n,)``, the step that computed each of them; :data:`NEVER` where none did.
        rounds: ``(n,)``, whether a round embedded the sample since training last showed it.
    """

    def __init__(self, candidates: NDArray[np.int64], features: int) -> None:
        self.candidates = candidates
        self.vectors = torch.zeros(len(candidates), features, dtype=torch.float16)
        self.steps = torch.full((len(candidates),), NEVER, dtype=torch.int64)
        self.rounds = torch.zeros(len(candidates), dtype=torch.bool)
        self._waiting: list[tuple[int, NDArray[np.int64], Tensor]] = []

    def update(self, step: int, indices: NDArray[np.int64], vectors: Tensor) -> None:
        """Note the features of samples that a step of training computed.

        Args:
            step: The step that computed them.
            indices: Archive indices, ``(n,)``.
            vectors: ``(n, features)``, on any device; scaled to unit length here.
        """
        self._waiting.append((step, indices, torch.nn.functional.normalize(vectors.float(), dim=1).half()))

    def settle(self) -> None:
        """Write what waits; later updates of a sample win."""
        for step, indices, vectors in self._waiting:
            # A batch across the end of a pass may hold a sample twice, and which of two equal positions an indexed
            # assignment takes is not defined.
            _, behind = np.unique(indices[::-1], return_index=True)
            last = len(indices) - 1 - behind
            rows = torch.from_numpy(np.searchsorted(self.candidates, indices[last]))
            self.vectors[rows] = vectors.cpu()[torch.from_numpy(last)]
            self.steps[rows] = step
            self.rounds[rows] = False
        self._waiting.clear()

    def renew(self, rows: NDArray[np.int64], vectors: Tensor) -> None:
        """Take features from a round, whose views are not augmented, as those of the last step that was noted.

        Args:
            rows: Rows of the samples, ``(n,)``, each once.
            vectors: ``(n, features)``, float16 of unit length, on the CPU.
        """
        index = torch.from_numpy(rows)
        self.vectors[index] = vectors
        self.steps[index] = self.steps.max()
        self.rounds[index] = True

    @property
    def ages(self) -> NDArray[np.int64]:
        """``(n,)`` numbers that order rows by the step of their features, those from rounds after all others."""
        steps: NDArray[np.int64] = self.steps.numpy()
        return steps + np.where(self.rounds.numpy(), steps.max() + 1, 0)

    def seen(self) -> NDArray[np.int64]:
        """Rows of the samples that have a vector."""
        return np.flatnonzero(self.steps.numpy() != NEVER)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs."""
        self.settle()
        return {"bank.vectors": self.vectors, "bank.steps": self.steps, "bank.rounds": self.rounds}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where ``state`` was taken."""
        self.vectors.copy_(state["bank.vectors"])
        self.steps.copy_(state["bank.steps"])
        # Older checkpoints do not tell features from rounds from others.
        self.rounds.copy_(state.get("bank.rounds", torch.zeros_like(self.rounds)))
