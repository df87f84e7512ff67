"""A round of curation: embed the archive, choose a pool, and write down what was done."""

from __future__ import annotations

import time

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from terrasieve.archive.selection import write_selection
from terrasieve.console import Stopwatch, console, progress_shown
from terrasieve.curation.curator import Selection
from terrasieve.curation.diagnostics import Diagnostics, cautions, diagnose
from terrasieve.errors import CurationError
from terrasieve.runs import RoundRecord, RunFolder
from terrasieve.streams import Stream, generator
from terrasieve.training.checkpoints import Snapshot
from terrasieve.training.job import Curation, TrainingJob
from terrasieve.training.round_features import Features, RoundFeatures


class Rounds:
    """Chooses the pool anew, again and again, from the same candidates.

    Every process calls the same methods. Each embeds its share of the archive and clusters it with the others; the
    first one writes down what was chosen.

    Args:
        curation: The rule and what the encoder is shown.
        job: The run, whose first pool holds the candidates of every round.
        fabric: The device and processes, of which the first one writes.
        steps: The steps before which a round takes place.

    Attributes:
        done: Number of rounds that took place, from 0.
        step: The step before which the last one took place; None before the first.
        seconds: The time that all of them took.
        latest: The numbers that are logged of the last one, by name.
    """

    def __init__(self, curation: Curation, job: TrainingJob, fabric: Fabric, steps: frozenset[int]) -> None:
        self.curation = curation
        self.job = job
        self.fabric = fabric
        self.steps = steps
        self.features = RoundFeatures(curation, job, fabric)
        self.done = 0
        self.step: int | None = None
        self.seconds = 0.0
        self.latest: dict[str, float] = {}

    def due(self, step: int) -> bool:
        """Whether a round is to take place before this step and has not."""
        return step in self.steps and self.step != step

    def run(self, step: int, pool: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pool from this step on.

        Args:
            step: The step before which the round takes place.
            pool: The pool so far, archive indices ``(n,)``.

        Raises:
            CurationError: No sample has usable features, or the disk refused them.
            WriteError: The system refused the record.
            SampleError: A sample cannot be read.
        """
        watch = Stopwatch()
        began = time.monotonic()
        with progress_shown(self.fabric.is_global_zero):
            with watch.stage("embed"):
                features = self.features.collect(pool, generator(Stream.ROUND, self.job.spec.seed, self.done))
            chosen = self._choose(features, pool, step, watch)
        self.done, self.step = self.done + 1, step
        self.seconds += time.monotonic() - began
        self.latest["curation_seconds"] = self.seconds
        return chosen

    def remember(self, step: int, samples: NDArray[np.int64], embedding: Tensor) -> None:
        """Note the features of a micro-batch in the feature bank, if the run has one.

        Args:
            step: The step that computed them.
            samples: ``(n,)`` archive indices of the samples of all processes, those of the first process first.
            embedding: ``(n / processes, d)`` features of the samples of this process.
        """
        if self.features.memory is not None:
            # Of shape (processes, samples, features); without the leading axis where there is one process. Fabric's
            # type allows for any collection of tensors.
            everywhere: Tensor = self.fabric.all_gather(embedding)  # type: ignore[assignment]
            self.features.memory.update(step, samples, everywhere.reshape(-1, embedding.shape[-1]))

    def read(self) -> dict[str, float]:
        """What is logged of the last round; features that wait on the device for the bank are written to it."""
        if self.features.memory is not None:
            self.features.memory.settle()
        return self.latest

    def snapshot(self) -> Snapshot:
        """What a resumed run needs: the feature bank, and what is known of the last round."""
        facts = {"done": self.done, "step": self.step, "seconds": self.seconds, "latest": self.latest}
        memory = self.features.memory
        return Snapshot(memory.state_dict() if memory else {}, {"curation": facts})

    def restore(self, snapshot: Snapshot) -> None:
        """Continue where the snapshot was taken."""
        if self.features.memory is not None:
            self.features.memory.load_state_dict(snapshot.tensors)
        facts = snapshot.facts["curation"]
        self.done, self.step, self.seconds = facts["done"], facts["step"], facts["seconds"]
        self.latest = dict(facts["latest"])

    # ---------------------------------------------------------------- choosing

    def _choose(self, features: Features, pool: NDArray[np.int64], step: int, watch: Stopwatch) -> NDArray[np.int64]:
        """The new pool, which all processes choose together and the first one records; what that meets all are told."""
        spec = self.curation.spec
        seed = int(generator(Stream.ROUND, self.job.spec.seed, self.done).integers(2**63))
        keep = spec.pool_size(len(self.job.pool))
        with watch.stage("choose"):
            selection = spec.curator.select(features.vectors, keep, seed, str(self.fabric.device), features.samples)
        with watch.stage("diagnose"):
            previous = np.flatnonzero(np.isin(features.samples, pool)) if self.done else None
            diagnostics = diagnose(features.vectors, selection, previous, seed=seed)
        for caution in cautions(features.vectors, selection):
            console.print(f"[yellow]Warning:[/] {caution}", highlight=False)
        chosen = features.samples[selection.indices]
        outcome: tuple[NDArray[np.int64], dict[str, float]] | str = (chosen, _logged(chosen, diagnostics))
        failure: Exception | None = None
        if self.fabric.is_global_zero:
            try:
                self._record(step, chosen, selection, diagnostics, watch)
            except Exception as error:  # told before it is raised: the others would wait for ever
                failure, outcome = error, str(error)
        # Chosen by the first process for all: machines of different makes may round otherwise.
        outcome = self.fabric.broadcast(outcome)
        if failure is not None:
            raise failure
        if isinstance(outcome, str):
            raise CurationError(outcome)
        chosen, self.latest = outcome
        return chosen

    def _record(
        self, step: int, chosen: NDArray[np.int64], selection: Selection, diagnostics: Diagnostics, watch: Stopwatch
    ) -> None:
        """Write which samples were chosen, and why; and say so on the console."""
        run = RunFolder(self.job.folder)
        sizes = np.bincount(selection.leaves[selection.leaves >= 0], minlength=len(selection.quotas))
        record = RoundRecord(
            round=self.done + 1,
            step=step,
            candidates=len(self.job.pool),
            pool=len(chosen),
            inputs=tuple(str(one) for one in self.curation.inputs),
            seconds=watch.seconds,
            diagnostics=diagnostics,
            selection=dict(selection.provenance),
            group_sizes=tuple(sizes.tolist()),
            quotas=tuple(selection.quotas.tolist()),
        )
        path, groups = run.round_selection(record.round), selection.leaves[selection.indices]
        facts = record.model_dump(mode="json", exclude={"group_sizes", "quotas"})
        write_selection(path, chosen, self.job.archive.ids[chosen], groups, facts)
        run.write_round(record)
        console.print(str(record), highlight=False)


def _logged(chosen: NDArray[np.int64], diagnostics: Diagnostics) -> dict[str, float]:
    numbers = {"pool": float(len(chosen)), "effective_clusters": diagnostics.occupancy_after.effective}
    if diagnostics.turnover is not None:
        numbers["turnover"] = diagnostics.turnover
    return numbers
