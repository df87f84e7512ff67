"""The training loop, on Lightning Fabric: a run is read here from top to bottom."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from terrasieve.device import pick_device, resolve_precision
from terrasieve.errors import ConfigError, TrainingError
from terrasieve.methods.base import StepOutput
from terrasieve.runs import RunFolder
from terrasieve.streams import Stream, torch_seed
from terrasieve.training.checkpoints import Checkpointer
from terrasieve.training.clipping import clip_gradients
from terrasieve.training.compiling import compile_forward
from terrasieve.training.feeding import Batches
from terrasieve.training.job import TrainingJob, TrainingResult
from terrasieve.training.logs import TrainingDisplay, open_logs
from terrasieve.training.memory import check_memory, memory_need
from terrasieve.training.meters import Meters
from terrasieve.training.pool import PoolSampler, ViewReader
from terrasieve.training.rounds import Rounds
from terrasieve.training.schedules import make_timeline
from terrasieve.training.spec import (
    TrainSpec,
    build_optimiser,
    learning_rates,
    set_rates,
    start_momenta,
    weight_decays,
)
from terrasieve.views.render import render
from terrasieve.views.stored import Buffers
from terrasieve.writing import write_text

_PRECISION: Mapping[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}
"""What Fabric calls each precision."""


def train(job: TrainingJob, fabric: Fabric, resume: bool = False) -> TrainingResult:  # noqa: C901  # one run, in order
    """Train to the end of the schedule, or until asked to stop.

    Args:
        job: What to train, on what, and where the results go.
        fabric: The device, precision and processes to train with; already launched.
        resume: Go on from the last checkpoint in the run folder, if there is one. On CPU the result equals
            that of an uninterrupted run bit for bit.

    Raises:
        CollapseError: The embedding lost its variety.
        ConfigError: The folder holds a run and ``resume`` is false, the batch does not split over processes and
            micro-batches, or the method cannot be compiled.
        NonFiniteError: The loss became NaN or infinite.
        CheckpointError: A checkpoint cannot be written or resumed.
        TrainingError: The run was asked to stop; its state is in a checkpoint.
    """
    spec, evaluate = job.spec, job.evaluate
    _check_micro_batches(spec, fabric.world_size)

    # ---------------------------------------------------------------- what learns
    method = job.method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if spec.compile:
        compile_forward(method)
    fused = fabric.device.type in ("cpu", "cuda")
    module, optimiser = fabric.setup(method, build_optimiser(method, spec, fused))
    start_momenta(optimiser)

    if fabric.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(fabric.device)
        # The method is there already.
        available = free + torch.cuda.memory_allocated(fabric.device)
        sizes = [view.size for view in job.planner.recipe.views]
        check_memory(memory_need(method, sizes, spec, fabric.autocast()), spec, fabric.world_size, available)

    # ---------------------------------------------------------------- from what, and when
    timeline = make_timeline(len(job.pool), spec, job.curation.spec if job.curation else None)
    steps, evaluations = timeline.steps, timeline.evaluations(spec)
    rates, decays = learning_rates(spec, timeline), weight_decays(spec, steps)
    sampler = PoolSampler(job.pool, spec.batch_size, spec.seed, fabric.global_rank, fabric.world_size)
    memory = Buffers(fabric.device)
    reader = ViewReader(job.archive, job.planner, spec.batch_size, job.places, spec.accumulate, memory)
    batches = Batches(reader, sampler, spec.workers, fabric.device)
    rounds = Rounds(job.curation, job, fabric, timeline.rounds) if job.curation else None

    # ---------------------------------------------------------------- what is kept and written of it
    meters = Meters(spec, rates, fabric, method.collapse_signs)
    parts = (sampler, meters, rounds) if rounds else (sampler, meters)
    checkpointer = Checkpointer(job, fabric, method, optimiser, parts)
    torch.manual_seed(torch_seed(Stream.TRAINING, spec.seed))
    checkpointer.start(resume)
    first = sampler.step
    logs = []
    if fabric.is_global_zero:
        # Not before the run is accepted: one that is refused must leave the folder as it was.
        write_text(RunFolder(job.folder).config, job.resolved)
        logs = open_logs(job.folder, spec.loggers, first + 1, job.config, method.metric_names)

    with ExitStack() as run:
        for log in logs:
            run.callback(log.close)
        stop = run.enter_context(StopRequest(fabric, spec.log_every))
        display = run.enter_context(TrainingDisplay(steps, first, fabric.is_global_zero))
        meters.start(first)
        # The loop runs once more than it trains, so that the last evaluation and checkpoint are no special case.
        for step in range(first, steps + 1):
            last = step == steps
            # What is due when the run is stopped is done when it goes on, so that it is done once.
            stopping = not last and stop.agreed(step)
            round_is_due = rounds is not None and rounds.due(step)
            metrics: dict[str, float] = {}

            # --- once in a while: look at the loss and the embedding
            if meters.has_unread and (last or step % spec.log_every == 0) and not stopping:
                metrics |= {"epoch": float(timeline.epochs[step]), **meters.read(step)}
                metrics |= rounds.read() if rounds else {}
                metrics |= {} if job.memory is None else {"teacher_memory": float(job.memory[step])}

            # --- once in a while: the online probe, whose time does not count as training
            if evaluate and step in evaluations and meters.evaluated != step and not stopping:
                with meters.stopped():
                    metrics |= evaluate(method.exported)
                    if job.evaluate_counterpart and method.counterpart:
                        role, other = method.counterpart
                        found = job.evaluate_counterpart(other)
                        metrics |= {f"{role}_{name}": value for name, value in found.items()}
                meters.evaluated = step

            # --- once in a while: log it, once for each step
            if metrics:
                meters.latest.update(metrics)
                for log in logs:
                    log.log(step, metrics)
                display.show(step, metrics)

            # --- once in a while: a checkpoint, and always before the long work of a round
            if last or stopping or round_is_due or checkpointer.due():
                meters.check_finite(step, method)
                checkpointer.write(step)
            if stopping:
                raise TrainingError(
                    f"Stopped by {stop.signal_name or 'another process'} at step {step} of {steps}; the checkpoint is "
                    "written. Go on with --resume."
                )
            if last:
                break

            # --- once in a while: the archive is looked at with the model's own eyes, and the pool drawn anew
            if rounds and round_is_due:
                with display.paused(), meters.without_throughput():
                    sampler.replace(rounds.run(step, sampler.pool))
                    batches.restart()

            # --- read
            with meters.waiting():
                batch = next(batches)

            # --- render, forward, backward: one micro-batch at a time
            for part in range(spec.accumulate):
                views = render(batch, job.normaliser, part)
                views = [view.contiguous(memory_format=torch.channels_last) for view in views]
                # Processes exchange their gradients once a step, with the last micro-batch.
                with fabric.no_backward_sync(module, enabled=part < spec.accumulate - 1):
                    output: StepOutput = module(views)
                    fabric.backward(output.loss / spec.accumulate)
                meters.add(output)
                if rounds:
                    rounds.remember(step, sampler.micro_batch(part, spec.accumulate), output.embedding)

            # --- clip, step
            method.before_step(step / steps)
            clip_gradients(fabric, optimiser, spec)
            set_rates(optimiser, float(rates[step]), float(decays[step]))
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

            # --- the teacher follows, once a step however many micro-batches it had
            method.after_step((step + 1) / steps)
            sampler.advance()
            display.step(step + 1)

    fabric.barrier()
    return TrainingResult(steps, checkpointer.last, meters.latest)


def _check_micro_batches(spec: TrainSpec, processes: int) -> None:
    """Refuse a batch that does not split over processes and micro-batches."""
    size, rest = divmod(spec.batch_size, processes * spec.accumulate)
    if rest or size < 2:
        raise ConfigError(
            f"train.batch_size {spec.batch_size} does not split over {processes} processes into {spec.accumulate} "
            "micro-batches of two or more each; change train.batch_size or train.accumulate."
        )


# -------------------------------------------------------------------- stopping


class StopRequest:
    """Context in which SIGTERM and SIGINT set ``signal_name`` instead of ending the process.

    A second SIGINT interrupts at once. Outside the main thread, where Python allows no handlers, it
    never fires.

    Args:
        fabric: The processes, which stop together or not at all.
        every: Steps between two moments at which several processes may stop; one process stops at any step.
    """

    def __init__(self, fabric: Fabric, every: int) -> None:
        self.fabric = fabric
        self.every = every
        self.signal_name: str | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def agreed(self, step: int) -> bool:
        """Whether to stop before this step; every process gets the same answer, and has to ask."""
        asked = self.signal_name is not None
        if self.fabric.world_size == 1 or step % self.every:
            return asked and self.fabric.world_size == 1
        votes = self.fabric.all_reduce(torch.tensor(float(asked), device=self.fabric.device), reduce_op="sum")
        return bool(votes)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_name is not None:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name


# -------------------------------------------------------------------- devices


def make_fabric(spec: TrainSpec, device: str = "auto", devices: int = 1) -> Fabric:
    """Fabric for one node with the precision that the spec asks for.

    Args:
        spec: Settings of the run, of which the precision counts here.
        device: The name of the device, as :func:`terrasieve.device.pick_device` takes it.
        devices: How many of them, each with a process of its own, 1 or more; ignored where ``device`` names a single
            one, such as ``cuda:1``, and under ``torchrun``, which has launched one process for each already.

    Raises:
        ConfigError: The device is unknown, or there are not as many.
    """
    # Fabric announces its precision on every run; it stands in config.yaml.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    chosen = pick_device(device)
    precision = _PRECISION[resolve_precision(spec.precision, chosen)]
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        # Each of torchrun's processes would train a run of its own otherwise.
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
    wanted = devices if chosen.type == "cpu" or chosen.index is None else [chosen.index]
    try:
        return Fabric(accelerator=chosen.type, devices=wanted, precision=precision)
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(f"--devices {devices} cannot be had on {chosen}: {error}") from error
