"""Wave Mode products, written here as the processor writes them: numbers against formulas, damage against names."""

from __future__ import annotations

import pickle
import re
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from typer.testing import CliRunner

from small_archives.wave_mode import (
    PRODUCT,
    WV1,
    WV2,
    Scene,
    box_means,
    edges,
    header,
    knots,
    new_noise,
    old_noise,
    vector,
    write_product,
    write_xml,
)
from terrasieve.archive.collocation.nearest import collocate
from terrasieve.archive.layouts.wave_mode import WaveModeArchive, WaveModeSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.products.radiometry import FLOOR
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import Problem
from terrasieve.archive.readers import documents
from terrasieve.archive.wave_mode.ingest import FLOORED, ingest
from terrasieve.cli import app
from terrasieve.errors import ArchiveError, SampleError, TooManyBadSamplesError
from terrasieve.ocean.cmod5n import cmod5n

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def sigma0(scene: Scene, noise: Any) -> NDArray[np.float64]:
    """Of every pixel, by the formula."""
    line, pixel = np.mgrid[: scene.lines, : scene.samples].astype(np.float64)
    power = np.abs(scene.numbers().astype(np.complex128)) ** 2
    result: NDArray[np.float64] = (power - noise(line, pixel)) / scene.amplitude(line, pixel) ** 2
    return result


def new_formula(scene: Scene) -> Any:
    return lambda line, pixel: scene.noise(line, pixel) * scene.along_azimuth(line)


def opened(root: Path, **options: Any) -> WaveModeArchive:
    return WaveModeArchive(WaveModeSpec(root=root, **{"size": None, "detrend": "none", **options}))


# ------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize("index", [0, 1])
def test_backscatter_is_the_mean_of_calibrated_pixels_without_noise(tmp_path: Path, index: int) -> None:
    write_product(tmp_path, WV1, WV2)
    scene = (WV1, WV2)[index]
    archive = opened(tmp_path)
    pixels = archive.read(index, "s1")
    expected = box_means(sigma0(scene, new_formula(scene)), scene)
    assert pixels.dtype == np.float32
    assert pixels.shape == (1, *expected.shape) == (1, *archive.shape(index, "s1"))
    np.testing.assert_allclose(pixels[0], expected, rtol=1e-5)


def test_the_older_noise_annotation_has_no_azimuth(tmp_path: Path) -> None:
    write_product(tmp_path, WV1, version="002.53", noise=old_noise)
    expected = box_means(sigma0(WV1, WV1.noise), WV1)
    np.testing.assert_allclose(opened(tmp_path).read(0, "s1")[0], expected, rtol=1e-5)


def test_noise_can_be_kept(tmp_path: Path) -> None:
    write_product(tmp_path, WV1)
    expected = box_means(sigma0(WV1, lambda line, pixel: 0), WV1)
    np.testing.assert_allclose(opened(tmp_path, noise="keep").read(0, "s1")[0], expected, rtol=1e-5)


