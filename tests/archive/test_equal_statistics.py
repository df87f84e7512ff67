"""Image statistics do not tell the classes of the simulated worlds: all classes have those of one family."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from terrasieve.probes.models import ImageStatistics
from terrasieve.simulation.equal_statistics import PictureStatistics, distribute, draw_target, match, shape_spectrum
from terrasieve.simulation.land import SimulatedSpec
from terrasieve.simulation.sea import SimulatedOceanSpec

COUNT, TRAIN = 600, 420
LIMITS = {"land": 0.2, "ocean": 0.3}
"""Share of the variance of a statistic that classes may explain. Spectra of the ocean fall more steeply, and the noise
of a radar flattens those of smooth classes the most."""
PLAIN = PictureStatistics(slope=1.5, octaves=(0.0,) * 6, skew=0.0, tail=1.0)


class World(NamedTuple):
    """Balanced samples: standardised pixels ``(n, bands, 64, 64)``, and the class of each."""

    pixels: NDArray[np.float32]
    labels: NDArray[np.str_]


@pytest.fixture(scope="module")
def land() -> World:
    archive = SimulatedSpec(seed=2, samples=COUNT, zipf=0, redundancy=0).open()
    bands = ("B02", "B03", "B04", "B08", "B11")
    pixels = [
        np.concatenate([archive.read(i, "s2", bands).astype(np.float32), archive.read(i, "s1")]) for i in range(COUNT)
    ]
    return World(_standardised(np.stack(pixels)), np.array(archive.table()["label"].to_pylist()))


@pytest.fixture(scope="module")
def ocean() -> World:
    archive = SimulatedOceanSpec(seed=2, samples=COUNT, zipf=0).open()
    pixels = np.stack([archive.read(i, "s1") for i in range(COUNT)])
    return World(_standardised(pixels), np.array(archive.table()["label"].to_pylist()))


def _standardised(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    known = pixels[:TRAIN]
    return (pixels - known.mean((0, 2, 3), keepdims=True)) / known.std((0, 2, 3), keepdims=True)


@pytest.mark.slow
@pytest.mark.parametrize("world", ["land", "ocean"])
def test_image_statistics_are_right_in_less_than_three_of_five(world: str, request: pytest.FixtureRequest) -> None:
    pixels, labels = request.getfixturevalue(world)
    with torch.inference_mode():
        statistics = ImageStatistics()(torch.from_numpy(pixels)).numpy()
    for probe in (LogisticRegression(max_iter=500), KNeighborsClassifier(20)):
        fitted = make_pipeline(StandardScaler(), probe).fit(statistics[:TRAIN], labels[:TRAIN])
        assert fitted.score(statistics[TRAIN:], labels[TRAIN:]) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("world", ["land", "ocean"])
def test_classes_explain_little_of_level_contrast_and_slope(world: str, request: pytest.FixtureRequest) -> None:
    pixels, labels = request.getfixturevalue(world)
    first = pixels[:, 0]
    measured = {"mean": first.mean((1, 2)), "std": np.log(first.std((1, 2))), "slope": [_slope(one) for one in first]}
    for name, values in measured.items():
        assert _explained(np.asarray(values), labels) < LIMITS[world], name


def _explained(values: NDArray[np.floating], labels: NDArray[np.str_]) -> float:
    """Share of the variance between classes."""
    means = {label: values[labels == label].mean() for label in np.unique(labels)}
    return float(np.var([means[label] for label in labels]) / values.var())


def _slope(picture: NDArray[np.floating]) -> float:
    """Slope of the logarithm of power over that of frequency, from 2 cycles a picture to a quarter a pixel."""
    size = len(picture)
    power = np.abs(np.fft.rfft2(picture)) ** 2
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]) * size
    rings = [(low <= radius) & (radius < low + 1) for low in range(2, size // 4)]
    return float(np.polyfit(np.log(range(2, size // 4)), [np.log(power[ring].mean()) for ring in rings], 1)[0])


# ------------------------------------------------------------------------ the match itself


@pytest.mark.parametrize("slope", [0.8, 2.0])
def test_a_spectrum_takes_the_slope_whatever_it_was(slope: float) -> None:
    rng = np.random.default_rng(3)
    for picture in (rng.standard_normal((64, 64)), np.cumsum(np.cumsum(rng.standard_normal((64, 64)), 0), 1)):
        target = PictureStatistics(**{**vars(PLAIN), "slope": slope})
        assert _slope(shape_spectrum(picture.astype(np.float32), target)) == pytest.approx(-slope, abs=0.1)
        assert _slope(match(picture.astype(np.float32), target)) == pytest.approx(-slope, abs=0.3)


def test_phases_and_directions_stay() -> None:
    rows, columns = np.mgrid[:64, :64] / 64
    stripes = np.sign(np.sin(2 * np.pi * (5 * rows + 3 * columns)) + 0.3).astype(np.float32)
    stripes += 0.1 * np.random.default_rng(1).standard_normal((64, 64), dtype=np.float32)
    matched = match(stripes, PLAIN)
    before, after = (np.fft.rfft2(each)[5, 3] for each in (stripes, matched))
    assert abs(np.angle(after / before)) < 0.05
    # A period along the stripes' normal is the strongest of its ring by far.
    ring = np.abs(np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None, :]) * 64 - np.hypot(5, 3)) < 0.5
    power = np.abs(np.fft.rfft2(matched)) ** 2
    assert power[5, 3] > 0.5 * power[ring].sum()


def test_values_take_the_distribution_in_their_order() -> None:
    rng = np.random.default_rng(0)
    picture = rng.standard_gamma(1.0, (32, 32)).astype(np.float32)
    values = np.sort(rng.standard_normal(1024)).astype(np.float32)
    given = distribute(picture, values)
    np.testing.assert_array_equal(np.sort(given, axis=None), values)
    assert stats.spearmanr(given, picture, axis=None).statistic > 0.99999
    seen = {
        tuple(np.round(np.percentile(match(one.astype(np.float32), PLAIN), (1, 50, 99)), 5))
        for one in (picture, rng.standard_normal((32, 32)))
    }
    assert len(seen) == 1


def test_targets_differ_and_are_the_generators() -> None:
    one, same, other = (draw_target(np.random.default_rng(seed), (1.0, 2.0)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert 1 <= one.slope <= 2
