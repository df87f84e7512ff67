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

from terrasieve.models.teacher import LOWEST_MOMENTUM, Teacher, lowered_momentum, momentum_at, teacher_memory

STATISTICS = ("1.running_mean", "1.running_var", "1.num_batches_tracked")


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
    statistics = {name: t.clone() for name, t in _tensors(teacher.model).items() if name in STATISTICS}
    expected = {name: t.detach().double() for name, t in _tensors(teacher.model).items() if t.is_floating_point()}
    expected = {name: t for name, t in expected.items() if name not in STATISTICS}
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
            assert torch.equal(tensor, statistics[name] if name in STATISTICS else _tensors(student)[name])
    assert {"0.weight", "1.weight", "2.gain", "2.hidden"} <= expected.keys()


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_average_is_exact_at_both_ends(momentum: float) -> None:
    student = _student()
    teacher = Teacher(student)
    before = copy.deepcopy(teacher.model)
    _disturb(student)
    teacher.update(student, momentum)
    goal = student if momentum == 0 else before
    kept = {name: t for name, t in _tensors(teacher.model).items() if name in STATISTICS}
    assert all(torch.equal(tensor, _tensors(before)[name]) for name, tensor in kept.items()), "they are its own"
    floating = {name: t for name, t in _tensors(teacher.model).items() if t.is_floating_point() and name not in kept}
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


def test_batch_statistics_are_those_of_what_it_sees() -> None:
    student = _student()
    teacher, alone = Teacher(student).train(), copy.deepcopy(student).train()
    for _ in range(3):
        student(torch.randn(6, 4) * 100)
        seen = torch.randn(6, 4) + 2
        teacher(seen)
        alone(seen)
        with torch.no_grad():
            student[0].weight.add_(1)
        teacher.update(student, 0.9)
        alone[0].weight.data.copy_(teacher.model[0].weight)
    own, expected = _tensors(teacher.model), _tensors(alone)
    assert all(torch.equal(own[name], expected[name]) for name in STATISTICS)
    teacher.eval()(seen)
    assert all(torch.equal(own[name], expected[name]) for name in STATISTICS), "not while it is measured"


def test_normalises_by_the_batch_in_train_mode_and_by_the_average_in_eval_mode() -> None:
    student = _student()
    student(torch.randn(6, 4) * 3 + 1)
    teacher, x = Teacher(student), torch.randn(6, 4)
    torch.testing.assert_close(teacher.eval()(x), copy.deepcopy(student).eval()(x))
    torch.testing.assert_close(teacher.train()(x), copy.deepcopy(student).train()(x))
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


# ------------------------------------------------------------------------ memory


@pytest.mark.parametrize(("start", "end"), [(0.99, 1.0), (0.9, 0.9), (0.5, 0.9)])
def test_memory_is_what_is_left_of_a_teacher_whose_student_forgot_all(start: float, end: float) -> None:
    student, steps = nn.Linear(1, 1, bias=False).double(), 40
    student.weight.data.fill_(1)
    teacher = Teacher(student)
    student.weight.data.zero_()
    held = [1.0]
    for step in range(steps):
        teacher.update(student, momentum_at((step + 1) / steps, start, end))
        held.append(float(teacher.model.weight))
    assert teacher_memory(start, end, steps).tolist() == pytest.approx(held, rel=1e-12)


def test_the_recorded_case_held_a_fifth_of_its_birth() -> None:
    memory = teacher_memory(0.99, 1.0, 300)
    assert memory[40] == pytest.approx(0.67, abs=0.01)
    assert memory[300] == pytest.approx(0.22, abs=0.01)


@settings(max_examples=50, deadline=None)
@given(
    steps=st.integers(1, 3000),
    share=st.floats(0, 1),
    start=st.floats(0, 1),
    end=st.one_of(st.none(), st.floats(0.9, 1)),
    limit=st.floats(0.001, 1),
)
def test_the_momentum_is_lowered_as_far_as_needed_and_no_further(
    steps: int, share: float, start: float, end: float | None, limit: float
) -> None:
    use = max(1, round(share * steps))

    def held(momentum: float) -> float:
        return float(teacher_memory(momentum, momentum if end is None else end, steps)[use])

    found = lowered_momentum(start, end, steps, use, limit)
    assert found <= start
    if held(start) <= limit or start <= LOWEST_MOMENTUM:
        assert found == start
    elif found > LOWEST_MOMENTUM:
        assert held(found) <= limit < held(min(start, found + 2e-6))
    else:
        assert found == LOWEST_MOMENTUM
        assert limit < held(found + 2e-6)