def test_noise_that_the_processor_took_out_is_not_taken_out_again(tmp_path: Path) -> None:
    scene = replace(WV1, denoised=True)
    write_product(tmp_path, scene)
    expected = box_means(sigma0(scene, lambda line, pixel: 0), scene)
    np.testing.assert_allclose(opened(tmp_path).read(0, "s1")[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("version", "platform", "mode", "decibels"),
    [("002.90", "S1A", "WV1", -38.13), ("002.91", "S1B", "WV2", -37.44), ("002.92", "S1A", "WV1", 0)],
)
def test_noise_out_of_scale_is_mended_for_the_versions_that_have_it(
    tmp_path: Path, version: str, platform: str, mode: str, decibels: float
) -> None:
    scene = replace(WV1, platform=platform, mode=mode)
    write_product(tmp_path, scene, version=version)
    factor = 10 ** (decibels / 10)
    expected = box_means(sigma0(scene, lambda line, pixel: factor * new_formula(scene)(line, pixel)), scene)
    np.testing.assert_allclose(opened(tmp_path).read(0, "s1")[0], expected, rtol=1e-5)


def test_detrending_divides_by_the_sea_at_ten_metres_per_second(tmp_path: Path) -> None:
    write_product(tmp_path, WV1)
    at = edges(WV1)[1]
    model = cmod5n(10, 45, WV1.incidence((at[1:] + at[:-1]) / 2 - 0.5))
    expected = opened(tmp_path).read(0, "s1")[0] / model
    np.testing.assert_allclose(opened(tmp_path, detrend="cmod5n").read(0, "s1")[0], expected, rtol=1e-5)


def test_a_uniform_sea_has_its_value_everywhere(tmp_path: Path) -> None:
    write_product(tmp_path, WV1, image=lambda scene: np.full((scene.lines, scene.samples), 3 + 4j))
    path = tmp_path / PRODUCT / "annotation" / "calibration" / f"calibration-{WV1.name}.xml"
    lines, pixels = knots(WV1)
    flat = [vector("calibrationVector", x, {"pixel": pixels, "sigmaNought": 100 + 0 * pixels}) for x in lines]
    write_xml(
        path, f"<calibration>{header(WV1)}<calibrationVectorList>{''.join(flat)}</calibrationVectorList></calibration>"
    )
    np.testing.assert_allclose(opened(tmp_path, noise="keep").read(0, "s1"), 25 / 100**2, rtol=1e-6)


def test_cells_are_of_even_length_on_the_ground_and_in_the_middle() -> None:
    rows, columns = edges(WV1, size=16)
    assert np.ptp(np.diff(columns)) > 0.05
    assert rows[0] + rows[-1] == pytest.approx(WV1.lines)
    assert np.diff(rows) == pytest.approx(50 / 4.1)


def test_a_smaller_size_is_the_middle(tmp_path: Path) -> None:
    write_product(tmp_path, WV1)
    archive = opened(tmp_path, size=16)
    assert archive.shape(0, "s1") == (16, 16)
    expected = box_means(sigma0(WV1, new_formula(WV1)), WV1, size=16)
    np.testing.assert_allclose(archive.read(0, "s1")[0], expected, rtol=1e-5)


def test_what_lies_below_the_noise_is_floored_after_averaging(tmp_path: Path) -> None:
    scene = replace(WV1, low_noise=False)
    write_product(tmp_path, scene)
    expected = box_means(sigma0(scene, new_formula(scene)), scene)
    pixels = opened(tmp_path).read(0, "s1")[0]
    assert (expected < 0).any()
    np.testing.assert_array_equal(pixels == np.float32(FLOOR), expected < FLOOR)


def test_some_negative_pixels_do_not_raise_the_mean(tmp_path: Path) -> None:
    """Cells of which a part of the pixels lies below the noise have the mean of all pixels, negative ones included."""
    write_product(tmp_path, WV1)
    single = sigma0(WV1, new_formula(WV1))
    assert (single < 0).any()
    clipped = box_means(np.maximum(single, FLOOR), WV1)
    pixels = opened(tmp_path).read(0, "s1")[0]
    assert (pixels < clipped * (1 - 1e-5)).any()
    np.testing.assert_allclose(pixels, box_means(single, WV1), rtol=1e-5)


def test_empty_borders_have_no_value(tmp_path: Path) -> None:
    def bordered(scene: Scene) -> NDArray[Any]:
        numbers = scene.numbers()
        numbers[:, :20] = 0
        return numbers

    write_product(tmp_path, WV1, image=bordered)
    pixels = opened(tmp_path).read(0, "s1")[0]
    covered = np.clip(20 - edges(WV1)[1][:-1], 0, np.diff(edges(WV1)[1])) / np.diff(edges(WV1)[1])
    np.testing.assert_array_equal(np.isnan(pixels).all(axis=0), covered > 0.1)
    assert np.isfinite(pixels[:, covered < 0.1]).all()


# ------------------------------------------------------------------------------ archive


def test_the_table_says_what_the_annotation_says(tmp_path: Path) -> None:
    write_product(tmp_path, WV1, WV2, version="002.53", noise=old_noise)
    archive = opened(tmp_path)
    assert archive.ids.tolist() == [WV1.name, WV2.name]
    rows = archive.table().to_pylist()
    for row, scene in zip(rows, (WV1, WV2), strict=True):
        first, last = scene.times
        assert row["time"] == first + (last - first) / 2
        assert row["mode"] == scene.mode
        at = edges(scene)[1]
        assert row["incidence"] == pytest.approx(scene.incidence((at[1:] + at[:-1]) / 2 - 0.5).mean())
        assert (row["platform"], row["orbit"], row["pass"]) == ("S1A", 9298, "descending")
        assert row["heading"] == pytest.approx(360 - 167.1)
        assert (row["product"], row["processor"]) == (PRODUCT, "2.53")
        assert row["asset:s1"] == str(tmp_path / PRODUCT / "measurement" / f"{scene.name}.tiff")
        outline = shapely.from_wkb(row["geometry"])
        rows_at, columns_at = edges(scene)
        west, south, east, north = outline.bounds
        assert (south, north) == pytest.approx(tuple(scene.latitude(rows_at[[0, -1]] - 0.5)))
        expected = np.clip(columns_at[[0, -1]] - 0.5, 0, scene.samples - 1)
        assert (west, east) == pytest.approx(tuple(scene.longitude(expected)))
        assert outline.contains(shapely.Point(row["longitude"], row["latitude"]))


def test_at_the_antimeridian_there_is_a_centre_and_an_outline_in_two_parts(tmp_path: Path) -> None:
    scene = replace(WV1, west=179.994)
    write_product(tmp_path, scene)
    row = opened(tmp_path).table().to_pylist()[0]
    outline = shapely.from_wkb(row["geometry"])
    assert outline.geom_type == "MultiPolygon"
    assert all(abs(part.centroid.x) > 179.99 for part in outline.geoms)
    assert row["longitude"] == pytest.approx(scene.longitude((scene.samples - 1) / 2), abs=1e-4)
    assert abs(row["longitude"]) > 179.99


def test_windows_are_slices_and_a_pickled_archive_reads_the_same(tmp_path: Path) -> None:
    write_product(tmp_path, WV1, WV2)
    archive = opened(tmp_path)
    archive.table()
    copy = pickle.loads(pickle.dumps(archive))
    whole = archive.read(1, "s1")
    np.testing.assert_array_equal(copy.read(1, "s1", ["VV"], Window(3, 5, 7, 9)), whole[:, 3:10, 5:14])
    assert copy.table().equals(archive.table())
    with pytest.raises(SampleError, match="which is"):
        archive.read(0, "s1", None, Window(0, 0, 99, 1))


def test_the_other_polarisation_is_counted_and_can_be_chosen(tmp_path: Path) -> None:
    horizontal = replace(WV2, polarisation="HH")
    write_product(tmp_path, WV1, horizontal)
    assert opened(tmp_path).ids.tolist() == [WV1.name]
    assert opened(tmp_path).source["other_polarisation"] == 1
    archive = opened(tmp_path, polarisation="hh")
    assert archive.ids.tolist() == [horizontal.name]
    assert archive.sensors["s1"].names == ("HH",)


def test_products_are_recognised_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    product = write_product(tmp_path / "2016" / "001", WV1)
    for folder in (tmp_path, product.parent, product):
        seen = WaveModeSpec.recognise(folder)
        assert seen is not None
        assert seen.confidence == 1
        archive = open_archive(folder)
        assert isinstance(archive, WaveModeArchive)
        assert archive.ids.tolist() == [WV1.name]
    other = tmp_path / "other"
    (other / PRODUCT.replace("WV", "IW")).mkdir(parents=True)
    assert WaveModeSpec.recognise(other) is None
    with pytest.raises(ArchiveError, match="no Wave Mode product"):
        opened(other)


# ------------------------------------------------------------------------------- damage


def of(kind: str, scene: Scene = WV1) -> Path:
    places = {
        "annotation": Path("annotation", f"{scene.name}.xml"),
        "calibration": Path("annotation", "calibration", f"calibration-{scene.name}.xml"),
        "noise": Path("annotation", "calibration", f"noise-{scene.name}.xml"),
        "measurement": Path("measurement", f"{scene.name}.tiff"),
        "manifest": Path("manifest.safe"),
    }
    return Path(PRODUCT) / places[kind]


@pytest.mark.parametrize("kind", ["measurement", "annotation", "calibration", "noise"])
def test_an_absent_file_is_listed(tmp_path: Path, kind: str) -> None:
    write_product(tmp_path, WV1, WV2)
    (tmp_path / of(kind)).unlink()
    archive = opened(tmp_path)
    assert archive.ids.tolist() == [WV2.name]
    (lost,) = archive.rejected
    assert (lost.id, lost.problem, lost.asset) == (WV1.name, Problem.PARTNER, str(tmp_path / of(kind)))
    assert str(tmp_path / of(kind)) in lost.reason


EXPANDED = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>'
FETCHED = '<!DOCTYPE a SYSTEM "file:///etc/passwd">'
DAMAGE = [
    ("annotation", "<product>", f"{EXPANDED}<product>", "has a DOCTYPE"),
    ("calibration", "<calibration>", f"{FETCHED}<calibration>", "has a DOCTYPE"),
    ("noise", "</noise>", "", "is not XML"),
    ("annotation", "<swath>WV1</swath>", "", "has no adsHeader/swath"),
    ("annotation", "<numberOfLines>240", "<numberOfLines>24O", "has '24O' for imageAnnotation"),
    ("annotation", "<numberOfLines>240", "<numberOfLines>-240", "it is negative"),
    ("annotation", "<rangePixelSpacing>1.8", "<rangePixelSpacing>-1.8", "states an image"),
    ("annotation", "<azimuthPixelSpacing>4.100000e+00", "<azimuthPixelSpacing>4.1e9", "states an image"),
    ("annotation", "<numberOfLines>240", "<numberOfLines>24000000000", "states an image"),
    ("annotation", "<numberOfLines>240", "<numberOfLines>239", "240x260 px, its annotation says 239x260"),
    ("annotation", "<incidenceAngle>22.5<", "<incidenceAngle>nan<", "it is not finite"),
    ("annotation", "<incidenceAngle>22.5<", "<incidenceAngle>99<", "incidence outside 0 to 90"),
    ("annotation", "<pixel>100</pixel>", "<pixel>0</pixel>", "geolocation grid twice"),
    ("annotation", "geolocationGridPoint>", "point>", "has no geolocation grid"),
    ("calibration", "<imageNumber>001", "<imageNumber>007", "is of imageNumber 007"),
    ("noise", "<swath>WV1</swath><startTime>", "<swath>WV2</swath><startTime>", "is of swath WV2"),
    ("calibration", "300.0 ", "", "states 8 values of sigmaNought and has 7"),
    ("calibration", "300.0 ", "-300.0 ", "sigmaNought that is not positive"),
    ("calibration", "300.0 ", "inf ", "it is not finite"),
    ("calibration", "<line>97</line>", "<line>-97</line>", "do not ascend"),
    ("calibration", "calibrationVector>", "calibrationvector>", "has no vector with sigmaNought"),
    ("noise", "5.0 ", "-5.0 ", "has a negative noise"),
    ("noise", "noiseRangeVector>", "rangeVector>", "has no vector with noiseRangeLut"),
    ("manifest", 'version="003.31"', "", "does not state the version"),
]


@pytest.mark.parametrize(("kind", "old", "new", "message"), DAMAGE)
def test_damage_is_named(tmp_path: Path, kind: str, old: str, new: str, message: str) -> None:
    write_product(tmp_path, WV1)
    path = tmp_path / of(kind)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(SampleError, match=message) as raised:
        opened(tmp_path).read(0, "s1")
    assert path.name in str(raised.value) or "its annotation says" in message


@pytest.mark.parametrize("kind", ["measurement", "annotation", "calibration", "noise", "manifest"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_named(tmp_path: Path, kind: str, share: float) -> None:
    write_product(tmp_path, WV1)
    path = tmp_path / of(kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SampleError, match=path.name):
        opened(tmp_path).read(0, "s1")


def test_flipped_bytes_are_read_or_named(tmp_path: Path) -> None:
    """Whatever becomes of a file, the answer is pixels or an error that says which file."""
    scene = replace(WV1, lines=120, samples=60)
    write_product(tmp_path, scene)
    archive = opened(tmp_path)
    rng = np.random.default_rng(0)
    read, refused = 0, []
    for kind in ("annotation", "calibration", "noise", "manifest", "measurement"):
        path = tmp_path / of(kind)
        whole = path.read_bytes()
        for _ in range(12):
            damaged = bytearray(whole)
            for place in rng.integers(0, min(len(whole), 4096), 3):
                damaged[place] ^= 1 << rng.integers(0, 8)
            path.write_bytes(damaged)
            try:
                read += archive.read(0, "s1").shape[0]
            except SampleError as error:
                refused.append(str(error))
        path.write_bytes(whole)
    assert read > 0
    assert refused
    assert [message for message in refused if PRODUCT not in message] == []


def test_the_manifest_is_asked_for_only_where_noise_is_taken_out(tmp_path: Path) -> None:
    write_product(tmp_path, WV1)
    (tmp_path / of("manifest")).unlink()
    with pytest.raises(SampleError, match=r"manifest\.safe cannot be read"):
        opened(tmp_path).read(0, "s1")
    assert opened(tmp_path, noise="keep").read(0, "s1").shape[0] == 1
    assert opened(tmp_path).table()["processor"].to_pylist() == [None]


def test_a_damaged_annotation_leaves_its_row_empty(tmp_path: Path) -> None:
    write_product(tmp_path, WV1, WV2)
    (tmp_path / of("annotation")).write_text("<product/>")
    rows = opened(tmp_path).table().to_pylist()
    assert [row["mode"] for row in rows] == [None, "WV2"]
    assert rows[0]["id"] == WV1.name


def test_huge_files_are_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_product(tmp_path, WV1)
    monkeypatch.setattr(documents, "MAX_BYTES", 100)
    with pytest.raises(SampleError, match="more than 100"):
        opened(tmp_path).read(0, "s1")


def test_an_image_of_real_numbers_is_refused(tmp_path: Path) -> None:
    write_product(tmp_path, WV1)
    profile = {"driver": "GTiff", "height": WV1.lines, "width": WV1.samples, "count": 1, "dtype": "uint16"}
    with rasterio.open(tmp_path / of("measurement"), "w", **profile) as dataset:
        dataset.write(np.ones((1, WV1.lines, WV1.samples), np.uint16))
    with pytest.raises(SampleError, match="not one of complex numbers"):
        opened(tmp_path).read(0, "s1")


def test_a_vignette_that_is_too_small_says_how_large_it_is(tmp_path: Path) -> None:
    write_product(tmp_path, WV1)
    with pytest.raises(SampleError, match=r"0\.98 km by 1\.1\d km, which is 19x2\d cells of 50 m, and 384 are wanted"):
        WaveModeArchive(WaveModeSpec(root=tmp_path)).read(0, "s1")


def test_a_foreign_file_is_listed_and_a_vignette_twice_is_an_error(tmp_path: Path) -> None:
    product = write_product(tmp_path, WV1)
    shutil.copy(tmp_path / of("measurement"), product / "measurement" / "copy.tiff")
    (lost,) = opened(tmp_path).rejected
    assert "copy.tiff is not named as a Wave Mode measurement" in lost.reason
    write_product(tmp_path, WV1, name=PRODUCT.replace("1234", "ABCD"))
    with pytest.raises(ArchiveError, match=r"1234\.SAFE and .*ABCD\.SAFE"):
        opened(tmp_path)


# ------------------------------------------------------------------------------- ingest


def test_ingest_packs_what_the_archive_reads_and_counts_what_was_floored(tmp_path: Path) -> None:
    loud = replace(WV2, low_noise=False, number=3)
    write_product(tmp_path / "in", WV1, WV2, loud)
    archive = opened(tmp_path / "in", size=16)
    report = ingest(archive, tmp_path / "wv.zarr")
    store = PackedArchive(tmp_path / "wv.zarr")
    assert store.ids.tolist() == archive.ids.tolist()
    for index in range(3):
        np.testing.assert_array_equal(store.read(index, "s1"), archive.read(index, "s1"))
    floored = float(np.mean(archive.read(2, "s1") == np.float32(FLOOR)))
    assert floored > 0
    assert store.table()[FLOORED].to_pylist() == [0, 0, pytest.approx(floored)]
    assert (report.floored, report.most) == (pytest.approx(floored / 3), pytest.approx(floored))
    table = store.table()
    assert table["mode"].to_pylist() == ["WV1", "WV2", "WV2"]
    again = ingest(opened(tmp_path / "in", size=16), tmp_path / "wv.zarr")
    assert (again.floored, again.packed.samples) == (report.floored, 3)


def test_ingest_sets_bad_vignettes_aside(tmp_path: Path) -> None:
    write_product(tmp_path / "in", WV1, WV2)
    (tmp_path / "in" / of("noise")).write_text("")
    with pytest.raises(TooManyBadSamplesError):
        ingest(opened(tmp_path / "in", size=16), tmp_path / "wv.zarr")
    report = ingest(opened(tmp_path / "in", size=16), tmp_path / "wv.zarr", max_bad=0.5)
    assert (report.packed.samples, report.packed.rejected) == (1, 1)
    assert f"noise-{WV1.name}.xml" in report.packed.quarantine.read_text()


def test_targets_join_the_store_by_the_centres_of_vignettes(tmp_path: Path) -> None:
    """At the antimeridian, too, where vignettes have no outline."""
    scenes = WV1, replace(WV2, west=179.994)
    write_product(tmp_path / "in", *scenes)
    ingest(opened(tmp_path / "in", size=16), tmp_path / "wv.zarr")
    store = PackedArchive(tmp_path / "wv.zarr")
    lines = ["time,lat,lon,swh"]
    for number, scene in enumerate(scenes):
        late = (scene.times[0] + timedelta(minutes=20 - 50 * number)).isoformat()
        lines += [f"{late},{scene.latitude(0) + 0.3},{scene.longitude(0)},{number + 2.5}"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    report = collocate(store, tmp_path / "t.csv", ["swh"], tmp_path / "c.parquet", max_minutes=31)
    assert report.matched == {"swh": 2}
    joined = open_archive(tmp_path / "c.parquet")
    assert joined.table()["swh"].to_pylist() == [2.5, 3.5]
    assert joined.table()["swh:km"].to_pylist() == pytest.approx([33, 33], abs=1)
    assert joined.table()["swh:minutes"].to_pylist() == pytest.approx([20, -30], abs=0.1)
    np.testing.assert_array_equal(joined.read(1, "s1"), store.read(1, "s1"))


def test_the_command_packs_a_folder(tmp_path: Path) -> None:
    write_product(tmp_path / "in", WV1, WV2)
    words = ["wv", "ingest", str(tmp_path / "in"), "--out", str(tmp_path / "wv.zarr"), "--size", "16"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "2 samples" in " ".join(result.stderr.split())
    assert open_archive(tmp_path / "wv.zarr").source["packed_from"]["options"]["detrend"] == "cmod5n"


def test_noise_along_the_azimuth_without_limits_is_of_the_whole_image(tmp_path: Path) -> None:
    def unlimited(scene: Any) -> str:
        return re.sub(r"<((?:first|last)(?:AzimuthLine|RangeSample))>\d+</\1>", "", new_noise(scene))

    assert "AzimuthLine" not in unlimited(WV1)
    write_product(tmp_path, WV1, noise=unlimited)
    expected = box_means(sigma0(WV1, new_formula(WV1)), WV1)
    np.testing.assert_allclose(opened(tmp_path).read(0, "s1")[0], expected, rtol=1e-5)
