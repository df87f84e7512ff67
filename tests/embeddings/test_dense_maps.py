"""A vector for every cell of a scene: where it belongs, without seams, whatever the batch. In float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from terrasieve.archive.archive_options import ArchiveOptions
from terrasieve.archive.scenes.whole_scene import whole_scenes
from terrasieve.archive.statistics import statistics_of
from terrasieve.baselines.baseline import Repeated
from terrasieve.embeddings import EncoderInput
from terrasieve.embeddings.inputs import join
from terrasieve.embeddings.scene_maps.dense_cells import DenseSettings, MapGrid
from terrasieve.embeddings.scene_maps.dense_map import DenseJob, SceneMap
from terrasieve.errors import ConfigError
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.dense import dense_encoder, sample_maps
from terrasieve.models.export import EncoderCard
from terrasieve.sensors import SENSORS
from terrasieve.views.render import Normaliser

RGB = EncoderInput.parse("s2:B04,B03,B02")
MakeJob = Callable[..., DenseJob]


def encoder_of(name: str, channels: int = 3, size: int | None = None) -> Encoder:
    return build_encoder(BackboneSpec(name=name, channels=channels, image_size=size), seed=0).eval()


@pytest.fixture
def make_job(tmp_path: Path, write_tif: Callable[..., Any]) -> MakeJob:
    """A job on one scene of Sentinel-2 reflectances."""

    def make(
        pixels: NDArray[np.uint16],
        encoder: Any,
        inputs: tuple[EncoderInput, ...] = (RGB,),
        **settings: Any,
    ) -> DenseJob:
        path = tmp_path / "scene.tif"
        named = SENSORS["s2-l2a"].select("B04", "B03", "B02")
        yaml = tmp_path / "rgb.yaml"
        yaml.write_text(named.model_dump_json())
        write_tif(path, pixels, crs="EPSG:32613", names=named.names)
        archive, scenes = whole_scenes(ArchiveOptions((f"s2={yaml}",), tile=16).spec(str(path)), str(path))
        normaliser = Normaliser(archive.sensors, statistics_of(archive))
        card = EncoderCard(
            backbone=BackboneSpec(name="test_resnet", channels=3),
            method="byol",
            recipe="small",
            image_size=32,
            sensors=archive.sensors,
            view_bands=(),
            statistics=normaliser.statistics,
            weights_sha256="0" * 64,
        )
        asked = DenseSettings(**{"precision": "32", **settings})
        return DenseJob(encoder, card, archive, scenes, inputs, normaliser, asked)

    return make


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint16]:
    """Texture of every scale, so that no tile is like its neighbour."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.normal(size=(3, height, width)))
    distance = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    field = np.fft.irfft2(spectrum / np.maximum(distance, 1 / 128), s=(height, width))
    return np.clip(1500 + 400 * field / field.std(), 1, 4000).astype(np.uint16)


def computed(one: SceneMap) -> NDArray[np.float32]:
    return np.concatenate(list(one.blocks()))


def shown(job: DenseJob, pixels: NDArray[np.uint16]) -> torch.Tensor:
    channels = [("s2", band) for band in RGB.bands]
    return job.normaliser(torch.from_numpy(pixels[None].astype(np.float32)), channels)


# ----------------------------------------------------------------------- cells


def test_in_one_tile_vectors_are_the_tokens_of_a_vit(make_job: MakeJob) -> None:
    pixels, encoder = noise(64, 64), encoder_of("test_vit", size=64)
    job = make_job(pixels, encoder, stride=16, tile=64)
    with torch.inference_mode():
        tokens = encoder.model.forward_features(shown(job, pixels))[:, -16:].reshape(4, 4, -1)
    np.testing.assert_allclose(computed(job.maps[0]), tokens.numpy(), rtol=1e-4, atol=1e-5)


