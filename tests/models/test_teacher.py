from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from terrasieve.models.teacher import Teacher, momentum_at


class _Gain(nn.Module):
    """Buffers of every sort."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("gain", torch.rand(5))
        self.register_buffer("hidden", torch.rand(5), persistent=False)
        self.register_buffer("calls", torch.tensor(3))
        self.register_buffer("mask", torch.tensor([True, False, True, True, True]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain * self.mask + self.hidden


def _student() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), _Gain(), nn.Linear(5, 3))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _disturb(module: nn.Module) -> None:
    for tensor in _tensors(module).values():
        with torch.no_grad():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
            else:
                tensor.copy_(~tensor if tensor.dtype == torch.bool else tensor + 2)


def test_is_not_the_student() -> None:
    student = _student()
    teacher = Teacher(student)
    own, other = _tensors(teacher.model), _tensors(student)
    assert own.keys() == other.keys()
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert not {t.data_ptr() for t in own.values()} & {t.data_ptr() for t in other.values()}
    assert not {id(m) for m in teacher.modules()} & {id(m) for m in student.modules()}


@settings(max_examples=25, deadline=None)
@given(momentum=st.floats(0, 1), rounds=st.integers(1, 3))
def test_average_equals_the_formula_in_float64(momentum: float, rounds: int) -> None:
    student = _student()
    teacher = Teacher(student)
    expected = {name: t.detach().double() for name, t in _tensors(teacher.model).items() if t.is_floating_point()}
    for _ in range(rounds):
        _disturb(student)
        teacher.update(student, momentum)
        current = _tensors(student)
        for name in expected:
            expected[name] = momentum * expected[name] + (1 - momentum) * current[name].detach().double()
    own = _tensors(teacher.model)
    for name, tensor in own.items():
        if name in expected:
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(tensor, _tensors(student)[name])
    assert {"1.running_mean", "1.running_var", "2.gain", "2.hidden"} <= expected.keys()


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_average_is_exact_at_both_ends(momentum: float) -> None:
    student = _student()
    teacher = Teacher(student)
    before = copy.deepcopy(teacher.model)
    _disturb(student)
    teacher.update(student, momentum)
    goal = student if momentum == 0 else before
    floating = {name: t for name, t in _tensors(teacher.model).items() if t.is_floating_point()}
    assert all(torch.equal(tensor, _tensors(goal)[name]) for name, tensor in floating.items())


def test_update_leaves_the_student_alone() -> None:
    student = _student()
    teacher = Teacher(student)
    _disturb(teacher.model)
    before = copy.deepcopy(_tensors(student))
    teacher.update(student, 0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in _tensors(student).items())


def test_gets_no_gradient() -> None:
    student = _student()
    teacher = Teacher(student)
    x = torch.randn(6, 4, requires_grad=True)
    targets = teacher(x)
    assert not targets.requires_grad
    (student(x) - targets).square().sum().backward()
    assert all(p.grad is not None for p in student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


def test_own_batches_leave_its_buffers_alone() -> None:
    student = _student()
    teacher = Teacher(student).train()
    before = copy.deepcopy(_tensors(teacher.model))
    teacher(torch.randn(6, 4) * 100)
    assert all(torch.equal(tensor, before[name]) for name, tensor in _tensors(teacher.model).items())


def test_normalises_by_the_batch_in_train_mode_and_by_the_average_in_eval_mode() -> None:
    student = _student()
    student(torch.randn(6, 4) * 3 + 1)
    teacher = Teacher(student)
    x = torch.randn(6, 4)
    torch.testing.assert_close(teacher.train()(x), copy.deepcopy(student).train()(x))
    torch.testing.assert_close(teacher.eval()(x), copy.deepcopy(student).eval()(x))
    assert not torch.equal(teacher.train()(x), teacher.eval()(x))


@pytest.mark.parametrize("normalise", [weight_norm, parametrizations.weight_norm], ids=["hook", "parametrization"])
def test_survives_weight_norm(normalise: Callable[[nn.Module], nn.Module]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        student = nn.Sequential(nn.Linear(4, 5), normalise(nn.Linear(5, 3, bias=False)))
    x = torch.randn(6, 4)
    student(x).sum().backward()
    teacher = Teacher(student)
    torch.testing.assert_close(teacher(x), student(x), rtol=0, atol=0)
    _disturb(student)
    assert not torch.allclose(teacher(x), student(x))
    teacher.update(student, 0.0)
    torch.testing.assert_close(teacher(x), student(x), rtol=0, atol=0)


def test_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        Teacher(_student()).update(nn.Linear(4, 5), 0.9)


def test_state_round_trip() -> None:
    first, second = Teacher(_student()), Teacher(_student())
    second.load_state_dict(first.state_dict())
    x = torch.randn(6, 4)
    hidden = first.model[2].hidden
    second.model[2].hidden.copy_(hidden)  # not in a state dict, by torch's definition
    assert torch.equal(first.eval()(x), second.eval()(x))


# --------------------------------------------------------------------- momentum


def test_momentum_follows_the_papers_formula() -> None:
    total, base = 100, 0.99
    for step in range(total + 1):
        expected = 1 - (1 - base) * (math.cos(math.pi * step / total) + 1) / 2
        assert momentum_at(step / total, base, 1.0) == pytest.approx(expected, abs=1e-15)
    assert momentum_at(0.37, 0.9, 0.9) == 0.9
