"""What a round of curation looks at: one vector a sample, from a pass over the archive or from training itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.console import track
from terrasieve.embeddings.inputs import join
from terrasieve.embeddings.stream import EmbedSettings, calibrated_encoders, embed_batches
from terrasieve.errors import CurationError
from terrasieve.models.backbone import Encoder
from terrasieve.runs import RunFolder
from terrasieve.training.job import Curation, TrainingJob
from terrasieve.training.spec import CleanPass, FeatureBank


class Features(NamedTuple):
    """Vectors of samples of the archive.

    Attributes:
        vectors: ``(n, d)`` floats, of any length.
        samples: ``(n,)`` archive indices, ascending; row ``i`` of ``vectors`` is of sample ``samples[i]``.
    """

    vectors: NDArray[Any]
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

    def collect(self, generator: np.random.Generator) -> Features:
        """The features that a round chooses by.

        Args:
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
            return Features(self._embed(self.job.method.target_encoder, samples), samples)
        assert self.memory is not None
        self._refresh(self.memory, source.refresh)
        seen = self.memory.seen()
        vectors = self.memory.vectors.numpy()
        whole = len(seen) == len(vectors)
        return Features(vectors if whole else vectors[seen], self.job.pool[seen])

    def _refresh(self, memory: FeatureMemory, share: float) -> None:
        """Embed anew what was seen longest ago."""
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

        Batch normalisation is measured on candidates of the round, for each input, by every process alike. Neither that
        nor the batches depend on the number of processes, and so neither do the vectors.
        """
        spec, ranks = self.curation.spec, self.fabric.world_size
        path = RunFolder(self.job.folder).curation / ".features.npy"
        shape = (len(samples), len(self.curation.inputs) * encoder.features)
        if self.fabric.is_global_zero:
            _make_map(path, shape)
        self.fabric.barrier()
        vectors = np.lib.format.open_memmap(path, mode="r+")
        blocks = range(self.fabric.global_rank, -(-len(samples) // spec.batch_size), ranks)
        own = [samples[block * spec.batch_size :][: spec.batch_size] for block in blocks]
        settings = EmbedSettings(size=spec.size, batch_size=spec.batch_size)
        if own:
            shown_as = (self.job.archive, self.curation.inputs, self.job.normaliser, settings)
            encoders = calibrated_encoders(encoder, *shown_as, self.job.pool, self.job.spec.seed)
            batches = embed_batches(encoders, *shown_as, np.concatenate(own))
            shown = track(batches, "curate: embed (batches)", total=len(own)) if self.fabric.is_global_zero else batches
            for block, (_, found) in zip(blocks, shown, strict=True):
                vectors[block * spec.batch_size :][: len(found)] = join(found)
        vectors.flush()
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            # The mapping lives on without the name, which nobody needs any more.
            path.unlink()
        return vectors


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


# -------------------------------------------------------------------- the feature bank

NEVER = -1


class FeatureMemory:
    """One vector a sample, half precision, in the memory of the CPU: ``2 * samples * features`` bytes.

    Updates wait on the device until they are needed, so that filling the memory does not make training wait.

    Args:
        candidates: Archive indices of the samples that may get a vector, ``(n,)``, ascending.
        features: How many numbers a vector has.
    """

    def __init__(self, candidates: NDArray[np.int64], features: int) -> None:
        self.candidates = candidates
        self.vectors = torch.zeros(len(candidates), features, dtype=torch.float16)
        self.steps = torch.full((len(candidates),), NEVER, dtype=torch.int64)
        self._waiting: list[tuple[int, NDArray[np.int64], Tensor]] = []

    def update(self, step: int, indices: NDArray[np.int64], vectors: Tensor) -> None:
        """Note the features of samples.

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
        self._waiting.clear()

    def stalest(self, count: int) -> NDArray[np.int64]:
        """Rows of the samples that were seen longest ago or never, ascending."""
        rows = np.argsort(self.steps.numpy(), kind="stable")[:count]
        return np.sort(rows)

    def seen(self) -> NDArray[np.int64]:
        """Rows of the samples that have a vector."""
        return np.flatnonzero(self.steps.numpy() != NEVER)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs."""
        self.settle()
        return {"bank.vectors": self.vectors, "bank.steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where ``state`` was taken."""
        self.vectors.copy_(state["bank.vectors"])
        self.steps.copy_(state["bank.steps"])
