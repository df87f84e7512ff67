"""What is measured is what the commands do; how long it takes is nobody's business here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.config import RunConfig, load_config
from terrasieve.estimates import attempts
from terrasieve.estimates.attempts import Enough, StepClock, attempts_at
from terrasieve.estimates.counting import operations
from terrasieve.estimates.trial_results import Pace, TrialResults
from terrasieve.estimates.trials import Trials, run_trials
from terrasieve.models.backbone import build_encoder

DATA = "simulated-ocean:0:9"


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_config("oceansar-small", ["model.name=test_resnet", "train.batch_size=4", "train.precision=32"])


@pytest.fixture(scope="module")
def found(config: RunConfig) -> TrialResults:
    return run_trials(DATA, config, 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the work below adds to: the clock stands still otherwise."""
    now = [0.0]
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(attempts.time, name, lambda: now[0])
    return now


def test_every_stage_does_its_smallest_attempt(found: TrialResults) -> None:
    assert [pace.units for pace in (found.opening, found.index, found.pack, found.embed)] == [9, 4, 4, 4]
    assert {batch: pace.units for batch, pace in found.steps.items()} == {2: 2}
    # Three updates and the pass that measures the last of them, over twice as many rows as clusters.
    assert found.products.units == 4 * 2048 * 1024 * found.network.features
    assert list(found.peaks) == ["index", "pack", "embed", "training", "rounds"]
    assert list(found.peaks.values()) == sorted(found.peaks.values())
    paces = (found.index, found.pack, found.embed, found.products, *found.steps.values())
    assert all(pace.seconds > 0 and pace.processor > 0 for pace in paces)


def test_bytes_are_those_of_the_archive_and_of_the_store(found: TrialResults, tmp_path: Path) -> None:
    report = pack(open_archive("simulated-ocean:0:4"), tmp_path / "store.zarr")
    # The simulated archive has no files: pixels of float32. Both stores say what they were packed from.
    assert found.bytes.input == 64 * 64 * 4
    assert found.bytes.packed == pytest.approx(report.bytes / 4, rel=0.01)


def test_files_of_several_samples_count_once(tmp_path: Path, config: RunConfig) -> None:
    pack(open_archive("simulated-ocean:0:6"), tmp_path / "store.zarr")

    class OneFile:
        def __len__(self) -> int:
            return 6

        def files(self, indices: object) -> list[Path]:
            return [tmp_path / "store.zarr/zarr.json"] * 6

    measured = Trials(str(tmp_path / "store.zarr"), config, tmp_path)
    measured.pack(0)
    measured.archive = OneFile()  # type: ignore[assignment]
    assert measured.sample_bytes().input == (tmp_path / "store.zarr/zarr.json").stat().st_size / 6


def test_the_network_is_the_recipes(found: TrialResults, config: RunConfig) -> None:
    encoder = build_encoder(config.model.backbone, 0)
    network = found.network
    assert network.features == encoder.features
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    # The heads of DINO on top of it.
    assert network.trained > weights + 2048 * 128
    # Student and teacher, and AdamW's two moments of the student.
    assert network.state == pytest.approx(4 * 4 * network.trained, rel=0.01)
    # Two views of 32 pixels and four of a quarter as many, thrice by the student, forward and backward, and the global
    # ones once by the teacher: eleven of a round's passes, and the heads.
    assert 10 < network.train_flops / network.embed_flops < 20


def test_operations_are_those_of_products_and_attention() -> None:
    left, right = torch.zeros(2, 3, 5, requires_grad=True), torch.zeros(5, 7)

    def product(views: list[Tensor]) -> None:
        (views[0] @ right).sum().backward()

    # Forward and one gradient, of two samples.
    assert operations(product, [left]) == 2 * (2 * 3 * 5 * 7)
    queries = torch.zeros(2, 4, 9, 8)
    attention = operations(lambda views: functional.scaled_dot_product_attention(*views), [queries] * 3)
    assert attention == 2 * (2 * 4 * 9 * 9 * 8)


# ----------------------------------------------------------------------- timing


def work_of(
    clock: list[float], tried: list[int], each: float, fixed: float = 0.0
) -> Callable[[int], Callable[[], float]]:
    def prepare(count: int) -> Callable[[], float]:
        tried.append(count)

        def work() -> float:
            clock[0] += fixed + each * count
            return count

        return work

    return prepare


def test_attempts_grow_until_the_time_is_over(clock: list[float]) -> None:
    tried: list[int] = []
    pace = attempts_at(work_of(clock, tried, each=0.01), 10.0, 4, 10**6).pace
    assert tried == [4, 4, 64, 932]
    # The first one warms up, and is not counted.
    assert clock[0] == pytest.approx(10.04)
    assert pace.seconds / pace.units == pytest.approx(0.01)


def test_what_does_not_depend_on_the_length_is_no_part_of_the_pace(clock: list[float]) -> None:
    tried: list[int] = []
    pace = attempts_at(work_of(clock, tried, each=0.01, fixed=1.0), 6.0, 4, 10**6).pace
    # By its own pace the first attempt would leave room for 19 samples, and the second one for 60.
    assert tried == [4, 4, 19, 277]
    assert pace.units == 273
    assert pace.each("wall") == pytest.approx(0.01)


def test_two_lengths_are_compared_however_long_they_take(clock: list[float]) -> None:
    tried: list[int] = []
    pace = attempts_at(work_of(clock, tried, each=0.01, fixed=9.0), 1.0, 4, 10**6).pace
    assert tried == [4, 4, 16]
    assert pace.each("wall") == pytest.approx(0.01)


def test_attempts_that_tell_little_are_followed_by_longer_ones(clock: list[float]) -> None:
    tried: list[int] = []
    attempts_at(work_of(clock, tried, each=0.01, fixed=1.0), 2.0, 4, 10**6)
    # 1.04, 1.16 and 1.64 s differ by little; the last one, of 3.56 s, is more than twice as long as the first.
    assert tried == [4, 4, 16, 64, 256]


@pytest.mark.parametrize(("most", "tried"), [(3, [3, 3]), (30, [4, 4, 30])])
def test_no_attempt_is_longer_than_there_are_samples(clock: list[float], most: int, tried: list[int]) -> None:
    done: list[int] = []
    attempts_at(work_of(clock, done, each=0.01), 10.0, 4, most)
    assert done == tried


def test_the_first_steps_do_not_count(clock: list[float]) -> None:
    steps = StepClock(4.0, torch.device("cpu"))
    for took in (9.0, 5.0, 2.0):
        clock[0] += took
        assert steps(None) == {}  # type: ignore[arg-type]
    clock[0] += 2.0
    with pytest.raises(Enough):
        steps(None)  # type: ignore[arg-type]
    assert steps.pace.units == 2
    assert steps.pace.seconds == pytest.approx(4.0)


def test_batches_grow_to_the_recipes_own(config: RunConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured = Trials(
        DATA, config.model_copy(update={"train": config.train.model_copy(update={"batch_size": 48})}), tmp_path
    )

    def steps(batch: int, seconds: float) -> Pace:
        return Pace(2, 2 * (0.2 + 0.1 * batch), 0)

    monkeypatch.setattr(measured, "steps", steps)
    assert list(measured.training(1000)) == [2, 48]
    assert list(measured.training(20)) == [2, 16]
    assert list(measured.training(1)) == [2]
