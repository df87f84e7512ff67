"""Rounds of curation inside a run: the pool changes, everything else goes on, and a stop anywhere changes nothing."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from apart import run_ranks
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive
from terrasieve.archive.selection import read_selection
from terrasieve.config import RunConfig
from terrasieve.curation.balanced import BalancedClusters
from terrasieve.curation.curator import Selection
from terrasieve.embeddings.inputs import EncoderInput, join
from terrasieve.embeddings.stream import EmbedSettings, calibrated_encoders, embed_batches
from terrasieve.errors import ConfigError, CurationError, TerrasieveError
from terrasieve.methods.byol import Byol
from terrasieve.models.backbone import Encoder
from terrasieve.pretraining import make_job, pretrain
from terrasieve.training import round_features, rounds
from terrasieve.training.ageing import as_of_today
from terrasieve.training.checkpoints import checkpoints
from terrasieve.training.job import TrainingJob, TrainingResult
from terrasieve.training.loop import make_fabric, train
from terrasieve.training.pool import Batch, ViewReader
from terrasieve.training.round_features import FeatureMemory
from training import conftest

MakeConfig = Callable[..., RunConfig]
MakeJob = Callable[[RunConfig, Archive, Path], TrainingJob]
SAMPLES = 23
# A warm-up of 3 steps on 23 samples, then pools of 9 for 2 steps each: rounds at steps 3, 5 and 7.
ROUNDS = (
    "curation.warmup=1",
    "curation.every=1",
    "curation.keep=0.4",
    "curation.curator.levels=[6,2]",
    "curation.batch_size=4",
    "train.steps=9",
)
ROUND_STEPS = [3, 5, 7]


def _train(job: TrainingJob) -> TrainingResult:
    return train(job, make_fabric(job.spec, "cpu"))


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "curation").glob("round-*.json"))]


def _pools(folder: Path, archive: Archive) -> list[list[int]]:
    return [read_selection(path, archive).tolist() for path in sorted((folder / "curation").glob("round-*.parquet"))]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Every batch that was read in this process, in order."""
    seen: list[Batch] = []
    read = ViewReader.__getitem__

    def note(reader: ViewReader, batch: Batch) -> Any:
        seen.append(batch)
        return read(reader, batch)

    monkeypatch.setattr(ViewReader, "__getitem__", note)
    return seen


# ------------------------------------------------------------------- what a round does


def test_steps_after_a_round_show_its_pool_once_a_pass_and_nothing_else(
    archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path, batches: list[Batch]
) -> None:
    result = _train(plain_job_with_rounds(plain_job, plain_config(*ROUNDS), archive, tmp_path))
    assert result.steps == 9
    assert [record["step"] for record in _records(tmp_path)] == ROUND_STEPS
    pools = _pools(tmp_path, archive)
    shown = {batch.step: batch.indices.tolist() for batch in batches}
    assert sorted(shown[0] + shown[1] + shown[2][: SAMPLES - 16]) == list(range(SAMPLES))
    for first, pool in zip(ROUND_STEPS, pools, strict=True):
        assert len(pool) == 9
        drawn = shown[first] + shown[first + 1]
        assert sorted(drawn[:9]) == pool
        assert set(drawn) <= set(pool)


