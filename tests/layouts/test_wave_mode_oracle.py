"""Wave Mode products against Ifremer's xarray-safe-s1, which reads the same files by code of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely

from small_archives.wave_mode import WV1, WV2, Scene, box_means, edges, write_product
from terrasieve.archive.layouts.wave_mode import WaveModeSpec

fsspec = pytest.importorskip("fsspec", reason="the oracle xarray-safe-s1 is not installed")
mappings = pytest.importorskip("safe_s1.sentinel1_xml_mappings", reason="the oracle xarray-safe-s1 is not installed")
xml_parser = pytest.importorskip("safe_s1.xml_parser", reason="the oracle xarray-safe-s1 is not installed")

SCENES = WV1, WV2
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


class Oracle:
    """What xarray-safe-s1 reads of one vignette: its tables as arrays along ``line`` and ``sample``.

    Its reader of whole products also asks for orbits, footprints and schemata, which the products written here lack.
    """

    def __init__(self, product: Path, scene: Scene) -> None:
        tables = mappings.xpath_mappings, mappings.compounds_vars, mappings.namespaces
        self.parser = xml_parser.XmlParser(fsspec.get_mapper(str(product)), *tables)
        self.annotation = f"annotation/{scene.name}.xml"
        self.calibration = f"annotation/calibration/calibration-{scene.name}.xml"
        self.noise = f"annotation/calibration/noise-{scene.name}.xml"
        self.measurement = product / "measurement" / f"{scene.name}.tiff"

    def grid(self, name: str) -> Any:
        found = self.parser.get_compound_var(self.annotation, name)
        return found.assign_coords({axis: found[axis].astype(float) for axis in found.dims}).sortby(list(found.dims))

    def sigma0(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Of every pixel, by its tables of calibration and noise, bilinear."""
        with rasterio.open(self.measurement) as dataset:
            power = np.abs(dataset.read(1).astype(np.complex128)) ** 2
        at = {"line": np.arange(power.shape[0]), "sample": np.arange(power.shape[1])}
        amplitude = self.parser.get_compound_var(self.calibration, "luts_raw").sigma0_lut
        amplitude = amplitude.assign_coords(line=amplitude.line.astype(int)).interp(at)
        noise = self.parser.get_compound_var(self.noise, "noise_lut_range_raw").noise_lut.interp(at)
        azimuth = self.parser.get_compound_var(self.noise, "noise_lut_azi_raw_slc").noise_lut.interp(line=at["line"])
        return np.asarray((power - noise * azimuth) / amplitude**2)


@pytest.mark.parametrize("index", [0, 1])
def test_backscatter_places_and_times_are_those_of_xarray_safe_s1(tmp_path: Path, index: int) -> None:
    product, scene = write_product(tmp_path, *SCENES), SCENES[index]
    archive = WaveModeSpec(root=tmp_path, size=None, detrend="none").open()
    oracle, row = Oracle(product, scene), archive.table().to_pylist()[index]
    np.testing.assert_allclose(archive.read(index, "s1")[0], box_means(oracle.sigma0(), scene), rtol=1e-5)
    first, last = oracle.parser.get_var(oracle.annotation, "annotation.line_time_range")
    assert np.datetime64(row["time"].replace(tzinfo=None)) == (first + (last - first) / 2).astype("datetime64[us]")
    rows, columns = edges(scene)
    centres = {"line": (rows[1:] + rows[:-1]) / 2 - 0.5, "sample": (columns[1:] + columns[:-1]) / 2 - 0.5}
    assert row["incidence"] == pytest.approx(float(oracle.grid("incidenceAngle").interp(centres).mean()))
    around = {
        "line": np.clip(rows[[0, -1]] - 0.5, 0, scene.lines - 1),
        "sample": np.clip(columns[[0, -1]] - 0.5, 0, scene.samples - 1),
    }
    longitude, latitude = (np.asarray(oracle.grid(name).interp(around)) for name in ("longitude", "latitude"))
    expected = longitude.min(), latitude.min(), longitude.max(), latitude.max()
    assert shapely.from_wkb(row["geometry"]).bounds == pytest.approx(expected, abs=1e-9)