def test_in_one_tile_vectors_are_bilinear_at_the_centres_of_cells(make_job: MakeJob) -> None:
    pixels, encoder = noise(64, 64), encoder_of("test_resnet")
    job = make_job(pixels, encoder, stride=8, tile=64)
    dense = dense_encoder(encoder, 8)
    with torch.inference_mode():
        maps = dense(shown(job, pixels))
    # Cells of the network are centred on pixels 0, 8, 16, those of the map half a pixel before 4, 12, 20.
    first, second = maps[0, :, 2, 3], maps[0, :, 2, 4]
    below, beside = maps[0, :, 3, 3], maps[0, :, 3, 4]
    share = 3.5 / 8
    wanted = (1 - share) * ((1 - share) * first + share * second) + share * ((1 - share) * below + share * beside)
    found = computed(job.maps[0])
    np.testing.assert_allclose(found[2, 3], wanted.numpy(), rtol=1e-4, atol=1e-5)
    assert found.shape == (8, 8, encoder.features)


@pytest.mark.parametrize(("name", "size", "stride"), [("test_resnet", None, 8), ("test_vit", 64, 16)])
def test_the_batch_does_not_matter(name: str, size: int | None, stride: int, make_job: MakeJob) -> None:
    pixels, encoder = noise(150, 220), encoder_of(name, size=size)
    found = [
        computed(make_job(pixels, encoder, stride=stride, tile=64, batch_size=batch).maps[0]) for batch in (1, 3, 8)
    ]
    assert np.array_equal(found[0], found[1], equal_nan=True)
    assert np.array_equal(found[0], found[2], equal_nan=True)


def test_several_inputs_are_joined_cell_by_cell(make_job: MakeJob) -> None:
    pixels, encoder = noise(64, 64), encoder_of("test_resnet", channels=1)
    inputs = tuple(EncoderInput(sensor="s2", bands=(band,)) for band in ("B03", "B02"))
    both = computed(make_job(pixels, encoder, inputs, tile=64).maps[0])
    apart = [computed(make_job(pixels, encoder, (one,), tile=64).maps[0]).reshape(64, 1, -1) for one in inputs]
    np.testing.assert_allclose(both.reshape(64, -1), join(np.concatenate(apart, axis=1)), rtol=1e-5, atol=1e-7)


