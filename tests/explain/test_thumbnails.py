"""Pictures in a page are small, share a stretch and show what they should."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from terrasieve.explain.subject import data_uri, overlay, read_album
from terrasieve.probes.splits import make_splits


def decoded(uri: str) -> np.ndarray:
    head, payload = uri.split(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(payload)))) / 255


def test_a_picture_survives_its_uri() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 40)[None, :, None], (30, 40, 3)).copy()
    ramp[..., 2] = 0.25
    seen = decoded(data_uri(ramp, 64, quality=90))
    assert seen.shape == (30, 40, 3)
    assert np.abs(seen - ramp).mean() < 0.03
    assert decoded(data_uri(ramp, 20)).shape == (15, 20, 3)
    assert len(data_uri(np.random.default_rng(0).uniform(size=(40, 40, 3)), 40)) < 4000


def test_values_outside_are_clipped_and_not_wrapped() -> None:
    seen = decoded(data_uri(np.stack([np.full((8, 8), value) for value in (1.5, -0.5, 0.5)], axis=2), 8))
    assert seen.mean(axis=(0, 1)) == pytest.approx([1, 0, 0.5], abs=0.05)


def test_overlay_is_grey_where_the_map_is_least_and_bright_where_it_is_greatest() -> None:
    picture = np.broadcast_to([0.9, 0.3, 0.0], (8, 8, 3))
    saliency = np.zeros((4, 4))
    saliency[:2] = 7.0
    laid = overlay(picture, saliency, alpha=1.0)
    assert laid[-1] == pytest.approx(np.full((8, 3), 0.4))
    assert (laid[0] == laid[0, 0]).all()
    assert laid[0, 0] == pytest.approx([0.988, 1.0, 0.645], abs=0.01)
    assert overlay(picture, np.ones((4, 4))) == pytest.approx(np.full((8, 8, 3), 0.4))


def test_an_album_shares_a_stretch_and_reads_once(archive: Any) -> None:
    archive.pixels[:] = 1000.0
    archive.pixels[1] = 2000.0
    archive.pixels[2] = 3000.0
    splits = make_splits(archive.table())
    album = read_album(archive, "s2", np.array([2, 1, 0, 1]), splits, size=16)
    assert set(archive.reads.values()) == {1}
    means = [album.pictures[index].mean() for index in (0, 1, 2)]
    assert means == sorted(means)
    assert means[1] - means[0] > 0.2
    thumbnail = album.thumbnail(1)
    assert (thumbnail.id, thumbnail.label) == ("tile-1", "class-1")
    assert decoded(thumbnail.picture).shape == (16, 16, 3)
