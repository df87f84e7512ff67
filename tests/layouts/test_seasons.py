"""Seasons as views: one sample a location, each season's pixels under a sensor of its own."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from small_archives.ssl4eo_s12 import DAYS, write_scene
from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.derived.seasons import SeasonViews
from terrasieve.archive.layouts.ssl4eo_s12 import Ssl4eoS12Archive, Ssl4eoS12Spec
from terrasieve.archive.opening import open_archive
from terrasieve.errors import ArchiveError, BandError


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole locations and one of three seasons; a pixel says place, season and band."""
    root = tmp_path_factory.mktemp("seasons")
    for place, location in enumerate(("0000000", "0000004", "0000009")):
        for season, day in enumerate(DAYS[: 3 if place == 2 else 4]):
            first = 1000 * place + 100 * season + 1

            def pixels(number: int, step: int, first: int = first) -> NDArray[np.uint16]:
                return np.full((264 // step, 264 // step), first + number, np.uint16)

            write_scene(root, "s2a", location, day, pixels)
    return root


def views(root: Path) -> SeasonViews:
    archive = Ssl4eoS12Spec(root=root, seasons="views").open()
    assert isinstance(archive, SeasonViews)
    return archive


def test_a_location_is_a_sample_with_every_seasons_pixels(published: Path) -> None:
    archive = views(published)
    assert archive.ids.tolist() == ["0000000", "0000004"]
    assert list(archive.sensors) == [f"s2a-{season}" for season in range(4)]
    for place in range(2):
        for season in range(4):
            pixels = archive.read(place, f"s2a-{season}", ["B03", "B12"])
            assert np.unique(pixels[0]) == 1000 * place + 100 * season + 3
            assert np.unique(pixels[1]) == 1000 * place + 100 * season + 12
    assert archive.shape(1, "s2a-3") == (264, 264)


def test_a_location_that_lacks_a_season_is_listed(published: Path) -> None:
    (lost,) = views(published).rejected
    assert lost.id == "0000009"
    assert "3 of 4 seasons" in lost.reason


def test_the_table_has_the_time_and_the_files_of_every_season(published: Path) -> None:
    (row, _) = views(published).table().to_pylist()
    assert row["id"] == row["location"] == "0000000"
    assert [row[f"time:s2a-{season}"].strftime("%Y%m%d") for season in range(4)] == list(DAYS)
    assert all(DAYS[season] in row[f"asset:s2a-{season}"] for season in range(4))
    assert "season" not in row


def test_as_samples_it_is_another_archive_of_the_same_files(published: Path) -> None:
    samples = Ssl4eoS12Spec(root=published).open()
    assert isinstance(samples, Ssl4eoS12Archive)
    assert len(samples) == 11
    assert samples.source["fingerprint"] != views(published).source["fingerprint"]


def test_it_is_pickled_and_catalogued(published: Path, tmp_path: Path) -> None:
    archive = pickle.loads(pickle.dumps(views(published)))
    np.testing.assert_array_equal(archive.read(1, "s2a-2", ["B8A"]), views(published).read(1, "s2a-2", ["B8A"]))
    index_archive(archive, tmp_path / "c.parquet", max_bad=0.5)
    assert list(open_archive(tmp_path / "c.parquet").sensors) == list(archive.sensors)


def test_wrong_questions_are_answered(published: Path, tmp_path: Path) -> None:
    with pytest.raises(BandError, match=r"no sensor 's2a-4'"):
        views(published).read(0, "s2a-4")
    with pytest.raises(IndexError):
        views(published).read(2, "s2a-0")
    with pytest.raises(ArchiveError, match="holds none of"):
        views(tmp_path)
