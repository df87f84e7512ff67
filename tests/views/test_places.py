"""Temporal partners: which other samples of its place a view shows, and that it shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from small_archives.ssl4eo_s12 import DAYS, write_scene
from terrasieve.archive.layouts.ssl4eo_s12 import Ssl4eoS12Spec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive
from terrasieve.config import load_config
from terrasieve.errors import ArchiveError
from terrasieve.pretraining import make_job
from terrasieve.sensors import BandStatistics
from terrasieve.training.pool import Batch, ViewReader
from terrasieve.views.places import Places
from terrasieve.views.plan import ViewPlanner
from terrasieve.views.recipe import BandPick, Time, ViewRecipe, ViewSpec
from terrasieve.views.render import Normaliser, render

SEASONS = (4, 3, 1)
"""Number of seasons of each place of the archive below."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Three places; a pixel says place, season and band."""
    root = tmp_path_factory.mktemp("places")
    for place, count in enumerate(SEASONS):
        for season, day in enumerate(DAYS[:count]):
            first = 1000 * place + 100 * season + 1

            def pixels(number: int, step: int, first: int = first) -> NDArray[np.uint16]:
                return np.full((264 // step, 264 // step), first + number, np.uint16)

            write_scene(root, "s2a", f"000000{place}", day, pixels)
    return Ssl4eoS12Spec(root=root).open()


@given(
    locations=st.lists(st.integers(0, 4), min_size=1, max_size=30),
    draw=st.floats(0, 1, exclude_max=True),
    step=st.integers(1, 5),
)
def test_a_partner_is_of_the_same_place_and_another_where_there_is_one(
    locations: list[int], draw: float, step: int
) -> None:
    samples, named = np.arange(len(locations)) * step, np.array(locations)
    places, draws = Places(samples, named), np.full(len(samples), draw)
    for time in ("other", "any"):
        chosen = places.choose(samples, time, draws)
        assert np.array_equal(named[chosen // step], named)
        alone = (named[:, None] == named).sum(axis=1) == 1
        assert (chosen[alone] == samples[alone]).all()
        assert time == "any" or (chosen[~alone] != samples[~alone]).all()


@pytest.mark.parametrize(("time", "wanted"), [("other", [0, 2, 6]), ("any", [0, 2, 4, 6])])
def test_every_acquisition_of_a_place_is_as_likely(time: Time, wanted: list[int]) -> None:
    places = Places(np.arange(8), np.array([7, 3, 7, 3, 7, 3, 7, 9]))
    chosen = places.choose(np.full(6000, 4), time, np.random.default_rng(0).random(6000))
    found, counts = np.unique(chosen, return_counts=True)
    assert found.tolist() == wanted
    assert stats.chisquare(counts).pvalue > 0.001


def _shown(archive: Archive, *times: Time | None, step: int = 0) -> list[NDArray[np.int64]]:
    """Of each view the place ``(n, 2)`` and season that every sample of the archive shows."""
    pick = BandPick(sensor="s2a", bands="B03")
    branches = tuple(ViewSpec(name=f"v{i}", picks=(pick,), size=8, time=time) for i, time in enumerate(times))
    planner = ViewPlanner(ViewRecipe(branches=branches), archive.sensors, seed=0)
    everything = np.arange(len(archive))
    reader = ViewReader(archive, planner, len(archive), Places.of(archive, everything))
    unit = tuple(
        BandStatistics(band=name, count=1, mean=0, std=1, minimum=0, maximum=1) for name in archive.sensors["s2a"].names
    )
    views = render(reader[Batch(step, everything, 0)], Normaliser(archive.sensors, {"s2a": unit}))
    values = [view.amax(dim=(1, 2, 3)).round().long().numpy() for view in views]
    return [np.stack([value // 1000, value % 1000 // 100], axis=1) for value in values]


def test_a_view_shows_the_time_that_it_asks_for(archive: Archive) -> None:
    own, other, drawn = _shown(archive, None, "other", "any")
    assert own.tolist() == [[place, season] for place, count in enumerate(SEASONS) for season in range(count)]
    assert (other[:, 0] == own[:, 0]).all()
    assert (drawn[:, 0] == own[:, 0]).all()
    assert (other[:-1, 1] != own[:-1, 1]).all()
    assert other[-1].tolist() == own[-1].tolist()
    again = _shown(archive, None, "other", "any")
    assert all(np.array_equal(first, second) for first, second in zip(again, (own, other, drawn), strict=True))
    assert any((_shown(archive, "other", step=step)[0] != _shown(archive, "other")[0]).any() for step in range(1, 4))


def test_partners_are_of_the_samples_of_the_run_alone(archive: Archive, tmp_path: Path) -> None:
    config = load_config(
        "rs-byol-1-ms-only-small", ["views.branches.second.time=other", "model.name=test_resnet", "train.batch_size=2"]
    )
    pool = np.array([0, 2, 3, 7])
    job = make_job(config, archive, tmp_path, subset=pool)
    assert job.places is not None
    chosen = job.places.choose(np.tile(pool, 50), "other", np.random.default_rng(0).random(200))
    assert set(chosen.tolist()) == set(pool.tolist())


def test_an_archive_without_places_or_with_one_time_of_each_is_refused(archive: Archive) -> None:
    with pytest.raises(ArchiveError, match=r"no column 'location'.*time=null"):
        Places.of(open_archive("simulated:0:8"), np.arange(8))
    with pytest.raises(ArchiveError, match="no place with two of the 3 samples"):
        Places.of(archive, np.array([1, 5, 7]))
