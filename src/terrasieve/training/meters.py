"""What is measured of a run while it trains: losses, speed, the state of the embedding, and the time spent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn

from terrasieve.console import console
from terrasieve.errors import NonFiniteError
from terrasieve.methods.base import StepOutput
from terrasieve.methods.collapse import CollapseMonitor, CollapseReading, CollapseSign
from terrasieve.training.checkpoints import Snapshot
from terrasieve.training.spec import TrainSpec


class Meters:
    """The numbers of a run between two looks at them.

    Losses and metrics stay on their device until :meth:`read`, so that no step waits for the one before it.

    Args:
        spec: Batch size, micro-batches and the limits of the collapse monitor.
        learning_rates: The learning rate of every step, ``(steps,)``, for the log and for what is said of a run that
            diverged.
        fabric: The processes, over which logged values are averaged, and the device that computes them, to which those
            of a resumed run go back.
        signs: What the method's metrics show when it has collapsed.

    Attributes:
        latest: The last value of every logged number, by name.
        evaluated: The step before which the online probe last ran; None where it never did.
    """

    def __init__(
        self, spec: TrainSpec, learning_rates: NDArray[np.float64], fabric: Fabric, signs: Sequence[CollapseSign] = ()
    ) -> None:
        self.spec = spec
        self.learning_rates = learning_rates
        self.fabric = fabric
        self.monitor = CollapseMonitor(min_std=spec.collapse_std, min_rank=spec.collapse_rank, signs=signs)
        self.latest: dict[str, float] = {}
        self.evaluated: int | None = None
        self._losses: list[Tensor] = []
        self._measured: dict[str, list[Tensor]] = {}
        self._seconds_before = 0.0

    def start(self, step: int) -> None:
        """Start the clocks before this step; call it after :meth:`restore`, where there is something to restore."""
        self._began = time.monotonic()
        self._reset_window(step)

    # ---------------------------------------------------------------- every step

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as time that training waits for data."""
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    def add(self, output: StepOutput) -> None:
        """Note what one micro-batch gave; nothing is read back from the device."""
        self._losses.append(output.loss.detach())
        for name, value in output.metrics.items():
            self._measured.setdefault(name, []).append(value.detach())
        self.monitor.update(output.embedding)

    # ---------------------------------------------------------------- once in a while

    @property
    def has_unread(self) -> bool:
        """Whether there are losses that :meth:`read` has not given."""
        return bool(self._losses)

    def read(self, step: int) -> dict[str, float]:
        """Read back what was noted since the last call, and check it and the embedding.

        Every process has to call it, and all raise alike.

        Args:
            step: How many optimiser steps are done, 1 or more.

        Returns:
            The mean loss, the last step's learning rate, images per second and the share of the time spent waiting
            for data since the last call, the monitor's reading, the means of the method's own metrics, and the seconds
            so far. Means are over micro-batches and processes.

        Raises:
            NonFiniteError: A loss is NaN or infinite.
            CollapseError: The embedding lost its variety.
        """
        losses, reading, measured = self._everywhere()
        self._check_losses(losses, step)
        self.monitor.judge(reading)
        for warning in self.monitor.warnings(measured):
            if self.fabric.is_global_zero:
                console.print(f"[yellow]Warning:[/] step {step}: {warning}", highlight=False)
        elapsed = max(time.monotonic() - self._window_began, 1e-9)
        metrics = {
            "loss": float(losses.mean()),
            "learning_rate": float(self.learning_rates[step - 1]),
            "images_per_s": (step - self._window_step) * self.spec.batch_size / elapsed,
            "data_wait": self._waited / elapsed,
            "feature_std": reading.std,
            "effective_rank": reading.rank,
            **measured,
            "seconds": self.seconds,
        }
        self._losses.clear()
        self._measured.clear()
        self._reset_window(step)
        return metrics

    def check_finite(self, step: int, method: nn.Module) -> None:
        """Refuse losses and weights that are no longer numbers.

        Every process has to call it, and all raise alike.

        Args:
            step: How many optimiser steps are done, 0 or more.
            method: The method whose weights are looked at.

        Raises:
            NonFiniteError: A loss since the last call or a weight is NaN or infinite.
        """
        self._check_losses(self._averaged(_stacked(self._losses)), step)
        if not all(bool(torch.isfinite(parameter).all()) for parameter in method.parameters()):
            raise self._diverged("A weight became NaN or infinite", step - 1)

    # ---------------------------------------------------------------- time

    @property
    def seconds(self) -> float:
        """Time spent training and curating, but not evaluating, in this process and before it was resumed."""
        return self._seconds_before + time.monotonic() - self._began

    @contextmanager
    def without_throughput(self) -> Iterator[None]:
        """Leave the time of the block out of images per second; it remains part of :attr:`seconds`."""
        began = time.monotonic()
        yield
        self._window_began += time.monotonic() - began

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Leave the time of the block out of everything."""
        began = time.monotonic()
        yield
        spent = time.monotonic() - began
        self._window_began += spent
        self._began += spent

    # ---------------------------------------------------------------- what a checkpoint holds

    def snapshot(self) -> Snapshot:
        """Everything that a resumed run needs to log the same numbers, which every process has to ask for.

        Losses and metrics are means over processes. The embeddings that the monitor holds are those of the first.
        """
        monitor = self.monitor.state_dict()
        tensors = {
            "monitor": monitor["ring"],
            "losses": self._averaged(_stacked(self._losses)),
            **{f"measured.{name}": self._averaged(_stacked(self._measured[name])) for name in sorted(self._measured)},
        }
        facts = {
            "monitor": {name: value for name, value in monitor.items() if name != "ring"},
            "seconds": self.seconds,
            "metrics": self.latest,
            "evaluated": self.evaluated,
        }
        return Snapshot(tensors, facts)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what :meth:`snapshot` gave."""
        self.monitor.load_state_dict({"ring": snapshot.tensors["monitor"], **snapshot.facts["monitor"]})
        device = self.fabric.device
        self._losses = list(snapshot.tensors["losses"].to(device))
        # Older checkpoints hold the metrics of the last micro-batch alone, among the facts.
        last = {f"measured.{name}": torch.tensor([value]) for name, value in snapshot.facts.get("measured", {}).items()}
        stacked = {**(last if self._losses else {}), **snapshot.tensors}
        self._measured = {
            name.removeprefix("measured."): list(values.to(device))
            for name, values in stacked.items()
            if name.startswith("measured.")
        }
        self._seconds_before = float(snapshot.facts["seconds"])
        self.latest = dict(snapshot.facts["metrics"])
        self.evaluated = snapshot.facts["evaluated"]

    def _reset_window(self, step: int) -> None:
        """Begin anew to count images, seconds and waiting."""
        self._waited, self._window_began, self._window_step = 0.0, time.monotonic(), step

    def _everywhere(self) -> tuple[Tensor, CollapseReading, dict[str, float]]:
        """The loss of each micro-batch, the reading and the metrics, on average over processes."""
        names = sorted(self._measured)
        means = [float(_stacked(self._measured[name]).mean()) for name in names]
        own = torch.tensor([*self.monitor.measure(), *means], dtype=torch.float64)
        # In one message: what one process finds wrong all find, and none waits for another that has stopped.
        numbers = self._averaged(torch.cat([_stacked(self._losses).double(), own]))
        sizes = [len(self._losses), len(CollapseReading._fields), len(names)]
        losses, reading, measured = torch.split(numbers, sizes)
        return losses.float(), CollapseReading(*reading.tolist()), dict(zip(names, measured.tolist(), strict=True))

    def _averaged(self, numbers: Tensor) -> Tensor:
        """Means over processes, on the CPU."""
        if self.fabric.world_size == 1 or not len(numbers):
            return numbers
        shared = self.fabric.all_reduce(numbers.to(self.fabric.device), reduce_op="mean")
        assert isinstance(shared, Tensor)
        return shared.cpu()

    def _check_losses(self, losses: Tensor, step: int) -> None:
        bad = (~torch.isfinite(losses)).nonzero()
        if len(bad):
            # Losses are of micro-batches, the last of them of the step before this one.
            first = step + (int(bad[0]) - len(losses)) // self.spec.accumulate
            raise self._diverged(f"The loss became {float(losses[bad[0]])}", first)

    def _diverged(self, what: str, step: int) -> NonFiniteError:
        return NonFiniteError(
            f"{what} in step {step} (learning rate {self.learning_rates[step]:.3g}). Start a new run with a lower "
            "train.optimiser.lr, with train.clip_norm, or with train.precision=32."
        )


def _stacked(values: Sequence[Tensor]) -> Tensor:
    """Scalars from any device as one float32 tensor ``(n,)`` on the CPU."""
    return torch.stack(list(values)).float().cpu() if values else torch.zeros(0)
