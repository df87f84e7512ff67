"""Cross-entropies in chunks equal the formula in one piece, gradients included, in every precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from terrasieve.methods import pair_entropies as module
from terrasieve.methods.dino_loss import dino_loss
from terrasieve.methods.pair_entropies import Sharpening, pair_entropies


def _cosines(count: int, n: int, prototypes: int, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.rand(n, prototypes, generator=generator) * 2 - 1).to(dtype) for _ in range(count)]


def _plainly(taught: list[Tensor], outputs: list[Tensor], sharpening: Sharpening, temperature: float) -> Tensor:
    """DINO's loss in float64, in one piece, for autograd to differentiate."""
    centre = sharpening.centre.double()
    targets = [((one.double() - centre) / sharpening.temperature).softmax(1) for one in taught]
    terms = [
        -(target * functional.log_softmax(output.double() / temperature, dim=1)).sum(1).mean()
        for j, target in enumerate(targets)
        for i, output in enumerate(outputs)
        if i != j
    ]
    return torch.stack(terms).mean()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 9),
    prototypes=st.integers(2, 40),
    wide=st.integers(1, 3),
    local=st.integers(1, 3),
    chunk=st.sampled_from([1, 700, 1 << 21]),
    autocast=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 999),
)
def test_loss_and_gradient_equal_the_formula(
    n: int, prototypes: int, wide: int, local: int, chunk: int, autocast: bool, dtype: torch.dtype, seed: int
) -> None:
    taught = _cosines(wide, n, prototypes, seed, dtype)
    outputs = [one.requires_grad_() for one in _cosines(wide + local, n, prototypes, seed + 1000, dtype)]
    sharpening = Sharpening(_cosines(1, 1, prototypes, seed + 2000)[0][0], 0.05)
    exact = [one.detach().double().requires_grad_() for one in outputs]
    expected = _plainly(taught, exact, sharpening, 0.1)
    wanted = torch.autograd.grad(expected, exact, allow_unused=True)
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        patch.setattr(module, "OTHER_CHUNK_BYTES", chunk)
        loss, entropy = dino_loss(taught, outputs, 0.1, sharpening)
    (loss * 3).backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    # Of 16 bits, a gradient is rounded where it is stored and where it is scaled.
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 2e-3}[dtype]
    for output, gradient in zip(outputs, wanted, strict=True):
        if gradient is None:  # the only global view is compared with no other
            assert output.grad is None
        else:
            torch.testing.assert_close(output.grad, (3 * gradient).to(dtype), rtol=tolerance, atol=1e-5)
    targets = torch.stack([sharpening(one) for one in taught])
    torch.testing.assert_close(entropy, torch.special.entr(targets).sum(-1).mean())


def test_small_gradients_survive_in_float16() -> None:
    # At 65,536 prototypes of nearly equal shares a gradient is 1e-7 and less, which float16 would round to 0.
    (taught,) = _cosines(1, 2, 65536, 0, torch.float16)
    output = (_cosines(1, 2, 65536, 1)[0] / 100).half().requires_grad_()
    found = pair_entropies([taught], [output], [[0]], 0.1, Sharpening(torch.zeros(65536), 1.0))
    (found.cross[0].mean() * 2**16).backward()
    double = output.detach().double().requires_grad_()
    targets = taught.double().softmax(1)
    (-(targets * (double / 0.1).log_softmax(1)).sum(1).mean() * 2**16).backward()
    torch.testing.assert_close(output.grad.double(), double.grad, rtol=5e-3, atol=1e-4)


def test_rows_may_count_differently() -> None:
    (taught,), outputs = _cosines(1, 5, 7, 0), [_cosines(1, 5, 7, 1)[0].requires_grad_()]
    weights = torch.tensor([0.0, 1.0, 2.0, 0.5, 4.0])
    (pair_entropies([taught.softmax(1)], outputs, [[0]], 0.2).cross[0] * weights).sum().backward()
    wanted = weights[:, None] * ((outputs[0].detach() / 0.2).softmax(1) - taught.softmax(1)) / 0.2
    torch.testing.assert_close(outputs[0].grad, wanted)
