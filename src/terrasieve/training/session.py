"""The moving parts of one run: what the loop calls, in the order in which it calls them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from terrasieve.errors import CheckpointError, ConfigError, NonFiniteError
from terrasieve.methods.base import StepOutput
from terrasieve.methods.collapse import CollapseMonitor
from terrasieve.training.checkpoints import (
    Snapshot,
    checkpoints,
    read_checkpoint,
    read_facts,
    write_checkpoint,
)
from terrasieve.training.job import TrainingJob
from terrasieve.training.loader import Batches, ViewReader
from terrasieve.training.logs import MetricLog, open_logs
from terrasieve.training.optimisation import build_optimiser, learning_rates, set_rates, weight_decays
from terrasieve.training.pool import PoolSampler
from terrasieve.training.rounds import Rounds
from terrasieve.training.schedules import make_timeline
from terrasieve.training.spec import TrainSpec
from terrasieve.views.read import RawView
from terrasieve.views.render import render
from terrasieve.writing import write_text


class Session:
    """The moving parts of one call of ``train``."""

    def __init__(self, job: TrainingJob, fabric: Fabric) -> None:
        spec = job.spec
        _refuse_uneven_split(spec, fabric.world_size)
        self.job = job
        self.fabric = fabric
        self.method = job.method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module, self.optimiser = fabric.setup(self.method, build_optimiser(self.method, spec))
        self.sampler = PoolSampler(job.pool, spec.batch_size, spec.seed, fabric.global_rank, fabric.world_size)
        self.timeline = make_timeline(len(job.pool), spec, job.curation.spec if job.curation else None)
        self.steps = self.timeline.steps
        self.learning_rates = learning_rates(spec, self.timeline)
        self.weight_decays = weight_decays(spec, self.steps)
        self.evaluations = self.timeline.evaluations(spec)
        self.rounds = Rounds(job.curation, job, fabric) if job.curation else None
        self.monitor = CollapseMonitor(min_std=spec.collapse_std, min_rank=spec.collapse_rank)
        self.checkpoint_folder = job.folder / "checkpoints"
        self.unseen: list[Tensor] = []
        self._measured: Mapping[str, Tensor | float] = {}
        self.latest: dict[str, float] = {}
        self.logs: list[MetricLog] = []
        self._seconds_before = 0.0
        self._evaluated: int | None = None
        self._written: int | None = None

    def start(self, resume: bool) -> None:
        """Seed torch, restore the last checkpoint if asked to, and open the logs.

        Raises:
            ConfigError: The folder holds a run and ``resume`` is false.
            CheckpointError: The checkpoint is damaged or of another configuration.
        """
        torch.manual_seed(self.job.spec.seed)
        found = checkpoints(self.checkpoint_folder)
        if found and not resume:
            raise ConfigError(
                f"{self.job.folder} already holds a run ({found[-1].name}). "
                "Go on with it by --resume, or choose another folder with --out."
            )
        if found:
            self._restore(found[-1])
        elif self.fabric.is_global_zero:
            self.checkpoint_folder.mkdir(parents=True, exist_ok=True)
        if self.fabric.is_global_zero:
            # Not before the run is accepted: one that is refused must leave the folder as it was.
            write_text(self.job.folder / "config.yaml", self.job.resolved)
            own = self.method.metric_names
            self.logs = open_logs(self.job.folder, self.job.spec.loggers, self.sampler.step + 1, self.job.config, own)
        self._began = self._checkpointed = self._window_began = time.monotonic()
        self._window_step = self.sampler.step
        self._waited = 0.0

    def _restore(self, path: Path) -> None:
        # First of all, since the weights of another configuration need not fit.
        _refuse_other_config(path, read_facts(path)["config"], self.job.config)
        snapshot = read_checkpoint(path, self.method, self.optimiser)
        self.sampler.load_state_dict({**snapshot.facts["sampler"], "pool": snapshot.tensors["pool"].numpy()})
        self.monitor.load_state_dict({"ring": snapshot.tensors["monitor"], **snapshot.facts["monitor"]})
        torch.set_rng_state(snapshot.tensors["rng"])
        self.fabric.strategy.precision.load_state_dict(snapshot.facts["precision"])
        self.unseen = list(snapshot.tensors["losses"].to(self.fabric.device))
        self.latest = dict(snapshot.facts["metrics"])
        self._measured = snapshot.facts["measured"]
        self._seconds_before = float(snapshot.facts["seconds"])
        if self.rounds:
            self.rounds.load_state_dict(snapshot.tensors, snapshot.facts["curation"])
        self._evaluated = snapshot.facts["evaluated"]
        self._written = self.sampler.step

    def stops(self, step: int, asked: bool) -> bool:
        """Whether to stop before this step: at once, or, with several processes, at a logged step together."""
        if self.fabric.world_size == 1 or step % self.job.spec.log_every:
            return asked and self.fabric.world_size == 1
        votes = self.fabric.all_reduce(torch.tensor(float(asked), device=self.fabric.device), reduce_op="sum")
        return bool(votes)

    def evaluation_is_due(self, step: int) -> bool:
        """Whether the online probe is to run before this step and has not."""
        return self.job.evaluate is not None and step in self.evaluations and self._evaluated != step

    def round_is_due(self, step: int) -> bool:
        """Whether the pool is to be drawn anew before this step and has not been."""
        return self.rounds is not None and step in self.timeline.rounds and self.rounds.step != step

    def checkpoint_is_due(self) -> bool:
        """Whether the last checkpoint was written too long ago."""
        return time.monotonic() - self._checkpointed > 60 * self.job.spec.checkpoint_minutes

    def checkpoint(self, step: int) -> None:
        """Write a checkpoint and export the encoder, unless loss or weights are no longer numbers.

        Raises:
            NonFiniteError: The loss or a weight is NaN or infinite; earlier checkpoints are untouched.
            WriteError: The system refused it.
        """
        self._finite_losses(step)
        self._fail_unless_weights_are_finite(step)
        if self.fabric.is_global_zero:
            if step != self._written:
                keep = self.job.spec.keep_checkpoints
                write_checkpoint(self.checkpoint_folder, step, self.method, self.optimiser, self._snapshot(), keep)
            self.job.export(self.method.exported, step)
        self._checkpointed = time.monotonic()

    def _snapshot(self) -> Snapshot:
        sampler = self.sampler.state_dict()
        monitor = dict(self.monitor.state_dict())
        curated, curation = self.rounds.state_dict() if self.rounds else ({}, None)
        tensors = {
            **curated,
            "pool": torch.from_numpy(sampler.pop("pool")),
            "monitor": monitor.pop("ring"),
            "rng": torch.get_rng_state(),
            "losses": torch.stack(self.unseen) if self.unseen else torch.zeros(0),
        }
        facts = {
            "sampler": sampler,
            "monitor": monitor,
            "precision": self.fabric.strategy.precision.state_dict(),
            "seconds": self.seconds,
            "metrics": self.latest,
            "measured": {name: float(value) for name, value in self._measured.items()},
            "evaluated": self._evaluated,
            "curation": curation,
            "config": self.job.config,
        }
        return Snapshot(tensors, facts)

    @property
    def seconds(self) -> float:
        """Time spent training and curating, but not evaluating, in this process and before it was resumed."""
        return self._seconds_before + time.monotonic() - self._began

    def open_batches(self) -> Batches:
        """Raw views from the sampler's position on."""
        reader = ViewReader(self.job.archive, self.job.planner, self.job.spec.batch_size)
        return Batches(reader, self.sampler, self.job.spec.workers)

    def fetch(self, batches: Batches) -> list[RawView]:
        """The next raw views; the time spent waiting for them is counted."""
        began = time.monotonic()
        raws = next(batches)
        self._waited += time.monotonic() - began
        return raws

    def micro_batches(self, raws: list[RawView]) -> Iterator[list[Tensor]]:
        """The views of each micro-batch, rendered on the device one micro-batch at a time."""
        parts = self.job.spec.accumulate
        for part in range(parts):
            views = [render(_part(raw, part, parts), self.job.normaliser, self.fabric.device) for raw in raws]
            yield [view.contiguous(memory_format=torch.channels_last) for view in views]

    def train_step(self, step: int, micro_batches: Iterable[list[Tensor]]) -> None:
        """One optimiser step: every micro-batch forward and backward, then weights, then teacher."""
        spec = self.job.spec
        set_rates(self.optimiser, float(self.learning_rates[step]), float(self.weight_decays[step]))
        for part, views in enumerate(micro_batches):
            with self.fabric.no_backward_sync(self.module, enabled=part < spec.accumulate - 1):
                output: StepOutput = self.module(views)
                self.fabric.backward(output.loss / spec.accumulate)
            self.unseen.append(output.loss.detach())
            self._measured = output.metrics
            self.monitor.update(output.embedding)
            self._remember(step, part, output.embedding)
        if spec.clip_norm is not None:
            self.fabric.clip_gradients(self.module, self.optimiser, max_norm=spec.clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.method.after_step((step + 1) / self.steps)
        self.sampler.advance()

    def _remember(self, step: int, part: int, embedding: Tensor) -> None:
        """Note the features of a micro-batch of all processes in the feature bank, if the run has one."""
        if self.rounds is None or self.rounds.memory is None:
            return
        # Of shape (processes, samples, features); without the leading axis where there is one process. Fabric's type
        # allows for any collection of tensors.
        everywhere: Tensor = self.fabric.all_gather(embedding)  # type: ignore[assignment]
        batch = self.sampler.whole_batch().reshape(self.fabric.world_size, self.job.spec.accumulate, -1)
        self.rounds.memory.update(step, batch[:, part].reshape(-1), everywhere.reshape(-1, embedding.shape[-1]))

    def curate(self, step: int, batches: Batches) -> None:
        """Draw the pool anew and let the batches go on with it."""
        assert self.rounds is not None
        began = time.monotonic()
        self.sampler.replace(self.rounds.run(step, self.sampler.pool))
        batches.restart()
        self._window_began += time.monotonic() - began

    def observe(self, step: int) -> dict[str, float]:
        """Read back the losses since the last look, and check them and the embedding.

        Raises:
            NonFiniteError: A loss is NaN or infinite.
            CollapseError: The embedding lost its variety.
        """
        losses = self._finite_losses(step)
        reading = self.monitor.check()
        elapsed = max(time.monotonic() - self._window_began, 1e-9)
        metrics = {
            "epoch": float(self.timeline.epochs[step]),
            "loss": float(losses.mean()),
            "learning_rate": float(self.learning_rates[step - 1]),
            "images_per_s": (step - self._window_step) * self.job.spec.batch_size / elapsed,
            "data_wait": self._waited / elapsed,
            "feature_std": reading.std,
            "effective_rank": reading.rank,
            **{name: float(value) for name, value in self._measured.items()},
            **(self.rounds.latest if self.rounds else {}),
            "seconds": self.seconds,
        }
        if self.rounds and self.rounds.memory:
            self.rounds.memory.settle()
        self.unseen.clear()
        self._waited, self._window_began, self._window_step = 0.0, time.monotonic(), step
        return metrics

    def evaluate(self, step: int) -> dict[str, float]:
        """Run the online probe; its time does not count as training."""
        assert self.job.evaluate is not None
        began = time.monotonic()
        metrics = dict(self.job.evaluate(self.method.exported))
        spent = time.monotonic() - began
        self._window_began += spent
        self._began += spent
        self._evaluated = step
        return metrics

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the numbers of a step, once for each step."""
        self.latest.update(metrics)
        for log in self.logs:
            log.log(step, metrics)

    def _finite_losses(self, step: int) -> Tensor:
        losses = torch.stack(self.unseen).float().cpu() if self.unseen else torch.zeros(0)
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            first = step + (int(bad[0]) - len(losses)) // self.job.spec.accumulate
            raise self._diverged(f"The loss became {float(losses[bad[0]])}", first)
        return losses

    def _fail_unless_weights_are_finite(self, step: int) -> None:
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.method.parameters()):
            raise self._diverged("A weight became NaN or infinite", step - 1)

    def _diverged(self, what: str, step: int) -> NonFiniteError:
        return NonFiniteError(
            f"{what} in step {step} (learning rate {self.learning_rates[step]:.3g}). Start a new run with a lower "
            "train.optimiser.lr, with train.clip_norm, or with train.precision=32."
        )


def _part(raw: RawView, part: int, parts: int) -> RawView:
    size = len(raw.pixels) // parts
    return raw[part * size : (part + 1) * size] if parts > 1 else raw


def _refuse_uneven_split(spec: TrainSpec, processes: int) -> None:
    size, rest = divmod(spec.batch_size, processes * spec.accumulate)
    if rest or size < 2:
        raise ConfigError(
            f"train.batch_size {spec.batch_size} does not split over {processes} processes into {spec.accumulate} "
            "micro-batches of two or more each; change train.batch_size or train.accumulate."
        )


def _refuse_other_config(path: Path, stored: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    differing = sorted(_differences(stored, own))
    if differing:
        raise CheckpointError(
            f"{path} was written under another configuration: {'; '.join(differing)}. "
            "Resume with the settings it was started with, or start a new run in another folder."
        )


def _differences(stored: Any, own: Any, key: str = "") -> list[str]:
    if isinstance(stored, Mapping) and isinstance(own, Mapping):
        return [
            line
            for name in sorted({*stored, *own})
            for line in _differences(stored.get(name), own.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if stored == own else [f"{key} was {stored!r}, now {own!r}"]
