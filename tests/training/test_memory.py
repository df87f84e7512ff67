"""What a step needs is told before the first, with a number and a setting that would fit."""

from __future__ import annotations

import copy

import pytest
import torch

from terrasieve.errors import ConfigError
from terrasieve.methods.byol import ByolSpec
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.training.memory import MemoryNeed, check_memory, memory_need
from terrasieve.training.spec import AdamW, Sgd, TrainSpec

GIB = 2**30
NEED = MemoryNeed(fixed=2 * GIB, per_sample=GIB // 4)


def test_what_a_step_needs_is_what_it_keeps() -> None:
    method = ByolSpec(hidden=16, output=8).build(build_encoder(BackboneSpec(name="test_vit"), 0), (2,), 0)
    before, state = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    found = {size: memory_need(method, [size, size], TrainSpec(optimiser=AdamW())) for size in (16, 32)}
    torch.testing.assert_close(dict(method.state_dict()), dict(before), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    trained = sum(p.nbytes for p in method.parameters() if p.requires_grad)
    held = sum(tensor.nbytes for tensor in (*method.parameters(), *method.buffers()))
    assert found[32].fixed == held + 3 * trained
    assert memory_need(method, [32, 32], TrainSpec(optimiser=Sgd())).fixed == held + 2 * trained
    assert found[32].per_sample > 2 * found[16].per_sample > 0, "four times the patches, beside prefix and head"


def test_less_is_kept_in_16_bits() -> None:
    method = ByolSpec(hidden=16, output=8).build(build_encoder(BackboneSpec(name="test_resnet"), 0), (2,), 0)
    plain = memory_need(method, [32, 32], TrainSpec())
    half = memory_need(method, [32, 32], TrainSpec(), torch.autocast("cpu", torch.bfloat16))
    assert half.fixed == plain.fixed
    assert half.per_sample < 0.8 * plain.per_sample


@pytest.mark.parametrize(
    ("available", "processes", "advice"),
    [(18, 1, None), (10, 2, None), (17, 1, "accumulate=2, which needs 10.0 GiB"), (5, 1, "accumulate=8"), (5, 2, "=4")],
)
def test_a_run_that_does_not_fit_is_refused_with_a_number(available: int, processes: int, advice: str | None) -> None:
    spec = TrainSpec(batch_size=64)
    if advice is None:
        check_memory(NEED, spec, processes, available * GIB)
        return
    with pytest.raises(ConfigError, match=rf"needs about .* but the device has {available}\.0 GiB\. .*{advice}"):
        check_memory(NEED, spec, processes, available * GIB)


def test_a_model_that_never_fits_is_said_to() -> None:
    with pytest.raises(ConfigError, match=r"needs about 18\.0 GiB \(2\.0 GiB for .* 256\.0 MiB a sample.*No train"):
        check_memory(NEED, TrainSpec(batch_size=64), 1, GIB)