def test_a_band_may_be_shown_as_copies(make_job: MakeJob) -> None:
    pixels, encoder = noise(64, 64), encoder_of("test_resnet")
    one = EncoderInput(sensor="s2", bands=("B03",))
    copied = make_job(pixels, Repeated(encoder, 3), (one,), tile=64)
    assert copied.maps[0].shape == (8, 8, encoder.features)
    green = copied.normaliser(torch.from_numpy(pixels[None, 1:2].astype(np.float32)), [("s2", "B03")])
    with torch.inference_mode():
        maps = dense_encoder(encoder, 8)(green.repeat(1, 3, 1, 1))
        wanted = sample_maps(maps, torch.tensor([[[[3.5, 11.5]]]]), 8, 0.0)[0, :, 0, 0]
    np.testing.assert_allclose(computed(copied.maps[0])[0, 1], wanted.numpy(), rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------- seams


def seam_ratio(vectors: NDArray[np.float32], borders: list[int], phase: int) -> float:
    """Mean step across borders of tiles, against that across other cells at the same place in the network's own."""
    steps = np.linalg.norm(np.diff(vectors, axis=1), axis=-1)
    at = np.zeros(steps.shape[1], bool)
    at[[border - 1 for border in borders if 0 < border < vectors.shape[1]]] = True
    alike = (np.arange(steps.shape[1]) + 1) % phase == 0
    return float(steps[:, at].mean() / steps[:, ~at & alike].mean())


def borders_of(grid: MapGrid) -> list[int]:
    return sorted({edge // grid.stride for left in grid.lefts for edge in (left, left + grid.tile)})


@pytest.mark.parametrize(
    ("name", "size", "stride", "tile", "phase", "least"),
    [("test_resnet", None, 8, 128, 1, 0.1), ("test_vit", 64, 16, 64, 1, 0.02), ("test_vit", 64, 8, 64, 2, 0.1)],
)
def test_tiles_leave_no_seams(
    name: str, size: int | None, stride: int, tile: int, phase: int, least: float, make_job: MakeJob
) -> None:
    encoder = encoder_of(name, size=size)
    job = make_job(noise(512, 512), encoder, stride=stride, tile=tile)
    one = job.maps[0]
    found = seam_ratio(computed(one), borders_of(one.grid), phase)
    assert 0.9 <= found <= 1.1
    # Tiles set side by side, as they come, do leave them.
    strip = next(iter(one._strips()))["s2"]
    tiles = np.stack([strip[..., left : left + tile] for left in range(0, 512, tile)])
    beside = np.concatenate(list(job.vectors({"s2": tiles}, tile)), axis=1)
    assert seam_ratio(beside, list(range(0, 512 // stride, tile // stride)), phase) > found + least


@pytest.mark.parametrize(("height", "width"), [(64, 64), (200, 331), (512, 512), (33, 90), (65, 129), (10, 10)])
@pytest.mark.parametrize(("stride", "tile", "native"), [(8, 64, 8), (16, 64, 16), (8, 64, 16), (24, 192, 16)])
def test_tiles_cover_every_cell_and_lie_alike(height: int, width: int, stride: int, tile: int, native: int) -> None:
    grid = DenseSettings(stride=stride, tile=tile).grid(height, width, native)
    totals = np.zeros((grid.rows, grid.columns))
    for top in grid.tops:
        for left in grid.lefts:
            assert top % native == left % native == top % stride == left % stride == 0
            row, column = top // stride, left // stride
            part = totals[row : row + grid.cells, column : column + grid.cells]
            part += grid.weights()[: part.shape[0], : part.shape[1]]
    assert (totals > 0).all()
    assert grid.rows * stride >= height > (grid.rows - 1) * stride
    if grid.rows > grid.cells:
        inside = totals[grid.cells // 2 : (grid.tops[-2] if len(grid.tops) > 1 else 0) // stride, grid.columns // 2]
        assert np.allclose(inside, inside[:1])


def test_no_pixel_is_read_twice(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(noise(150, 220), encoder_of("test_resnet"), tile=64)
    rows: list[int] = []
    scene, before = job.scenes[0], job.scenes[0].read
    monkeypatch.setattr(scene, "read", lambda key, bands, part: rows.append(part.height) or before(key, bands, part))
    assert computed(job.maps[0]).shape[:2] == (19, 28)
    assert sum(rows) == job.maps[0].grid.tops[-1] + 64
    assert len(rows) == len(job.maps[0].grid.tops)


# -------------------------------------------------------------------- no data


def test_cells_that_are_mostly_missing_are_marked(make_job: MakeJob) -> None:
    pixels = noise(100, 140)
    pixels[:, 16:40, 24:64] = 0
    pixels[1, 60:64, 80:88] = 0  # half of a cell, in one of its bands
    pixels[1, 72:77, 80:88] = 0  # more than half
    found = computed(make_job(pixels, encoder_of("test_resnet"), tile=64).maps[0])
    missing = np.isnan(found).any(axis=-1)
    assert np.array_equal(missing, np.isnan(found).all(axis=-1))
    wanted = np.zeros((13, 18), bool)
    wanted[2:5, 3:8] = True
    wanted[9, 10] = True
    wanted[12, 17] = True  # three quarters of which lie beyond the scene
    assert np.array_equal(missing, wanted)


def test_a_tile_is_cut_into_whole_cells() -> None:
    encoder = encoder_of("test_vit", size=64)
    assert DenseSettings(stride=16).fitted(encoder, 64).tile == 64
    assert DenseSettings(stride=8).fitted(encoder, 60).tile == 64
    assert DenseSettings(stride=24).fitted(encoder_of("test_resnet"), 64).tile == 288
    with pytest.raises(ConfigError, match="Set the tile to 96"):
        DenseSettings(stride=8, tile=100).fitted(encoder, 64)
    with pytest.raises(ConfigError, match="gives no feature maps"):
        DenseSettings().fitted(encoder_of("test_convnext"), 64)
