from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from terrasieve.archive.layouts import terramesh_sites
from terrasieve.archive.layouts.terramesh_sites import LULC_CLASSES, PRODUCTS, TerraMeshSitesArchive, TerraMeshSitesSpec
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.archive.overview import contact_sheet
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import Problem
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.probes.segmentation.task import read_labels
from terrasieve.sensors import SENSORS, find_sensor

Site = Callable[..., NDArray[Any]]
KEYS: list[terramesh_sites.SensorKey] = ["s1", "s2-l1c", "s2-l2a", "lulc", "dem"]


@pytest.fixture(scope="module")
def real(data_dir: Path) -> TerraMeshSitesArchive:
    return TerraMeshSitesArchive(TerraMeshSitesSpec(root=data_dir / "terramesh_sites"))


@pytest.fixture
def root(data_dir: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    root = tmp_path / "sites"
    shutil.copytree(data_dir / "terramesh_sites", root)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


def file(root: Path, product: str, number: int = 0) -> Path:
    return sorted((root / product).glob("*.tif"))[number]


def test_the_real_sites_have_all_products(real: TerraMeshSitesArchive, data_dir: Path) -> None:
    assert list(real.sensors) == KEYS
    assert real.ids.tolist() == sorted(path.stem for path in (data_dir / "terramesh_sites" / "DEM").iterdir())
    assert len(real) == 5
    assert not real.rejected
    table = real.table()
    assert table["geometry"].null_count == table["crs"].null_count == 0
    assert table["label"].null_count == table["split"].null_count == 5


def test_pixels_are_those_of_the_files(real: TerraMeshSitesArchive, data_dir: Path) -> None:
    for index, name in enumerate(real.ids.tolist()):
        for key in KEYS:
            with rasterio.open(data_dir / "terramesh_sites" / PRODUCTS[key][0] / f"{name}.tif") as dataset:
                whole = dataset.read()
            pixels = real.read(index, key)
            assert pixels.dtype == whole.dtype
            np.testing.assert_array_equal(pixels, whole)
            assert real.shape(index, key) == (224, 224)
    assert real.read(0, "s2-l1c").dtype == np.int16


@given(data=st.data())
def test_a_window_is_a_slice(data: st.DataObject, real: TerraMeshSitesArchive) -> None:
    index, key = data.draw(st.integers(0, 4)), data.draw(st.sampled_from(KEYS))
    top, left = data.draw(st.integers(0, 223)), data.draw(st.integers(0, 223))
    height, width = data.draw(st.integers(1, 224 - top)), data.draw(st.integers(1, 224 - left))
    bands = data.draw(st.permutations(real.sensors[key].names))
    whole = real.read(index, key, bands)
    part = real.read(index, key, bands, Window(top, left, height, width))
    np.testing.assert_array_equal(part, whole[:, top : top + height, left : left + width])


def test_level_1c_differs_by_the_offset_that_it_was_delivered_with(real: TerraMeshSitesArchive) -> None:
    cirrus = {str(name): np.median(real.read(index, "s2-l1c", ["B10"])) for index, name in enumerate(real.ids)}
    assert {name.partition("_")[0] for name, level in cirrus.items() if level > 900} == {"282D", "433D", "609U"}


def test_class_names_fit_what_the_radar_and_the_red_edge_see(real: TerraMeshSitesArchive) -> None:
    values: dict[str, list[NDArray[np.float64]]] = {name: [] for name in LULC_CLASSES}
    for index in range(len(real)):
        lulc = real.read(index, "lulc")[0]
        red, infrared = real.read(index, "s2-l2a", ["B04", "B08"]).astype(float)
        ndvi = (infrared - red) / np.maximum(infrared + red, 1)
        for number, name in enumerate(LULC_CLASSES):
            values[name].append(ndvi[lulc == number])
    medians = {name: np.median(np.concatenate(found)) for name, found in values.items() if np.concatenate(found).size}
    assert medians["water"] < medians["built area"] < medians["trees"]


def test_maps_of_classes_are_labels_and_heights_are_not(real: TerraMeshSitesArchive) -> None:
    labels = read_labels(real, "lulc", np.arange(5))
    assert set(labels.classes) <= set(LULC_CLASSES)
    assert "trees" in labels.classes
    assert real.sensors["dem"].bands[0].unit == "m"
    assert find_sensor(real.sensors, "radar") == "s1"


def test_a_copy_through_pickle_is_the_same(real: TerraMeshSitesArchive) -> None:
    copy = pickle.loads(pickle.dumps(real))
    np.testing.assert_array_equal(copy.read(3, "dem"), real.read(3, "dem"))
    assert copy.source == real.source


def test_it_is_recognised_by_two_products(data_dir: Path, root: Path) -> None:
    (seen,) = recognise(data_dir / "terramesh_sites")
    assert seen.spec.layout == "terramesh-sites"
    assert seen.evidence == "folders of products S1RTC, S2L1C, S2L2A, LULC, DEM with GeoTIFF"
    for product in ("S1RTC", "S2L1C", "S2L2A"):
        shutil.rmtree(root / product)
    assert list(open_archive(root).sensors) == ["lulc", "dem"]
    shutil.rmtree(root / "DEM")
    assert terramesh_sites.TerraMeshSitesSpec.recognise(root) is None


@pytest.mark.parametrize("name", ["bigearthnet_sample", "eurosat_rgb", "la_texas_pairs"])
def test_other_data_is_not_taken_for_it(data_dir: Path, name: str) -> None:
    assert terramesh_sites.TerraMeshSitesSpec.recognise(data_dir / name) is None


def test_zarr_under_the_same_names_is_not_taken_for_it(tmp_path: Path) -> None:
    for product in ("S1GRD", "S2L1C"):
        (tmp_path / product).mkdir()
        (tmp_path / product / "ssl4eos12_val_seasonal_data_000001.zarr.zip").write_bytes(b"PK")
    assert terramesh_sites.TerraMeshSitesSpec.recognise(tmp_path) is None


def test_sites_without_a_partner_are_rejected(root: Path) -> None:
    absent = file(root, "S2L2A", 1)
    absent.unlink()
    archive = TerraMeshSitesArchive(TerraMeshSitesSpec(root=root))
    assert len(archive) == 4
    (rejection,) = archive.rejected
    assert (rejection.id, rejection.sensor, rejection.problem) == (absent.stem, "s2-l2a", Problem.PARTNER)
    assert f"no {absent.name} in S2L2A" in rejection.reason
    assert len(TerraMeshSitesArchive(TerraMeshSitesSpec(root=root, sensors=("s1", "dem")))) == 5


def test_products_of_one_sensor_stay_apart(root: Path) -> None:
    shutil.copytree(root / "S1RTC", root / "S1GRD")
    archive = TerraMeshSitesArchive(TerraMeshSitesSpec(root=root))
    assert list(archive.sensors)[:2] == ["s1", "s1-grd"]
    assert archive.table()["asset:s1-grd"][0].as_py() == str(file(root.resolve(), "S1GRD"))


@pytest.mark.parametrize("change", [{"origin": (500_010.0, 5_000_000.0)}, {"crs": "EPSG:32633"}, {"size": 200}])
def test_products_on_different_grids_are_refused(
    root: Path, write_tif: Any, site: Site, change: dict[str, Any]
) -> None:
    size = change.pop("size", 224)
    path = file(root, "DEM")
    for product in ("S1RTC", "S2L1C", "S2L2A", "LULC"):
        write_tif(file(root, product), site(product, 0, 224))
    write_tif(path, site("DEM", 0, size), **change)
    archive = TerraMeshSitesArchive(TerraMeshSitesSpec(root=root))
    assert archive.read(0, "s2-l2a").shape == (12, 224, 224)
    with pytest.raises(SampleError, match=rf"{path.name} .* is not on the grid of .*S1RTC") as caught:
        archive.read(0, "dem")
    assert caught.value.problem is Problem.GRID  # type: ignore[attr-defined]


def test_described_bands_in_another_order_are_refused(root: Path, write_tif: Any, site: Site) -> None:
    path, names = file(root, "S2L1C"), list(SENSORS["s2-l1c"].names)
    with rasterio.open(path) as dataset:
        origin, crs = (dataset.transform.c, dataset.transform.f), dataset.crs
    write_tif(path, site("S2L1C", 0, 224), names=names, origin=origin, crs=crs)
    assert TerraMeshSitesArchive(TerraMeshSitesSpec(root=root)).read(0, "s2-l1c").shape == (13, 224, 224)
    names[8], names[9] = names[9], names[8]
    write_tif(path, site("S2L1C", 0, 224), names=names, origin=origin, crs=crs)
    with pytest.raises(SampleError, match=rf"{path.name} calls its band 9 'B09'"):
        TerraMeshSitesArchive(TerraMeshSitesSpec(root=root)).read(0, "s2-l1c")


@pytest.mark.parametrize("keep", [0, 100, 2000])
def test_a_truncated_file_is_named(root: Path, keep: int) -> None:
    path = file(root, "S2L1C")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SampleError, match=path.name):
        TerraMeshSitesArchive(TerraMeshSitesSpec(root=root)).read(0, "s2-l1c")


def test_a_folder_without_products_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="holds none of the folders S1RTC, S1GRD"):
        TerraMeshSitesArchive(TerraMeshSitesSpec(root=tmp_path))


def test_sites_pack_and_show_with_heights(real: TerraMeshSitesArchive, tmp_path: Path) -> None:
    pack(real, tmp_path / "store")
    packed = open_archive(tmp_path / "store")
    for key in KEYS:
        np.testing.assert_array_equal(packed.read(2, key), real.read(2, key))
    contact_sheet(real, tmp_path / "sheet.png", samples=2)
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
