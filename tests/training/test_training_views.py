"""A run keeps pictures of what it learns from, and the views are those of its first step."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from terrasieve.archive.protocol import Archive
from terrasieve.config import RunConfig
from terrasieve.errors import ArchiveError
from terrasieve.explain.training_views import (
    SHEET,
    VIEWED,
    make_training_views,
    read_training_views,
    write_training_views,
)
from terrasieve.pretraining import make_job
from terrasieve.training.pool import Batch, ViewReader
from terrasieve.views.render import render


def _pixels(picture: str) -> np.ndarray:
    content = base64.b64decode(picture.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)), dtype=np.float64)


def test_views_are_those_of_the_first_step_with_the_bands_that_were_drawn(
    archive: Archive, small_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    job = make_job(small_config(), archive, tmp_path, subset=np.arange(1, len(archive)))
    found = make_training_views(job)
    assert found.samples == len(archive) - 1
    assert len(found.sheet) == min(SHEET, found.samples)
    assert len(found.viewed) == VIEWED
    names = archive.ids.tolist()
    indices = np.array([names.index(one.id) for one in found.viewed])
    assert 0 not in indices
    views = render(ViewReader(archive, job.planner, VIEWED)[Batch(0, indices, 0)], job.normaliser)
    for position, one in enumerate(found.viewed):
        assert [seen.name for seen in one.sensors] == list(archive.sensors)
        for view, picture, spec in zip(views, one.views, job.planner.recipe.views, strict=True):
            assert picture.name == spec.name
            planes = view[position, :3].numpy()
            shown = _pixels(picture.picture).mean(axis=2)
            assert shown.shape == planes.shape[1:]
            # JPEG loses a little, of colour more than of brightness.
            expected = np.clip(planes / 5 + 0.5, 0, 1).mean(axis=0)
            assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.95
    channels = job.planner.channels
    assert all(
        set(picture.bands) <= {":".join(band) for band in offered}
        for one in found.viewed
        for picture, offered in zip(one.views, channels, strict=True)
    )
    write_training_views(found, tmp_path)
    assert read_training_views(tmp_path) == found


def test_damaged_views_name_their_file(tmp_path: Path) -> None:
    (tmp_path / "views.json").write_text('{"samples": 3, "sheet": [], "viewed": 7}', encoding="utf-8")
    with pytest.raises(ArchiveError, match=r"views\.json holds no views of this version"):
        read_training_views(tmp_path)
