"""The training loop, on Lightning Fabric: a run is read here from top to bottom."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import signal
import threading
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any, Literal

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from timm.layers.norm_act import convert_sync_batchnorm

from terrasieve.console import console
from terrasieve.device import pick_device, resolve_precision
from terrasieve.errors import ConfigError, DeviceError, RequeueError, StoppedError, WorldError
from terrasieve.files.writing import write_text
from terrasieve.methods.base import StepOutput
from terrasieve.processes.ranks import alike_over_ranks, largest_number, leave
from terrasieve.processes.world import is_first, read_world
from terrasieve.runs import RunFolder
from terrasieve.streams import Stream, torch_seed
from terrasieve.training.checkpoints import Checkpointer
from terrasieve.training.clipping import clip_gradients
from terrasieve.training.compiling import compile_forward
from terrasieve.training.feeding import Batches
from terrasieve.training.job import TrainingJob, TrainingResult
from terrasieve.training.launched import LaunchedWorld
from terrasieve.training.logs import TrainingDisplay, open_logs
from terrasieve.training.memory import check_memory, memory_need
from terrasieve.training.meters import Meters
from terrasieve.training.optimisation import build_optimiser, learning_rates, set_rates, start_momenta, weight_decays
from terrasieve.training.pool import PoolSampler, ViewReader
from terrasieve.training.rounds import Rounds
from terrasieve.training.schedules import make_timeline
from terrasieve.training.spec import TrainSpec
from terrasieve.views.render import render
from terrasieve.views.stored import Buffers

_PRECISION: Mapping[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}
"""What Fabric calls each precision."""
_SIGNALS = (0, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""None, and those that stop a run, the one that counts most last: a run that is to be started again says so."""


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
        StoppedError: The run was asked to stop; its state is in a checkpoint.
        RequeueError: It was asked to stop and to be started again.
    """
    spec, evaluate = job.spec, job.evaluate
    _check_micro_batches(spec, fabric.world_size)
    if not alike_over_ranks(int(hashlib.sha256(json.dumps(job.config, sort_keys=True).encode()).hexdigest()[:15], 16)):
        raise WorldError("The processes were given different settings or archives; give all of them the same command.")

    # ---------------------------------------------------------------- what learns
    method = job.method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if spec.sync_batchnorm and fabric.world_size > 1:
        _check_synchronised(fabric)
        convert_sync_batchnorm(method)  # type: ignore[no-untyped-call]  # in place, as a method is no such layer
    if spec.compile:
        compile_forward(method)
    module, optimiser = fabric.setup(method, build_optimiser(method, spec, fabric.device))
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
            if last or stopping or round_is_due or checkpointer.due(step):
                meters.check_finite(step, method)
                checkpointer.write(step)
            if stopping:
                raise stop.error(step, steps)
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


def _check_synchronised(fabric: Fabric) -> None:
    if fabric.device.type != "cuda":
        raise ConfigError(
            f"train.sync_batchnorm is true, but {fabric.world_size} processes on {fabric.device.type} cannot take "
            "statistics together, as those on GPUs can. Set train.sync_batchnorm=false, or train in one process."
        )


# -------------------------------------------------------------------- stopping


class StopRequest:
    """Context in which SIGTERM, SIGINT and SIGUSR1 are noted instead of ending the process.

    A second SIGINT interrupts at once. Outside the main thread, where Python allows no handlers, it
    never fires.

    Args:
        fabric: The processes, which stop together or not at all.
        every: Steps between two moments at which several processes may stop; one process stops at any step.
    """

    def __init__(self, fabric: Fabric, every: int) -> None:
        self.fabric = fabric
        self.every = every
        self._received = 0
        self._agreed = 0
        self._previous: dict[signal.Signals, Any] = {}

    def agreed(self, step: int) -> bool:
        """Whether to stop before this step; every process gets the same answer, and has to ask."""
        if self.fabric.world_size > 1:
            if step % self.every:
                return False
            # The signal that any process received; where there are several, the last in this order. One that comes
            # while the processes ask each other is kept for the next time: only its handler writes what was received.
            self._agreed = _SIGNALS[largest_number(_SIGNALS.index(self._received))]
        else:
            self._agreed = self._received
        return self._agreed != 0

    def error(self, step: int, steps: int) -> StoppedError:
        """What to raise once it is agreed and the checkpoint is written."""
        said = f"Stopped by {signal.Signals(self._agreed).name} at step {step} of {steps}; the checkpoint is written."
        kind = RequeueError if self._agreed == signal.SIGUSR1 else StoppedError
        return kind(f"{said} Go on with --resume.")

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS[1:]:
                self._previous[signal.Signals(number)] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT == self._received:
            raise KeyboardInterrupt
        self._received = number


# -------------------------------------------------------------------- devices


def make_fabric(spec: TrainSpec, device: str = "auto", devices: int | None = None) -> Fabric:
    """Fabric with the processes that the launcher started, and the precision that the spec asks for.

    Args:
        spec: Settings of the run, of which the precision and the patience of processes count here.
        device: The name of the device, as :func:`terrasieve.device.pick_device` takes it.
        devices: How many of them on each machine, each with a process of its own, 1 or more. None takes one, or as many
            as torchrun, Slurm or MPI has launched processes; another number than that is refused. Ignored where
            ``device`` names a single one, such as ``cuda:1``.

    Raises:
        WorldError: What the launcher says is incomplete, or contradicts itself or ``devices``.
        ConfigError: The device is unknown, or there are not as many.
    """
    # Fabric announces its precision on every run; the card says which it was.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    world = read_world()
    environment: ClusterEnvironment
    if world is None:
        environment, size, count, nodes = LightningEnvironment(), devices or 1, devices or 1, 1
    else:
        world.check_devices(devices)
        environment, size, count, nodes = LaunchedWorld(world), world.size, world.per_node, world.nodes
    if not is_first():
        console.quiet = True
        warnings.simplefilter("ignore")
    chosen = pick_device(device)
    if world is not None and count > 1 and chosen.index is not None:
        raise WorldError(
            f"--device {device} names one device, but {world.source} started {count} processes for each "
            "machine. Name the kind alone."
        )
    precision = _PRECISION[resolve_precision(spec.precision, chosen)]
    alone = size == 1 or (world is None and chosen.index is not None)
    if not alone:
        atexit.register(leave)
    try:
        return Fabric(
            accelerator=chosen.type,
            devices=count if chosen.type == "cpu" or chosen.index is None else [chosen.index],
            num_nodes=nodes,
            strategy="auto" if alone else DDPStrategy(timeout=timedelta(minutes=spec.timeout_minutes)),
            precision=precision,
            plugins=[environment],
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise DeviceError(f"--devices {count} cannot be had on {chosen}: {error}") from error
