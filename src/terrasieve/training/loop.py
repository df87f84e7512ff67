"""The training loop, read from top to bottom, on Lightning Fabric."""

from __future__ import annotations

import logging
import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException

from terrasieve.device import bf16_is_fast, pick_device
from terrasieve.errors import ConfigError, TrainingError
from terrasieve.training.checkpoints import checkpoints
from terrasieve.training.display import TrainingDisplay
from terrasieve.training.interrupt import StopRequest
from terrasieve.training.job import TrainingJob, TrainingResult
from terrasieve.training.session import Session
from terrasieve.training.spec import TrainSpec

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def make_fabric(spec: TrainSpec, device: str = "auto", devices: int = 1) -> Fabric:
    """Fabric for one node with the precision that the spec asks for.

    Args:
        spec: Decides the precision.
        device: See :func:`terrasieve.device.pick_device`.
        devices: How many; ignored where ``device`` names a single one, such as ``cuda:1``, and under ``torchrun``,
            which has launched one process for each already.

    Raises:
        ConfigError: The device is unknown, or there are not as many.
    """
    # Fabric announces its precision on every run; it stands in config.yaml.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    chosen = pick_device(device)
    precision = ("bf16" if bf16_is_fast(chosen) else "32") if spec.precision == "auto" else spec.precision
    wanted = _launched(devices) if chosen.type == "cpu" or chosen.index is None else [chosen.index]
    try:
        return Fabric(accelerator=chosen.type, devices=wanted, precision=_PRECISION[precision])  # type: ignore[arg-type]
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(f"--devices {devices} cannot be had on {chosen}: {error}") from error


def _launched(devices: int) -> int:
    """Processes on this node: ``torchrun``'s where it runs, since each would train a run of its own otherwise."""
    elastic = torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()
    return int(os.environ["LOCAL_WORLD_SIZE"]) if elastic else devices


def train(job: TrainingJob, fabric: Fabric, resume: bool = False) -> TrainingResult:
    """Train to the end of the schedule, or until asked to stop.

    Args:
        job: What to train.
        fabric: Device, precision and processes; already launched.
        resume: Go on from the last checkpoint in the run folder, if there is one. On CPU the result equals
            that of an uninterrupted run bit for bit.

    Raises:
        CollapseError: The embedding lost its variety.
        NonFiniteError: The loss became NaN or infinite.
        CheckpointError: A checkpoint cannot be written or resumed.
        TrainingError: The run was asked to stop; its state is in a checkpoint.
    """
    session = Session(job, fabric)
    session.start(resume)
    with StopRequest() as stop, TrainingDisplay(session.steps, session.sampler.step, fabric.is_global_zero) as display:
        try:
            return _run(session, stop, display)
        finally:
            for log in session.logs:
                log.close()


def _run(session: Session, stop: StopRequest, display: TrainingDisplay) -> TrainingResult:
    spec = session.job.spec
    batches = session.open_batches() if session.sampler.step < session.steps else None
    # The loop runs once more than it trains, so that the last evaluation and checkpoint are no special case.
    for step in range(session.sampler.step, session.steps + 1):
        last = step == session.steps
        # What is due when the run is stopped is done when it goes on, so that it is done once.
        stopping = not last and session.stops(step, stop.signal_name is not None)
        metrics: dict[str, float] = {}

        # --- once in a while: look at the loss and the embedding
        if session.unseen and (last or step % spec.log_every == 0) and not stopping:
            metrics |= session.observe(step)

        # --- once in a while: the online probe
        if session.evaluation_is_due(step) and not stopping:
            metrics |= session.evaluate(step)

        # --- once in a while: say so
        if metrics:
            session.log(step, metrics)
            display.show(step, metrics)

        # --- once in a while: a checkpoint, and always before the long work of a round
        if last or stopping or session.checkpoint_is_due() or session.round_is_due(step):
            session.checkpoint(step)
        if stopping:
            raise TrainingError(
                f"Stopped by {stop.signal_name or 'another process'} at step {step} of {session.steps}; the checkpoint "
                "is written. Go on with --resume."
            )
        if last:
            break

        assert batches is not None

        # --- once in a while: the archive is looked at with the model's own eyes, and the pool drawn anew
        if session.round_is_due(step):
            with display.paused():
                session.curate(step, batches)

        session.train_step(step, session.micro_batches(session.fetch(batches)))
        display.step(step + 1)
    session.fabric.barrier()
    return TrainingResult(session.steps, checkpoints(session.checkpoint_folder)[-1], session.latest)
