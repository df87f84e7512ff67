"""What one step of training waits for, and how many bytes the loss of DINO moves; counted, not timed.

``syncs_per_step`` trains a recipe by terrasieve's own loop on torch's ``meta`` device, whose tensors have shapes and no
values. It stands for an accelerator: whatever would make the host wait for one (a value read back, a shape that depends
on values, a copy that blocks) is seen as it is dispatched.

The loss of DINO is counted twice, by the bytes of the tensors that each of its operations reads and writes, as a
multiple of the least that any loss could move (4.5 MB a sample at 65,536 prototypes):

* ``loss_traffic_vs_min`` counts what travels between memory and the processor. Pieces of chunks that fit the cache are
  left out. A loss without chunks leaves nothing out, for each of its tensors holds the batch: it moves 60 MB.
* ``loss_bytes_vs_min`` counts every byte of every tensor, those in the cache, too. Arithmetic is float32, four bytes
  where an output has two, and each of torch's operations reads and writes a chunk anew; few times the least would need
  a kernel that is made for this loss.

Usage: ``python benchmarks/hot_path_step.py [--recipe NAME ...]``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from machine import describe
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.config import RunConfig, load_config
from terrasieve.methods.dino_loss import Centre, dino_loss
from terrasieve.methods.pair_entropies import OTHER_CHUNK_BYTES, Sharpening
from terrasieve.pretraining import make_job
from terrasieve.training.job import TrainingJob
from terrasieve.training.loop import train

SHORT = ("train.batch_size=8", "train.log_every=1000000", "train.precision=32")
"""Waiting does not depend on the size of the batch or on the precision; a step is looked at before the first log."""

_DATA_DEPENDENT = ("nonzero", "masked_select", "unique", "_unique2", "unique_consecutive", "repeat_interleave", "equal")


class Waits(TorchDispatchMode):
    """Counts the operations that make the host wait for an accelerator, for which the ``meta`` device stands.

    Attributes:
        active: Whether operations are counted.
        found: How often, by what it was and the function of terrasieve that asked for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.active = False
        self.found: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Note what would wait, and answer with zeros where there are no values."""
        kwargs = kwargs or {}
        name = func.name().removeprefix("aten::").split(".")[0]
        kind, answer = _wait(name, args, kwargs)
        if kind and self.active:
            self.found[kind, _asker()] += 1
        return func(*args, **kwargs) if answer is None else answer


def _wait(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, Any]:
    """What kind of waiting an operation is, empty for none; and what to answer where ``meta`` cannot."""
    first = args[0] if args and isinstance(args[0], Tensor) else None
    there = first is not None and first.device.type == "meta"
    if name == "_local_scalar_dense" and there:
        return "value read back", torch.zeros((), dtype=first.dtype).item()
    if name in _DATA_DEPENDENT and there:
        return "shape of values", torch.zeros((0, first.ndim), dtype=torch.int64, device="meta")
    if name == "_to_copy" and first is not None and "device" in kwargs and kwargs["device"] is not None:
        target = torch.device(kwargs["device"]).type
        if there and target != "meta":
            return "copy to the host", torch.zeros(first.shape, dtype=kwargs.get("dtype") or first.dtype)
        if not there and target == "meta" and not kwargs.get("non_blocking"):
            return "blocking copy to the device", None
    if name == "copy_" and there != (args[1].device.type == "meta"):
        blocks = there is False or not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        return ("blocking copy" if blocks else ""), None
    if name in ("index", "index_put", "index_put_", "_index_put_impl_") and there:
        indices = [one for one in args[1] if one is not None]
        if any(one.dtype in (torch.bool, torch.uint8) for one in indices):
            return "shape of values", None
        if any(one.device.type != "meta" for one in indices):
            return "blocking copy to the device", None
    return "", None


def _asker() -> str:
    """The innermost function of terrasieve that is being run, as ``room/file.py:function``."""
    frame = sys._getframe(2)
    while frame is not None:
        _, found, inside = frame.f_code.co_filename.rpartition("/terrasieve/")
        if found:
            return f"{inside}:{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


class _Shapes(CPUAccelerator):
    """Where the ``meta`` device is computed on."""

    def setup_device(self, device: torch.device) -> None:
        """There is nothing to set up."""


class _Enough(Exception):
    """Ends a run after the step that was looked at."""


def waits_of(job: TrainingJob, skipped: int = 1) -> Counter[tuple[str, str]]:
    """What a step of a run would wait for on an accelerator.

    Args:
        job: The run; its method loses its weights, and its folder gets what a run writes at its start.
        skipped: Number of steps before the one that is looked at, in which optimisers make their state; 1 or more.

    Returns:
        How often, by the kind of waiting and the function that asked for it.
    """
    waits, steps = Waits(), 0
    after_step = job.method.after_step

    def counted(progress: float) -> None:
        nonlocal steps
        after_step(progress)
        steps += 1
        waits.active = steps >= skipped
        if steps > skipped:
            raise _Enough

    job.method.to("meta")
    strategy = SingleDeviceStrategy("meta", _Shapes())
    with mock.patch.object(job.method, "after_step", counted), _autocast_on_meta(), suppress(_Enough), waits:
        train(job, Fabric(strategy=strategy))
    return waits.found


@contextmanager
def _autocast_on_meta() -> Iterator[None]:
    """Let autocast, which refuses the ``meta`` device, take its name for the CPU's."""
    autocast = torch.autocast

    def renamed(device_type: str, *args: Any, **kwargs: Any) -> torch.autocast:
        return autocast("cpu" if device_type == "meta" else device_type, *args, **kwargs)

    with mock.patch.object(torch, "autocast", renamed):
        yield


