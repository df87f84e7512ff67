"""The peers of the throughput benchmark train on the same images."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from peer_lightly import Peer, SceneBatches, ScenePairs
from peer_torchgeo import TorchgeoPeer
from terrasieve.views.recipe import Augmentation


@pytest.fixture
def pairs(tmp_path: Path) -> ScenePairs:
    rng = np.random.default_rng(0)
    for sensor, bands in (("s2", 3), ("s1", 1)):
        (tmp_path / sensor).mkdir()
        pixels = rng.integers(0, 255, size=(bands, 64, 96), dtype=np.uint8)
        profile = {"driver": "GTiff", "width": 96, "height": 64, "count": bands, "dtype": "uint8"}
        with rasterio.open(tmp_path / sensor / "scene.tif", "w", **profile) as scene:
            scene.write(pixels)
    return ScenePairs(tmp_path, 32, 16, Augmentation())


def test_batches_have_no_end_and_two_views(pairs: ScenePairs) -> None:
    batches = SceneBatches(pairs, 4, workers=0)
    shapes = [[tuple(view.shape) for view in next(batches)] for _ in range(3)]
    assert len(pairs) == 6
    assert shapes == [[(4, 1, 16, 16)] * 2] * 3


def test_both_peers_learn_in_a_step(pairs: ScenePairs) -> None:
    lightly = Peer(pairs, "test_resnet", 4, 0)
    before = [p.detach().clone() for p in lightly.model.backbone.parameters()]
    lightly.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, lightly.model.backbone.parameters(), strict=True))
    torchgeo = TorchgeoPeer(pairs, "test_resnet", 16, 4, 0)
    before = [p.detach().clone() for p in torchgeo.task.model.backbone.parameters()]
    torchgeo.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, torchgeo.task.model.backbone.parameters(), strict=True))


def test_torchgeo_is_shown_the_whole_tiles_and_augments_them_itself(
    pairs: ScenePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = TorchgeoPeer(pairs, "test_resnet", 16, 4, 0)
    seen: list[tuple[int, ...]] = []
    augment = peer.task.model.augment.forward

    def spy(images: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape))
        views: torch.Tensor = augment(images)
        seen.append(tuple(views.shape))
        return views

    monkeypatch.setattr(peer.task.model.augment, "forward", spy)
    peer.step()
    assert seen == [(4, 1, 32, 32), (4, 1, 16, 16)] * 2
