"""Streaming statistics against numpy on all pixels at once."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from terrasieve.archive.statistics import StreamingStatistics, measure, statistics_of
from terrasieve.errors import BandError
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

BANDS = ("a", "b", "c")


def _stream(samples: list[NDArray[Any]], nodata: float | None = None) -> StreamingStatistics:
    sums = StreamingStatistics(len(BANDS), nodata)
    for pixels in samples:
        sums.update(pixels)
    return sums


def _draw(seed: int, count: int, offset: float = 0.0, scale: float = 1.0) -> list[NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 7, (count, 2)).tolist()
    return [rng.normal(offset, scale, (len(BANDS), *size)) for size in sizes]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 6),
    offset=st.sampled_from([0.0, 1e6, -1e6]),
    scale=st.sampled_from([1e-2, 1.0, 1e3]),
    gaps=st.floats(0, 0.6),
)
def test_equals_numpy_with_gaps_left_out(seed: int, count: int, offset: float, scale: float, gaps: float) -> None:
    samples = _draw(seed, count, offset, scale)
    rng = np.random.default_rng(seed + 1)
    for pixels in samples:
        absent = rng.random(pixels.shape)
        pixels[absent < gaps] = np.nan
        pixels[absent < gaps / 2] = -99.0
        pixels[absent < gaps / 4] = np.inf
    everything = np.concatenate([pixels.reshape(len(BANDS), -1) for pixels in samples], axis=1)
    for row, found in zip(everything, _stream(samples, nodata=-99.0).result(BANDS), strict=True):
        valid = row[np.isfinite(row) & (row != -99.0)]
        assert found.count == valid.size
        if valid.size:
            assert found.mean == pytest.approx(valid.mean(), rel=1e-12, abs=1e-12 * scale)
            assert found.std == pytest.approx(valid.std(), rel=1e-6 if offset else 1e-10, abs=1e-12)
            assert (found.minimum, found.maximum) == (valid.min(), valid.max())
        else:
            assert (found.mean, found.std, found.minimum, found.maximum) == (0, 0, 0, 0)


def test_large_mean_does_not_swallow_the_spread() -> None:
    samples = [np.array([[[1e9, 1e9 + 1]]] * 3), np.array([[[1e9 + 2, 1e9 + 3]]] * 3)]
    for found in _stream(samples).result(BANDS):
        assert found.std == pytest.approx(np.std([0, 1, 2, 3]), rel=1e-12)


@given(seed=st.integers(0, 2**32), count=st.integers(2, 12))
@settings(deadline=None, max_examples=25)
def test_order_does_not_matter(seed: int, count: int) -> None:
    samples = _draw(seed, count, offset=2000.0, scale=300.0)
    shuffled = [samples[i] for i in np.random.default_rng(seed).permutation(count)]
    for one, other in zip(_stream(samples).result(BANDS), _stream(shuffled).result(BANDS), strict=True):
        assert one.mean == pytest.approx(other.mean, rel=1e-12)
        assert one.std == pytest.approx(other.std, rel=1e-12)


def test_state_survives_json_to_the_last_bit() -> None:
    samples = _draw(3, 9, offset=1 / 3)
    first = _stream(samples[:4])
    resumed = StreamingStatistics.from_state(json.loads(json.dumps(first.state())))
    for pixels in samples[4:]:
        resumed.update(pixels)
    assert resumed.result(BANDS) == _stream(samples).result(BANDS)
    untouched = StreamingStatistics.from_state(json.loads(json.dumps(StreamingStatistics(3).state())))
    untouched.update(samples[0])
    assert untouched.result(BANDS) == _stream(samples[:1]).result(BANDS)


def test_integers_do_not_overflow() -> None:
    found = _stream([np.full((3, 64, 64), 65535, dtype=np.uint16)] * 3).result(BANDS)[0]
    assert (found.mean, found.std, found.count) == (65535.0, 0.0, 3 * 64 * 64)


def test_measure_takes_the_chosen_samples_and_sensors() -> None:
    archive = SimulatedArchive(SimulatedSpec(samples=6, size=32))
    found = measure(archive, sensors=["s1"], indices=[4, 1])
    assert list(found) == ["s1"]
    pixels = np.stack([archive.read(i, "s1") for i in (4, 1)]).astype(np.float64)
    assert [row.band for row in found["s1"]] == ["VV", "VH"]
    np.testing.assert_allclose([row.mean for row in found["s1"]], pixels.mean(axis=(0, 2, 3)), rtol=1e-12)


def test_measure_names_the_sensor_meant() -> None:
    with pytest.raises(BandError, match="Did you mean 's1'"):
        measure(SimulatedArchive(SimulatedSpec(samples=1)), sensors=["s11"])


def test_stored_statistics_are_taken_as_they_are() -> None:
    class Stored(SimulatedArchive):
        statistics = {"s2": ()}  # noqa: RUF012

    archive = Stored(SimulatedSpec(samples=1))
    assert statistics_of(archive) is Stored.statistics
    assert set(statistics_of(SimulatedArchive(SimulatedSpec(samples=1, size=32)))) == {"s2", "s1", "land_cover"}