def test_a_pool_is_chosen_by_the_slow_encoders_clean_features(
    archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[NDArray[Any]] = []
    expected: list[NDArray[Any]] = []
    choose = BalancedClusters.select
    job = plain_job_with_rounds(plain_job, plain_config(*ROUNDS), archive, tmp_path)
    assert isinstance(job.method, Byol)

    def select(
        curator: BalancedClusters, vectors: NDArray[Any], keep: int, seed: int, device: str = "cpu", numbers: Any = None
    ) -> Selection:
        given.append(np.array(vectors))
        settings = EmbedSettings(size=32, batch_size=4)
        inputs = [EncoderInput.parse("s2:B02"), EncoderInput.parse("s1:VV")]
        shown = (archive, inputs, job.normaliser, settings)
        encoders = calibrated_encoders(job.method.target_encoder, *shown, job.pool, job.spec.seed)
        found = embed_batches(encoders, *shown)
        expected.append(join(np.concatenate([vectors for _, vectors in found])))
        return choose(curator, vectors, keep, seed, device, numbers)

    monkeypatch.setattr(BalancedClusters, "select", select)
    _train(job)
    assert len(given) == 3
    for ours, theirs in zip(given, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert np.abs(given[0] - given[2]).max() > 1e-3, "each round looks at the archive anew"
    assert job.method.target_encoder is not job.method.encoder


def test_batch_normalisation_is_measured_on_what_is_trained_on(
    archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[list[int]] = []

    def note(encoder: Any, *shown: Any) -> Any:
        measured.append(shown[-2].tolist())
        return calibrated_encoders(encoder, *shown)

    monkeypatch.setattr(round_features, "calibrated_encoders", note)
    _train(plain_job_with_rounds(plain_job, plain_config(*ROUNDS), archive, tmp_path))
    assert measured == [list(range(SAMPLES)), *_pools(tmp_path, archive)[:2]]


def test_every_round_is_drawn_from_the_whole_archive_and_recorded(
    archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path
) -> None:
    job = plain_job_with_rounds(plain_job, plain_config(*ROUNDS, "train.log_every=1"), archive, tmp_path)
    result = _train(job)
    pools = [set(pool) for pool in _pools(tmp_path, archive)]
    assert any(later - earlier for earlier, later in itertools.pairwise(pools)), "nothing came back"
    for number, record in enumerate(_records(tmp_path), start=1):
        assert record["round"] == number
        assert (record["candidates"], record["pool"]) == (SAMPLES, 9)
        assert sum(record["quotas"]) == 9
        assert sum(record["group_sizes"]) == SAMPLES
        assert set(record["seconds"]) == {"embed", "choose", "diagnose"}
        assert record["diagnostics"]["turnover"] is None or 0 <= record["diagnostics"]["turnover"] <= 1
    assert result.metrics["pool"] == 9
    assert result.metrics["curation_seconds"] > 0
    assert list((tmp_path / "curation").glob(".*")) == []


@pytest.mark.slow
def test_samples_that_are_not_offered_are_never_chosen(
    archive: Archive, plain_config: MakeConfig, tmp_path: Path, batches: list[Batch]
) -> None:
    config = plain_config(*ROUNDS)
    offered = np.array([20, 3, 4, 9, 11, 15, 2, 1, 7, 18, 0, 14])
    fabric = make_fabric(config.train, "cpu")
    pretrain(config, archive, tmp_path, fabric, subset=offered)
    assert {int(index) for batch in batches for index in batch.indices} == set(offered.tolist())
    assert all(set(pool) <= set(offered.tolist()) for pool in _pools(tmp_path, archive))


def test_a_share_of_the_archive_is_embedded_where_that_is_asked_for(
    archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path
) -> None:
    config = plain_config(*ROUNDS, "curation.features.share=0.5")
    _train(plain_job_with_rounds(plain_job, config, archive, tmp_path))
    sizes = [sum(record["group_sizes"]) for record in _records(tmp_path)]
    assert sizes == [12, 12, 12]
    assert all(len(pool) == 9 for pool in _pools(tmp_path, archive))


@pytest.mark.slow
def test_a_replaced_pool_reaches_worker_processes(archive: Archive, plain_config: MakeConfig, tmp_path: Path) -> None:
    for workers in (0, 2):
        config = plain_config(*ROUNDS, f"train.workers={workers}")
        _train(make_job(config, archive, tmp_path / str(workers)))
    assert _pools(tmp_path / "2", archive) == _pools(tmp_path / "0", archive)
    _assert_same_weights(tmp_path / "2", tmp_path / "0")


# --------------------------------------------------------------------- the feature bank


def test_the_bank_holds_what_training_last_computed_of_each_sample() -> None:
    memory = FeatureMemory(np.array([2, 5, 7, 9]), features=2)
    memory.update(0, np.array([5, 9]), torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    memory.update(1, np.array([9]), torch.tensor([[0.0, -2.0]]))
    assert memory.state_dict()["bank.steps"].tolist() == [-1, 0, -1, 1]
    assert memory.seen().tolist() == [1, 3]
    torch.testing.assert_close(memory.vectors[1].float(), torch.tensor([0.6, 0.8]), atol=1e-3, rtol=0)
    assert memory.vectors[3].tolist() == [0, -1]
    memory.renew(np.array([1]), torch.tensor([[0.0, 1.0]]).half())
    memory.update(1, np.array([7]), torch.tensor([[1.0, 0.0]]))
    assert memory.state_dict()["bank.steps"].tolist() == [-1, 1, 1, 1]
    assert memory.state_dict()["bank.rounds"].tolist() == [False, True, False, False]
    assert memory.ages.tolist() == [-1, 3, 1, 1], "features from rounds are of an age of their own"
    memory.update(2, np.array([5]), torch.tensor([[1.0, 0.0]]))
    assert not memory.state_dict()["bank.rounds"].any()


def test_a_sample_that_a_batch_holds_twice_keeps_its_last_features() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for seed in range(20):
            indices = np.random.default_rng(seed).integers(0, 50, 256)
            vectors = torch.nn.functional.normalize(torch.randn(256, 512), dim=1)
            memory = FeatureMemory(np.arange(50), features=512)
            memory.update(3, indices, vectors)
            memory.settle()
            for sample in set(indices.tolist()):
                last = int(np.flatnonzero(indices == sample)[-1])
                torch.testing.assert_close(memory.vectors[sample].float(), vectors[last], atol=1e-3, rtol=0)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_bank_is_filled_by_training_and_renewed_at_every_age(
    accumulate: int,
    archive: Archive,
    plain_config: MakeConfig,
    plain_job: MakeJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained: list[list[int]] = []
    renewed: list[tuple[list[int], list[int]]] = []
    note, renew = FeatureMemory.update, FeatureMemory.renew

    def update(memory: FeatureMemory, step: int, indices: NDArray[np.int64], vectors: torch.Tensor) -> None:
        assert len(indices) == len(vectors)
        trained.append(indices.tolist())
        note(memory, step, indices, vectors)

    def from_round(memory: FeatureMemory, rows: NDArray[np.int64], vectors: torch.Tensor) -> None:
        assert len(rows) == len(vectors)
        renewed.append((rows.tolist(), memory.ages.tolist()))
        renew(memory, rows, vectors)

    monkeypatch.setattr(FeatureMemory, "update", update)
    monkeypatch.setattr(FeatureMemory, "renew", from_round)
    bank = ("curation.features=bank", "curation.features.refresh=0.2", f"train.accumulate={accumulate}")
    _train(plain_job_with_rounds(plain_job, plain_config(*ROUNDS, *bank), archive, tmp_path))
    assert [len(indices) for indices in trained] == [8 // accumulate] * 9 * accumulate
    assert sorted(list(itertools.chain.from_iterable(trained))[:SAMPLES]) == list(range(SAMPLES))
    assert len(renewed) == 3
    for rows, ages in renewed:
        assert len(set(rows)) == len(rows) == 16, "as many as an estimate needs, where the share is of fewer"
        assert {ages[row] for row in rows} >= {age for age in ages if ages.count(age) > 1}, "some of every age"
    assert len({tuple(rows) for rows, _ in renewed}) == 3, "each round draws anew"
    assert [sum(record["group_sizes"]) for record in _records(tmp_path)] == [SAMPLES] * 3


@pytest.mark.slow
def test_a_run_that_began_with_a_short_warm_up_goes_on_with_what_its_bank_lacks_embedded(
    archive: Archive, plain_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("curation.features=bank", "curation.features.refresh=0", "curation.warmup=0.3", "curation.keep=0.8")
    config = plain_config(*ROUNDS, *few)
    with pytest.raises(ConfigError, match=r"warmup is 0\.3 passes.*warmup=1 or more.*curation\.features=clean"):
        _pretrain(config, archive, tmp_path)
    with monkeypatch.context() as patch:
        _stop_in_round(1, patch)
        with pytest.raises(KeyboardInterrupt):
            _train(make_job(config, archive, tmp_path))
    _pretrain(config, archive, tmp_path, resume=True)
    assert {len(pool) for pool in _pools(tmp_path, archive)} == {18}


def test_bank_features_are_those_of_the_step(
    archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row of a sample is the embedding of that sample's view, in every micro-batch, until it is renewed."""
    job = plain_job_with_rounds(
        plain_job,
        plain_config(*ROUNDS, "curation.features=bank", "curation.features.refresh=0", "train.accumulate=2"),
        archive,
        tmp_path,
    )
    given: list[torch.Tensor] = []
    monkeypatch.setattr(
        round_features,
        "as_of_today",
        lambda vectors, *rest: (given.append(vectors.clone()), as_of_today(vectors, *rest))[1],
    )
    seen: list[tuple[Batch, torch.Tensor]] = []
    compare = type(job.method).compare
    pending: list[Batch] = []
    read = ViewReader.__getitem__
    monkeypatch.setattr(ViewReader, "__getitem__", lambda self, batch: (pending.append(batch), read(self, batch))[1])

    def note(method: Any, views: Sequence[torch.Tensor]) -> Any:
        output = compare(method, views)
        seen.append((pending[-1], output.embedding))
        return output

    monkeypatch.setattr(type(job.method), "compare", note)
    _train(job)
    expected = {}
    for micro, (batch, embedding) in enumerate(seen[:6]):
        part = batch.indices[(micro % 2) * 4 :][:4]
        expected.update(zip(part.tolist(), torch.nn.functional.normalize(embedding, dim=1).numpy(), strict=True))
    np.testing.assert_allclose(given[0].float(), np.stack([expected[i] for i in range(SAMPLES)]), atol=1e-3)


# ------------------------------------------------------------------------- interrupted


def _stop_in_round(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail in the middle of a round, after the archive was embedded."""
    calls = 0
    choose = BalancedClusters.select

    def select(
        curator: BalancedClusters, vectors: NDArray[Any], keep: int, seed: int, device: str = "cpu", numbers: Any = None
    ) -> Selection:
        nonlocal calls
        calls += 1
        if calls == number:
            raise KeyboardInterrupt
        return choose(curator, vectors, keep, seed, device, numbers)

    monkeypatch.setattr(BalancedClusters, "select", select)


@pytest.mark.slow
@pytest.mark.parametrize("features", ["clean", "bank"])
def test_a_run_that_is_stopped_in_a_round_resumes_to_the_same_bits(
    features: str, archive: Archive, small_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = 'curation.inputs=["s2:B04,B03,B02"]'
    config = small_config(*ROUNDS, f"curation.features={features}", inputs)
    _pretrain(config, archive, tmp_path / "whole")
    with monkeypatch.context() as patch:
        _stop_in_round(2, patch)
        with pytest.raises(KeyboardInterrupt):
            _pretrain(config, archive, tmp_path / "stopped")
    assert checkpoints(tmp_path / "stopped" / "checkpoints")[-1].name == "step-00000005"
    _pretrain(config, archive, tmp_path / "stopped", resume=True)
    _assert_same_state(tmp_path / "stopped", tmp_path / "whole")
    assert _pools(tmp_path / "stopped", archive) == _pools(tmp_path / "whole", archive)
    assert len(_records(tmp_path / "stopped")) == 3


@pytest.mark.slow
def test_a_run_that_is_stopped_between_rounds_resumes_to_the_same_bits(
    archive: Archive, small_config: MakeConfig, tmp_path: Path
) -> None:
    config = small_config(*ROUNDS, 'curation.inputs=["s2:B04,B03,B02"]', "train.evaluate_every=1e-6")
    _pretrain(config, archive, tmp_path / "whole", evaluate=lambda encoder: {})
    calls = 0

    def stop(encoder: Encoder) -> Mapping[str, float]:
        nonlocal calls
        calls += 1
        if calls == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    from terrasieve.errors import TrainingError

    with pytest.raises(TrainingError, match="at step 6 of 9"):
        _pretrain(config, archive, tmp_path / "stopped", evaluate=stop)
    _pretrain(config, archive, tmp_path / "stopped", resume=True, evaluate=lambda encoder: {})
    _assert_same_state(tmp_path / "stopped", tmp_path / "whole")
    assert [record["step"] for record in _records(tmp_path / "stopped")] == ROUND_STEPS


# ------------------------------------------------------------------------------- ranks


def _curate_with_another(store: Path, folder: Path) -> None:
    fabric = make_fabric(conftest.plain_config().train, "cpu")
    fabric.launch()
    assert fabric.world_size == 2
    for features in ("clean", "bank"):
        settings = (f"curation.features={features}", "train.accumulate=2", "train.optimiser.lr=1e-4")
        config = conftest.plain_config(*ROUNDS, *settings)
        with noted_batches(folder / features / f"batches-{fabric.global_rank}.txt"):
            job = plain_job_with_rounds(conftest.plain_job, config, open_archive(store), folder / features)
            assert train(job, fabric).steps == 9

    # With batch normalisation, which every process measures on the same samples.
    seen, embed = [], round_features.embed_batches

    def noted(encoders: Sequence[Encoder], *rest: Any) -> Any:
        seen.append([buffer.double().sum().item() for encoder in encoders for buffer in encoder.buffers()])
        return embed(encoders, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_features, "embed_batches", noted)
        for features in ("clean", "bank"):
            refresh = ["curation.features.refresh=0.5"] if features == "bank" else []
            config = conftest.plain_config(*ROUNDS, f"curation.features={features}", *refresh)
            train(make_job(config, open_archive(store), folder / f"normed-{features}"), fabric)

    # Whatever goes wrong while the first process records, nobody waits for it.
    def fail(*arguments: object) -> None:
        raise OSError("full disk")

    job = make_job(config, open_archive(store), folder / "failing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "write_selection", fail)
        with pytest.raises((OSError, TerrasieveError)) as failed:
            train(job, fabric)
    found = {"buffers": seen, "failure": f"{failed.type.__name__}: {failed.value}"}
    (folder / f"rank-{fabric.global_rank}.json").write_text(json.dumps(found))


class noted_batches:
    """Writes the samples of every step that this process read, one line a step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        self.read, lines = ViewReader.__getitem__, []

        def note(reader: ViewReader, batch: Batch) -> Any:
            lines.append(" ".join(map(str, [batch.step, *batch.indices.tolist()])))
            return self.read(reader, batch)

        self.lines = lines
        ViewReader.__getitem__ = note  # type: ignore[method-assign]

    def __exit__(self, *error: object) -> None:
        ViewReader.__getitem__ = self.read  # type: ignore[method-assign]
        self.path.write_text("\n".join(self.lines))


@pytest.mark.slow
def test_two_ranks_hold_the_same_pool_in_every_round_and_equal_one_process(
    store: Path, archive: Archive, plain_config: MakeConfig, plain_job: MakeJob, tmp_path: Path
) -> None:
    run_ranks(_curate_with_another, store, tmp_path)
    for features in ("clean", "bank"):
        two, one = tmp_path / features, tmp_path / f"one-{features}"
        config = plain_config(*ROUNDS, f"curation.features={features}", "train.optimiser.lr=1e-4")
        with noted_batches(tmp_path / "one.txt"):
            _train(plain_job_with_rounds(plain_job, config, archive, one))
        assert len(_records(two)) == 3
        assert _pools(two, archive) == _pools(one, archive)
        ranks = [_lines(two / f"batches-{rank}.txt") for rank in (0, 1)]
        together = {step: ranks[0][step] + ranks[1][step] for step in ranks[0]}
        # Ranks read two micro-batches of two samples each; one process reads the same eight samples in this order.
        assert together == _lines(tmp_path / "one.txt")
        for first, pool in zip(ROUND_STEPS, _pools(two, archive), strict=True):
            assert sorted((together[first] + together[first + 1])[:9]) == pool, "each sample once a pass"
        torch.testing.assert_close(_weights(two), _weights(one), rtol=1e-5, atol=1e-6)
    found = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert len(found[0]["buffers"][0]) > 3, "running statistics"
    assert found[0]["buffers"] == found[1]["buffers"], "every process embeds with the same network"
    assert [one["failure"] for one in found] == ["OSError: full disk", "CurationError: full disk"]


def _lines(path: Path) -> dict[int, list[int]]:
    rows = [[int(word) for word in line.split()] for line in path.read_text().splitlines()]
    return {step: indices for step, *indices in rows}


# ----------------------------------------------------------------------------- refused


def test_a_run_without_a_round_is_refused(archive: Archive, plain_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"curation\.warmup is 5 passes, but the run ends before the first round"):
        make_job(plain_config("curation.warmup=5"), archive, tmp_path)


def test_a_pool_larger_than_what_is_embedded_is_refused(plain_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"keep is 0\.4, but a round embeds only a share of 0\.3"):
        plain_config("curation.keep=0.4", "curation.features.share=0.3")


def test_a_bank_without_a_warm_up_is_refused(plain_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match="bank is empty before training begins"):
        plain_config("curation.warmup=0", "curation.features=bank")


def test_views_of_several_sensors_need_a_named_input(
    archive: Archive, plain_config: MakeConfig, tmp_path: Path
) -> None:
    mixed = "views.branches.*.picks=[{sensor: optical}, {sensor: radar}]"
    config = plain_config(mixed, "model.channels=2", "curation.warmup=1")
    with pytest.raises(ConfigError, match=r"no obvious input.*curation\.inputs"):
        make_job(config, archive, tmp_path)


def test_a_bank_of_several_inputs_is_refused(archive: Archive, plain_config: MakeConfig, tmp_path: Path) -> None:
    config = plain_config("curation.features=bank", 'curation.inputs=["s2:B03", "s1:VV"]')
    with pytest.raises(ConfigError, match=r"names 2 inputs.*curation\.features=clean"):
        make_job(config, archive, tmp_path)


@pytest.mark.parametrize("drawn", ["picks=[{one_of: [{sensor: optical}, {sensor: radar}]}]", "time=any"])
def test_a_bank_of_a_first_view_that_draws_its_source_is_refused(
    archive: Archive, plain_config: MakeConfig, tmp_path: Path, drawn: str
) -> None:
    config = plain_config(f"views.branches.0.{drawn}", "curation.features=bank")
    with pytest.raises(ConfigError, match=r"draws the sensor or the time at random.*curation\.features=clean"):
        make_job(config, archive, tmp_path)


@pytest.mark.slow
def test_a_full_disk_is_reported_and_the_checkpoint_before_the_round_goes_on(
    archive: Archive, plain_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = plain_config(*ROUNDS)

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(CurationError, match=r"Cannot write .*features.*No space left.*--resume"):
            _pretrain(config, archive, tmp_path)
    assert _pretrain(config, archive, tmp_path, resume=True).steps == 9


# ----------------------------------------------------------------------------- helpers


def plain_job_with_rounds(plain_job: MakeJob, config: RunConfig, archive: Archive, folder: Path) -> TrainingJob:
    """The plain job, whose method has no batch normalisation, with the rounds of its configuration."""
    job = plain_job(config, archive, folder)
    return replace(job, curation=make_job(config, archive, folder).curation)


def _pretrain(config: RunConfig, archive: Archive, folder: Path, resume: bool = False, evaluate: Any = None) -> Any:
    return pretrain(config, archive, folder, make_fabric(config.train, "cpu"), resume=resume, evaluate=evaluate)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(checkpoints(folder / "checkpoints")[-1] / "method.safetensors"))


def _assert_same_weights(folder: Path, expected: Path) -> None:
    ours, theirs = _weights(folder), _weights(expected)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def _assert_same_state(folder: Path, expected: Path) -> None:
    for name in ("method", "optimiser", "run"):
        ours, theirs = (
            load_file(checkpoints(path / "checkpoints")[-1] / f"{name}.safetensors") for path in (folder, expected)
        )
        assert list(ours) == list(theirs)
        assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []
