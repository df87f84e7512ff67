"""A step waits for nothing: no value is read back, no shape depends on values, no copy to the device blocks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor

from terrasieve.archive.protocol import Archive
from terrasieve.config import RunConfig, load_config, recipe_names
from terrasieve.errors import NonFiniteError
from terrasieve.methods.base import StepOutput
from terrasieve.methods.byol import Byol
from terrasieve.runs import RunFolder
from terrasieve.training.checkpoints import checkpoints, read_facts
from terrasieve.training.clipping import clip_gradients
from terrasieve.training.job import TrainingJob
from terrasieve.training.loop import train
from terrasieve.training.optimisation import build_optimiser, start_momenta
from terrasieve.training.spec import AdamW, Sgd, TrainSpec

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from hot_path_step import Waits, recipe_waits

RECIPES = {
    "byol": ("rs-byol-1-small", ("model.name=test_resnet", "train.clip_norm=3", "train.accumulate=2")),
    "dino": (
        "oceansar-small",
        ("model.name=test_resnet", "curation.features=bank", "method.koleo=0.1", "train.accumulate=2"),
    ),
    "dinov2": ("oceansar-2-small", ("train.accumulate=2", "train.clip_norm=null", "train.clip_parameter_norm=3")),
    "lejepa": (
        "rs-lejepa-1-small",
        (
            "model.name=test_resnet",
            "train.clip_norm=1",
        ),
    ),
}
"""Of each method a small recipe, with settings that let a step do all that it can do."""


def test_every_method_of_a_recipe_is_looked_at() -> None:
    assert {load_config(name).method.name for name in recipe_names()} == RECIPES.keys()


@pytest.mark.parametrize("method", list(RECIPES))
def test_no_step_waits_for_the_device(method: str) -> None:
    recipe, settings = RECIPES[method]
    assert load_config(recipe, settings).method.name == method
    assert not recipe_waits(recipe, settings)


# ------------------------------------------------------------------ the count itself


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (lambda there, here: there.sum().item(), "value read back"),
        (lambda there, here: bool(there.sum() > 0), "value read back"),
        (lambda there, here: float(there[0]), "value read back"),
        (lambda there, here: there.cpu(), "copy to the host"),
        (lambda there, here: there.nonzero(), "shape of values"),
        (lambda there, here: here.to("meta"), "blocking copy to the device"),
        (lambda there, here: there[here.long()], "blocking copy to the device"),
        (lambda there, here: there.copy_(here), "blocking copy"),
        (lambda there, here: here.to("meta", non_blocking=True), None),
        (lambda there, here: there.half().float() + 1, None),
        (lambda there, here: here.sum().item(), None),
    ],
)
def test_waiting_is_seen(work: Callable[[Tensor, Tensor], Any], kind: str | None) -> None:
    there, here = torch.zeros(3, device="meta"), torch.zeros(3)
    with Waits() as waits:
        waits.active = True
        work(there, here)
    assert [found for found, _ in waits.found] == ([] if kind is None else [kind])


# ------------------------------------------------------------------------- 16 bits


GPU = torch.device("cuda")
"""What the optimisers below are made for; the fused ones of a GPU run on the CPU as well."""


def _half_fabric() -> Fabric:
    """Float16 on the CPU, in whose place Fabric by itself takes bfloat16."""
    return Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu"))


def test_a_first_step_that_is_left_out_leaves_momenta_at_0() -> None:
    spec = TrainSpec(optimiser=Sgd(momentum=0.9), precision="16")
    fabric, linear = _half_fabric(), torch.nn.Linear(300, 200)
    module, fused = fabric.setup(linear, build_optimiser(linear, spec, GPU))
    start_momenta(fused)
    for overflow in (True, False):
        # What the memory of a momentum would hold that nobody wrote.
        _ = torch.full_like(module.weight, 1e30)
        fabric.backward(module(torch.ones(4, 300)).float().sum() * (torch.inf if overflow else 1e-3))
        clip_gradients(fabric, fused, spec)
        fused.step()
        fused.zero_grad(set_to_none=True)
    momenta = [state["momentum_buffer"] for state in fused.optimizer.state.values()]
    assert max(float(one.abs().max()) for one in momenta) < 1


@pytest.mark.parametrize("optimiser", [AdamW(), Sgd()])
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 1.0}, {"clip_parameter_norm": 1.0}])
def test_a_fused_optimiser_leaves_out_an_overflow(optimiser: AdamW | Sgd, clip: dict[str, float]) -> None:
    spec = TrainSpec(optimiser=optimiser, precision="16", **clip)
    fabric, linear = _half_fabric(), torch.nn.Linear(3, 2)
    module, fused = fabric.setup(linear, build_optimiser(linear, spec, GPU))
    for overflow in (False, True, False):
        before = module.weight.detach().clone()
        fabric.backward(module(torch.ones(4, 3)).float().sum() * (torch.inf if overflow else 1e-3))
        clip_gradients(fabric, fused, spec)
        fused.step()
        fused.zero_grad(set_to_none=True)
        assert torch.equal(module.weight, before) == overflow
        assert torch.isfinite(module.weight).all()


class _Overflows(Byol):
    """Its gradient is too large for 16 bits in the second step, or its loss is no number."""

    factor = torch.inf
    passes = 0

    def compare(self, views: Sequence[Tensor]) -> StepOutput:
        output = super().compare(views)
        self.passes += 1
        return output if self.passes != 2 else output._replace(loss=_Scaled.apply(output.loss, self.factor))


class _Scaled(torch.autograd.Function):
    """A loss as it is where the factor is infinite, and NaN where it is; its gradient is the factor in both cases."""

    @staticmethod
    def forward(context: Any, loss: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return loss.clone() if factor == torch.inf else loss * factor

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * context.factor, None


MakeConfig = Callable[..., RunConfig]
MakeJob = Callable[..., TrainingJob]


@pytest.mark.parametrize("clip", ["train.clip_norm=1", "train.clip_parameter_norm=1", "train.clip_norm=null"])
def test_half_precision_survives_an_overflow_and_dies_of_a_nan(
    clip: str, archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path
) -> None:
    config = plain_config("train.precision=16", "train.epochs=1.5", "train.log_every=2", clip)

    def job(folder: Path, factor: float) -> TrainingJob:
        made = plain_job(config, archive, folder)
        made.method.__class__ = _Overflows
        made.method.factor = factor
        return made

    scales = {}
    for factor in (1.0, torch.inf):
        folder = tmp_path / str(factor)
        train(job(folder, factor), _half_fabric())
        scales[factor] = read_facts(checkpoints(RunFolder(folder).checkpoints)[-1])["precision"]["scale"]
    assert scales[torch.inf] == scales[1.0] / 2
    with pytest.raises(NonFiniteError, match="The loss became nan in step 1"):
        train(job(tmp_path / "nan", torch.nan), _half_fabric())