def recipe_waits(recipe: str, settings: Sequence[str] = ()) -> Counter[tuple[str, str]]:
    """What a step of a recipe would wait for, on simulated samples.

    Args:
        recipe: Name of a recipe.
        settings: Settings as ``--set`` takes them.
    """
    config: RunConfig = load_config(recipe, [*SHORT, *settings])
    with tempfile.TemporaryDirectory() as folder:
        ocean = recipe.startswith(("oceansar", "sentinel-1"))
        pack(open_archive(f"simulated{'-ocean' if ocean else ''}:0:24"), Path(folder) / "packed.zarr")
        return waits_of(make_job(config, open_archive(Path(folder) / "packed.zarr"), Path(folder) / "run"))


def syncs_per_step(recipe: str) -> int:
    """How often one step of a recipe would make the host wait for an accelerator."""
    return sum(recipe_waits(recipe).values())


# -------------------------------------------------------------------- traffic of the loss

VIEWS, TAUGHT, PROTOTYPES = 10, 2, 65536
"""What oceansar-1-vits16 shows of a sample: 2 global and 8 local crops, compared with so many prototypes."""

MINIMUM = (2 * (VIEWS + TAUGHT) + VIEWS) * PROTOTYPES * 2
"""Least bytes a sample of bfloat16 outputs, 4.5 MB: the forward pass reads every output of student and teacher once,
the backward pass reads them once more and writes the student's gradients once."""


class Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations read and write.

    A tensor whose memory is at most ``cache`` bytes is a piece of a chunk that was made a moment ago and is used at
    once: it is in the processor's cache, and no bytes of it go to memory.

    Args:
        cache: Size up to which tensors count as cached; 0 counts every byte of every tensor.

    Attributes:
        moved: Bytes so far.
    """

    def __init__(self, cache: int) -> None:
        super().__init__()
        self.cache = cache
        self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Note an operation."""
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        read = [one for one in tree_leaves((args, {**kwargs, "out": None})) if isinstance(one, Tensor)]
        written = [one for one in tree_leaves(found) if isinstance(one, Tensor)]
        mutable = func._schema.is_mutable
        looks = not mutable and {_memory(one) for one in written} & {_memory(one) for one in read}
        made_only = func.name().startswith(("aten::empty", "aten::new_empty"))
        if not looks and not made_only:
            self.moved += sum(one.numel() * one.element_size() for one in (*read, *written) if self._counts(one))
        return found

    def _counts(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().nbytes() > self.cache


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def loss_traffic(cache: int, samples: int = 32) -> float:
    """Bytes a sample that DINO's loss moves forward and backward, its metrics and the centre's sums included.

    Args:
        cache: Size in bytes up to which tensors count as cached, as :class:`Traffic` takes it.
        samples: Number of samples, 1 or more.
    """
    draws = torch.Generator().manual_seed(0)
    made = [torch.randn(samples, PROTOTYPES, generator=draws).bfloat16() for _ in range(VIEWS + TAUGHT)]
    outputs = [one.requires_grad_() for one in made[:VIEWS]]
    centre = Centre(PROTOTYPES)
    with Traffic(cache) as traffic, torch.autocast("cpu", torch.bfloat16):
        for one in made[VIEWS:]:
            centre.note(one)
        sharpening = Sharpening(centre.value, torch.tensor(0.05))
        dino_loss(made[VIEWS:], outputs, 0.1, sharpening).loss.backward()
    return traffic.moved / samples


def loss_traffic_vs_min() -> float:
    """Bytes that DINO's loss moves to and from memory, as a multiple of the least, :data:`MINIMUM`.

    Chunks are worked on in the processor's cache, and their pieces do not count.
    """
    return loss_traffic(OTHER_CHUNK_BYTES // 2) / MINIMUM


def loss_bytes_vs_min() -> float:
    """Bytes that all operations of DINO's loss read and write, in the cache or not, as a multiple of the least."""
    return loss_traffic(0) / MINIMUM


def main() -> None:
    """Count, print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", nargs="+", default=["oceansar-1-vits16", "rs-byol-1"], help="recipes to count in")
    arguments = parser.parse_args()
    syncs = {}
    for recipe in arguments.recipe:
        found = recipe_waits(recipe)
        syncs[recipe] = sum(found.values())
        table = Table("waits for", "asked for by", "times", title=f"one step of {recipe}")
        for (kind, place), count in found.most_common():
            table.add_row(kind, place, str(count))
        Console().print(table)
    traffic, everything = loss_traffic_vs_min(), loss_bytes_vs_min()
    print(
        f"DINO's loss, {VIEWS} views, {PROTOTYPES:,} prototypes, bfloat16: to and from memory {traffic:.2f} times the"
    )
    print(f"least of {MINIMUM / 1e6:.1f} MB a sample; with pieces of chunks, which stay in the cache, {everything:.1f}")
    print(describe(seed=0))
    figures = {"loss_traffic_vs_min": round(traffic, 2), "loss_bytes_vs_min": round(everything, 2)}
    print(json.dumps({"syncs_per_step": syncs} | figures))


if __name__ == "__main__":
    main()
