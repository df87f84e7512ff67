from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

from terrasieve.errors import CollapseError, NonFiniteError
from terrasieve.methods.collapse import CollapseMonitor, CollapseReading, CollapseSign, effective_rank, feature_std
from terrasieve.models.backbone import BackboneSpec, build_encoder


def _normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def _check(monitor: CollapseMonitor) -> CollapseReading:
    reading = monitor.measure()
    monitor.judge(reading)
    return reading


def _watch(monitor: CollapseMonitor, embedding: Tensor, times: int = 3) -> None:
    for _ in range(times):
        monitor.update(embedding)
        _check(monitor)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 40), d=st.integers(1, 40), seed=st.integers(0, 99))
def test_rank_equals_the_definition(n: int, d: int, seed: int) -> None:
    x = _normal(n, d, seed) * torch.linspace(0.1, 3, d) + 5
    values = np.linalg.svd((x.double() - x.double().mean(0)).numpy(), compute_uv=False)
    shares = values[values > 1e-9] / values.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert float(effective_rank(x)) == pytest.approx(expected, rel=1e-4)
    assert float(effective_rank(x)) * (1 + 1e-9) >= 1
    assert float(effective_rank(x)) <= min(n - 1, d) * (1 + 1e-9)


@pytest.mark.parametrize("rank", [1, 2, 7])
def test_rank_counts_equal_directions(rank: int) -> None:
    signs = torch.cat([torch.eye(rank), -torch.eye(rank)])
    basis = torch.linalg.qr(_normal(20, rank).double()).Q
    assert float(effective_rank(signs.double() @ basis.T)) == pytest.approx(rank)


def test_rounding_is_not_variety() -> None:
    constant = torch.full((64, 100), 0.1) + 1e-9 * _normal(64, 100)
    assert float(effective_rank(constant)) == 0
    assert float(effective_rank(torch.zeros(64, 100))) == 0


def test_std_equals_the_definition() -> None:
    x = _normal(50, 12).abs()
    unit = x.double() / x.double().norm(dim=1, keepdim=True)
    expected = np.std(unit.numpy(), axis=0).mean() * np.sqrt(12)
    assert float(feature_std(x)) == pytest.approx(expected, rel=1e-5)


def test_std_ranges_from_zero_to_one() -> None:
    assert float(feature_std(_normal(4000, 64))) == pytest.approx(1, abs=0.01)
    assert float(feature_std(torch.ones(10, 64) * torch.arange(1, 11)[:, None])) == pytest.approx(0, abs=1e-6)
    assert float(feature_std(torch.zeros(10, 64))) == 0


def test_one_row_does_not_vary() -> None:
    assert float(feature_std(_normal(1, 8))) == 0
    assert float(effective_rank(_normal(1, 8))) == 0


def test_fires_on_a_constant_encoder() -> None:
    encoder = build_encoder(BackboneSpec(name="resnet18"), seed=0)
    last = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    nn.init.zeros_(last.weight)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    nn.init.ones_(last.bias)
    with torch.no_grad():
        embedding = encoder(torch.randn(32, 1, 32, 32))
    assert embedding.abs().min() > 0
    with pytest.raises(CollapseError, match=r"nearly the same vector.*feature std 0\.0000"):
        _watch(CollapseMonitor(), embedding)


def test_fires_on_a_constant_that_drifts() -> None:
    """A random walk of one vector has full rank and a large spread when the steps are taken together."""
    monitor, steps = CollapseMonitor(), _normal(40, 64).cumsum(0)
    assert float(feature_std(steps.repeat_interleave(16, 0))) > 0.3
    assert float(effective_rank(steps.repeat_interleave(16, 0))) > 3
    for step in steps:
        monitor.update(step.expand(16, -1))
    _check(monitor)
    _check(monitor)
    with pytest.raises(CollapseError, match=r"nearly the same vector.*feature std 0\.0000.*effective rank 0\.00"):
        _check(monitor)


def test_drift_hides_no_line_and_counts_as_no_variety() -> None:
    monitor, line = CollapseMonitor(), _normal(1, 40, seed=1)
    for offset in _normal(8, 40, seed=2) * 50:
        monitor.update(_normal(16, 1, seed=3) * line + offset)
    assert monitor.measure().rank == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("rows", [2, 8, 64])
def test_the_size_of_updates_changes_no_reading(rows: int) -> None:
    monitor, features = CollapseMonitor(), _normal(512, 24) + 2
    for part in features.split(rows):
        monitor.update(part)
    reading = monitor.measure()
    assert reading.std == pytest.approx(float(feature_std(features)), rel=0.05)
    assert reading.rank == pytest.approx(float(effective_rank(features)), rel=0.05)


def test_fires_on_a_line() -> None:
    line = _normal(64, 1) * _normal(1, 40, seed=1)
    assert float(feature_std(line)) > 0.5
    with pytest.raises(CollapseError, match=r"varies along a line.*effective rank 1\.00"):
        _watch(CollapseMonitor(), line)


def test_stays_quiet_on_random_features() -> None:
    monitor = CollapseMonitor()
    for seed in range(6):
        monitor.update(_normal(64, 512, seed))
        reading = _check(monitor)
    assert reading.std > 0.9
    assert reading.rank > 100


def test_stays_quiet_on_an_untrained_encoder_and_real_pixels(data_dir: Path) -> None:
    with rasterio.open(sorted((data_dir / "la_texas_pairs" / "s1").glob("*.tif"))[0]) as scene:
        pixels = torch.from_numpy(scene.read(1)[:256, :256]).float()
    tiles = pixels.unfold(0, 32, 32).unfold(1, 32, 32).reshape(-1, 1, 32, 32)
    tiles = (tiles - tiles.mean()) / tiles.std()
    encoder = build_encoder(BackboneSpec(name="resnet18"), seed=0)
    with torch.no_grad():
        _watch(CollapseMonitor(), torch.cat([encoder(batch) for batch in tiles.split(32)]))


def test_waits_for_bad_readings_in_a_row() -> None:
    constant, varied = torch.ones(32, 8), _normal(32, 8)
    monitor = CollapseMonitor(patience=3, capacity=32)
    for embedding in (constant, constant, varied, constant, constant):
        monitor.update(embedding)
        _check(monitor)
    monitor.update(constant)
    with pytest.raises(CollapseError, match="in 3 readings running"):
        _check(monitor)


SIGN = CollapseSign("two metrics agree on it", {"first": (0, 0.1), "second": (-math.inf, 0.5)})


def test_a_sign_is_told_once_and_again_after_it_was_gone() -> None:
    monitor = CollapseMonitor(patience=2, signs=(SIGN,))
    bad, good = {"first": 0.05, "second": 0.2}, {"first": 0.05, "second": 0.6}
    told = [monitor.warnings(metrics) for metrics in (bad, good, bad, bad, bad, good, bad, bad)]
    assert [len(sentences) for sentences in told] == [0, 0, 0, 1, 0, 0, 0, 1]
    assert "two metrics agree on it (first 0.05, second 0.2, in 2 readings running)" in told[3][0]


def test_a_sign_is_not_shown_by_metrics_that_are_absent_or_not_numbers() -> None:
    assert not SIGN.is_shown({"first": 0.05})
    assert not SIGN.is_shown({"first": math.nan, "second": 0.2})
    assert SIGN.is_shown({"first": 0.1, "second": 0.5})


def test_few_rows_are_measured_but_not_judged() -> None:
    monitor = CollapseMonitor(patience=1)
    monitor.update(torch.ones(31, 8))
    assert _check(monitor) == (pytest.approx(0, abs=1e-6), 0)
    monitor.update(torch.ones(1, 8))
    with pytest.raises(CollapseError):
        _check(monitor)


def test_keeps_the_last_rows_only() -> None:
    monitor = CollapseMonitor(capacity=8)
    rows = _normal(21, 4)
    for part in rows.split(5):
        monitor.update(part)
    assert torch.equal(monitor.state_dict()["ring"], rows[-8:])


def test_keeps_no_graph_and_no_alias() -> None:
    monitor = CollapseMonitor()
    embedding = _normal(32, 4).requires_grad_()
    monitor.update(embedding)
    with torch.no_grad():
        embedding.zero_()
    ring = monitor.state_dict()["ring"]
    assert not ring.requires_grad
    assert ring.abs().sum() > 0


def test_nan_is_an_error_of_its_own() -> None:
    monitor = CollapseMonitor()
    monitor.update(torch.full((32, 4), torch.nan))
    assert math.isnan(monitor.measure().std)
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        _check(monitor)


@pytest.mark.parametrize("updates", [0, 1, 3])
def test_state_survives_a_checkpoint(updates: int) -> None:
    first, second = CollapseMonitor(capacity=40), CollapseMonitor(capacity=40)
    for update in range(updates):
        first.update(torch.ones(32, 4))
        if update < 2:
            _check(first)
    state = first.state_dict()
    second.load_state_dict({**state, **load(save({"ring": state["ring"].contiguous()}))})
    for monitor in (first, second):
        monitor.update(_normal(8, 4))
    assert torch.equal(first.state_dict()["ring"], second.state_dict()["ring"])
    assert first.state_dict()["sizes"] == second.state_dict()["sizes"]
    assert first.measure() == second.measure()
    assert first.state_dict()["bad_readings"] == second.state_dict()["bad_readings"] == min(updates, 2)


def test_an_old_state_is_one_update_without_signs() -> None:
    monitor, rows = CollapseMonitor(signs=(SIGN,)), _normal(40, 8)
    monitor.load_state_dict({"ring": rows, "bad_readings": 2})
    assert monitor.measure().std == pytest.approx(float(feature_std(rows)), rel=0.05)
    assert monitor.warnings({"first": 0, "second": 0}) == []
