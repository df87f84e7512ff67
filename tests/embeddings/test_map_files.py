"""Maps as files: where they lie, that others open them, and what is read back. In float32."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray
from numpy.typing import NDArray

import terrasieve as ts
from terrasieve.archive.archive_options import ArchiveOptions
from terrasieve.archive.protocol import Window
from terrasieve.archive.scenes.whole_scene import whole_scenes
from terrasieve.embeddings import EncoderInput
from terrasieve.embeddings.quantising import Int8Scales
from terrasieve.embeddings.scene_maps.dense_cells import DenseSettings
from terrasieve.embeddings.scene_maps.dense_map import BLOCK_ROWS, DenseJob
from terrasieve.embeddings.scene_maps.making import dense_job, write_maps
from terrasieve.embeddings.scene_maps.map_reading import open_maps
from terrasieve.errors import ArchiveError, ConfigError, SampleError
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.export import EncoderCard
from terrasieve.sensors import SENSORS

RGB = EncoderInput.parse("s2:B04,B03,B02")
ZONES = {"east": "EPSG:32613", "west": "EPSG:32612", "south": "EPSG:32719"}
HEIGHT, WIDTH, STRIDE = 300, 140, 8
ROWS, COLUMNS = 38, 18


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_tif: Callable[..., Any]) -> Path:
    """Three scenes in three zones, with a hole in each."""
    top = tmp_path_factory.mktemp("scenes")
    named = SENSORS["s2-l2a"].select("B04", "B03", "B02")
    (top / "rgb.yaml").write_text(named.model_dump_json())
    rng = np.random.default_rng(0)
    for name, crs in ZONES.items():
        pixels = rng.integers(1, 4000, (3, HEIGHT, WIDTH)).astype(np.uint16)
        pixels[:, :16, :8] = 0
        path = top / "s2" / f"{name}_20200104T183541.tif"
        write_tif(path, pixels, crs=crs, origin=(4e5, 6e6), names=named.names)
    return top


def job_on(folder: Path, *pick: int) -> DenseJob:
    spec = ArchiveOptions((f"s2={folder / 'rgb.yaml'}:s2",)).spec(str(folder))
    archive, scenes = whole_scenes(spec, str(folder))
    spec_of = BackboneSpec(name="test_resnet", channels=3)
    card = EncoderCard(
        backbone=spec_of,
        method="byol",
        recipe="small",
        image_size=32,
        sensors={},
        view_bands=(),
        statistics={},
        weights_sha256="ab" * 32,
    )
    settings = DenseSettings(stride=STRIDE, tile=64, precision="32")
    chosen = [scenes[place] for place in pick] if pick else scenes
    return dense_job(build_encoder(spec_of, 0).eval(), card, archive, chosen, [RGB], "archive", settings)


@pytest.fixture(scope="module")
def job(folder: Path) -> DenseJob:
    return job_on(folder)


@pytest.fixture(scope="module")
def vectors(job: DenseJob) -> NDArray[np.float32]:
    """Those of the first scene, as they are computed."""
    return np.concatenate(list(job.maps[0].blocks()))


@pytest.fixture(scope="module")
def written(job: DenseJob, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out, one = tmp_path_factory.mktemp("maps"), job_on(folder, 0)
    return {
        "store": write_maps(out / "a.zarr", job),
        "small store": write_maps(out / "b.zarr", one, "int8"),
        "raster": write_maps(out / "c.tif", one),
        "small raster": write_maps(out / "d.tif", one, "int8"),
        "picture": write_maps(out / "e.tif", one, picture=True),
    }


# ------------------------------------------------------------------------ Zarr


def test_xarray_opens_a_group_of_each_zone(written: dict[str, Path], vectors: NDArray[np.float32]) -> None:
    tree = xarray.open_datatree(written["store"], engine="zarr")
    assert set(tree.children) == {"utm12n", "utm13n", "utm19s"}
    found = xarray.open_zarr(written["store"], group="utm13n/east_20200104T183541")
    assert found.embeddings.dims == ("y", "x", "feature")
    assert found.embeddings.shape == (ROWS, COLUMNS, 96)
    np.testing.assert_array_equal(found.embeddings.to_numpy(), vectors)
    assert found.x.to_numpy()[[0, 1]].tolist() == [4e5 + 40, 4e5 + 120]
    assert found.y.to_numpy()[[0, 1]].tolist() == [6e6 - 40, 6e6 - 120]


@pytest.mark.parametrize("name", ["store", "small store"])
def test_attributes_are_those_of_the_conventions(name: str, written: dict[str, Path]) -> None:
    root = json.loads((written[name] / "zarr.json").read_text())
    group = json.loads((written[name] / "utm13n" / "east_20200104T183541" / "zarr.json").read_text())
    for node in (root, group):
        said = node["attributes"]
        # What the schema of geoemb: v1 asks of a group.
        assert (node["zarr_format"], node["node_type"]) == (3, "group")
        assert said["geoemb:type"] == "pixel"
        assert said["geoemb:dimensions"] == 96
        assert said["geoemb:model"] == f"urn:sha256:{'ab' * 32}"
        assert [one.startswith("urn:terrasieve:") for one in said["geoemb:source_data"]] == [True]
        assert said["geoemb:data_type"] == ("int8" if name == "small store" else "float32")
        assert said["geoemb:gsd"] == 80.0
        assert ("geoemb:quantization" in said) == (name == "small store")
        assert "61c12cc5-0e28-4056-999a-480cf3fb7e4c" in [one["uuid"] for one in said["zarr_conventions"]]
    said = group["attributes"]
    assert [one["name"] for one in said["zarr_conventions"]] == ["geoemb:", "proj:", "spatial:"]
    assert said["proj:code"] == "EPSG:32613"
    assert said["spatial:dimensions"] == ["y", "x"]
    assert said["spatial:shape"] == [ROWS, COLUMNS]
    assert said["spatial:transform"] == [80.0, 0.0, 4e5, 0.0, -80.0, 6e6]
    assert said["spatial:bbox"] == [4e5, 6e6 - 80 * ROWS, 4e5 + 80 * COLUMNS, 6e6]
    assert said["terrasieve"]["scene"] == "east_20200104T183541"
    assert said["terrasieve"]["time"].startswith("2020-01-04T18:35:41")
    assert said["terrasieve"]["settings"]["tile"] == 64


# --------------------------------------------------------------------- GeoTIFF


def test_rasterio_opens_a_band_for_each_dimension(written: dict[str, Path], vectors: NDArray[np.float32]) -> None:
    with rasterio.open(written["raster"]) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (dataset.count, dataset.height, dataset.width) == (96, ROWS, COLUMNS)
        assert dataset.crs.to_string() == "EPSG:32613"
        assert tuple(dataset.transform)[:6] == (80.0, 0.0, 4e5, 0.0, -80.0, 6e6)
        assert np.isnan(dataset.nodata)
        np.testing.assert_array_equal(np.moveaxis(dataset.read(), 0, -1), vectors)


def test_bands_of_8_bits_have_a_scale(written: dict[str, Path], vectors: NDArray[np.float32]) -> None:
    with rasterio.open(written["small raster"]) as dataset:
        assert set(dataset.dtypes) == {"int8"}
        assert dataset.nodata == -128
        stored = dataset.read(masked=True)
        scaled = np.ma.filled(stored * np.array(dataset.scales)[:, None, None], np.nan)
        assert json.loads(dataset.tags()["TERRASIEVE"])["quantization"]["relative_error"] < 0.02
    assert np.array_equal(np.isnan(scaled), np.isnan(np.moveaxis(vectors, -1, 0)))
    off = np.abs(np.moveaxis(scaled, 0, -1) - vectors)
    assert np.nanmax(off / np.nanmax(np.abs(vectors), axis=(0, 1))) <= 0.5 / 127 + 1e-6


def test_a_picture_shows_three_components(written: dict[str, Path], vectors: NDArray[np.float32]) -> None:
    with rasterio.open(written["picture"]) as dataset:
        assert (dataset.count, dataset.dtypes[0], dataset.nodata) == (3, "uint8", 0)
        assert [one.name for one in dataset.colorinterp] == ["red", "green", "blue"]
        assert tuple(dataset.transform)[:6] == (80.0, 0.0, 4e5, 0.0, -80.0, 6e6)
        colours = np.moveaxis(dataset.read(), 0, -1)
    missing = np.isnan(vectors).any(axis=-1)
    assert np.array_equal((colours == 0).all(axis=-1), missing)
    assert np.array_equal((colours == 0).any(axis=-1), missing)
    there = vectors[~missing].astype(np.float64)
    middle = there - there.mean(axis=0)
    # The oracle is a singular value decomposition; a component has no sign of its own.
    scores = middle @ np.linalg.svd(middle, full_matrices=False)[2][:3].T
    shown = colours[~missing].astype(np.float64)
    for component in range(3):
        assert abs(np.corrcoef(shown[:, component], scores[:, component])[0, 1]) > 0.98


def test_a_raster_holds_one_scene(job: DenseJob, tmp_path: Path) -> None:
    for picture in (False, True):
        with pytest.raises(ConfigError, match=r"holds the map of one scene, and there are 3 \(east_"):
            write_maps(tmp_path / "all.tif", job, picture=picture)
    with pytest.raises(ConfigError, match=r"let it end in \.zarr or \.tif"):
        write_maps(tmp_path / "all.parquet", job)
    with pytest.raises(ConfigError, match=r"let it end in \.tif"):
        write_maps(tmp_path / "all.zarr", job, picture=True)
    with pytest.raises(ConfigError, match="no vectors to quantise"):
        write_maps(tmp_path / "all.tif", job, "int8", picture=True)
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------- reading


@pytest.mark.parametrize("name", ["store", "small store", "raster", "small raster"])
def test_what_is_read_back_is_float(name: str, written: dict[str, Path], vectors: NDArray[np.float32]) -> None:
    found = ts.open_maps(written[name])["east_20200104T183541"]
    assert found.shape == (ROWS, COLUMNS, 96)
    assert found.crs == "EPSG:32613"
    assert found.transform == (80.0, 0.0, 4e5, 0.0, -80.0, 6e6)
    wanted = vectors
    if "small" in name:
        scales = Int8Scales.measured([vectors])
        wanted = scales.decode(scales.encode(vectors))
        said = found.facts["quantization"]["relative_error"]
        assert said == pytest.approx(scales.error([vectors]), rel=1e-6)
    assert found.read().dtype == np.float32
    np.testing.assert_allclose(found.read(), wanted, rtol=1e-6)
    part = Window(BLOCK_ROWS - 2, 3, 5, 4)
    np.testing.assert_array_equal(found.read(part), found.read()[BLOCK_ROWS - 2 : BLOCK_ROWS + 3, 3:7])
    with pytest.raises(SampleError, match="leaves the map"):
        found.read(Window(0, 0, ROWS + 1, 1))
    assert "38 x 18 cells, 96 numbers each, EPSG:32613" in repr(found)


def test_all_scenes_of_a_store_are_found(written: dict[str, Path]) -> None:
    assert {one.crs for one in open_maps(written["store"]).values()} == set(ZONES.values())


def test_what_holds_no_maps_is_named(written: dict[str, Path], folder: Path, tmp_path: Path) -> None:
    for path in (written["picture"], next((folder / "s2").iterdir()), tmp_path, tmp_path / "absent.tif"):
        with pytest.raises(ArchiveError, match=f"{path} holds no maps of vectors"):
            open_maps(path)


def test_codecs_that_may_run_code_are_not_read(written: dict[str, Path], tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    shutil.copytree(written["store"], store)
    place = next(store.rglob("embeddings/zarr.json"))
    place.write_text(place.read_text().replace('"zstd"', '"numcodecs.pickle"'))
    with pytest.raises(ArchiveError, match="may run code"):
        open_maps(store)


def test_what_is_half_written_is_not_there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_on(folder, 1)

    def broken(*arguments: Any) -> Any:
        raise SampleError("scene.tif is truncated.")

    monkeypatch.setattr(job.scenes[0], "read", broken)
    for name, quantise in (("a.zarr", None), ("b.zarr", "int8"), ("c.tif", None), ("d.tif", "int8")):
        with pytest.raises(SampleError, match="truncated"):
            write_maps(tmp_path / name, job, quantise)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
