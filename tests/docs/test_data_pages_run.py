"""What pages on data sets and products show to be typed runs, on small data in their layouts and of their names."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from doc_lines import make_room, run, write_named
from doc_pages import ROOT, shell_lines
from small_archives import bigearthnet, geobench2, so2sat
from small_archives.eopf_products import write_eopf
from small_archives.granule_products import HYP3, LANDSAT, PLANETARY, S30, write_band, write_hls, write_landsat
from small_archives.grd_products import Image, write_grd
from small_archives.major_tom import major_tom
from small_archives.making import Bench, write_tif
from small_archives.pictures import write_eurosat_tif, write_pictures
from small_archives.sentinel2_products import BAND_IDS, Safe, drawn, drawn_classes, write_safe
from small_archives.ssl4eo_s12 import DAYS, write_scene
from small_archives.stac import asset, collection, item, noise
from small_archives.tengeop_sarwv import write_tengeop
from small_archives.terramesh_sites import terramesh_sites
from small_archives.triplets import TRIPLETS, write_dfc2020, write_sen12ms
from small_archives.wave_mode import Scene, write_product
from terrasieve.archive.layouts import eurosat, resisc45, uc_merced
from terrasieve.archive.layouts.bigearthnet import S1
from terrasieve.archive.layouts.so2sat import CLASSES
from terrasieve.sensors import SENSORS

pytestmark = pytest.mark.slow

LONG = "--labels dfc"
"""On maps of 256 pixels a segmentation takes half a minute; the page of GEO-Bench-2 shows one on smaller maps."""
ALONE = ("26_3", "90_90")
"""Patches without their partners, of which the writer has more than the one in a hundred that may be bad."""


def write_bigearthnet(bench: Bench) -> None:
    def put(folder: Path, kind: str) -> None:
        if folder.name.endswith(ALONE):
            return
        for place, band in enumerate(SENSORS["s1" if kind == S1 else "s2-l2a"].bands):
            size = round(1200 / band.gsd)
            pixels = bench.radar(size)[place : place + 1] if kind == S1 else bench.optical(1, size)
            write_tif(folder / f"{folder.name}_{band.name}.tif", pixels, resolution=band.gsd)

    bigearthnet.write_bigearthnet(bench.folder / "BigEarthNet", put)


def write_dfc(bench: Bench) -> None:
    maps = {
        f"ROIs0000_{part}_0_p{place}": {1: 100, 4: 156} if place % 2 else {1: 156, 6: 100}
        for part in ("validation", "test")
        for place in range(4)
    }
    write_dfc2020(bench.folder / "DFC2020", lambda place: bench.radar(256), lambda place: bench.optical(13, 256), maps)


def write_eurosat(bench: Bench) -> None:
    root = bench.folder / "EuroSAT_MS"
    for number in range(3):
        write_eurosat_tif(bench.folder / "one", lambda place: bench.optical(13, 64))
        for path in sorted((bench.folder / "one").rglob("*.tif")):
            target = root / path.parent.name / f"{path.parent.name}_{number + 1}.tif"
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    for kind in ("eurosat", "eurosat-spatial"):
        for number, split in enumerate(("train", "val", "test"), start=1):
            names = [f"{label}_{number}.jpg" for label in eurosat.CLASSES]
            (root / f"{kind}-{split}.txt").write_text("\n".join(names) + "\n")


def write_geobench(bench: Bench) -> None:
    labels = (["Pastures"], ["Marine waters", "Pastures"], ["Marine waters"])
    both = [
        {"s1": geobench2.as_tif(bench.radar(32)), "s2": geobench2.as_tif(bench.optical(12, 32), 60)} for _ in range(9)
    ]
    columns = [geobench2.stated(32, labels=labels[number % 3]) for number in range(9)]
    (bench.folder / "benv2").mkdir()
    (bench.folder / "so2sat").mkdir()
    (bench.folder / "flair2").mkdir()
    geobench2.write(bench.folder / "benv2" / "geobench_benv2.tortilla", both, columns)
    zones = [
        {"s1": geobench2.as_tif(bench.radar(32)), "s2": geobench2.as_tif(bench.rng.random((10, 32, 32)), 10)}
        for _ in range(18)
    ]
    columns = [geobench2.stated(32, labels=CLASSES[number // 3 % 2]) for number in range(18)]
    geobench2.write(bench.folder / "so2sat" / "geobench_so2sat.tortilla", zones, columns)
    maps = [
        {
            "aerial": geobench2.as_tif(bench.rng.integers(1, 256, (5, 64, 64)).astype(np.uint8), 0.2),
            "mask": geobench2.as_tif(bench.rng.integers(1, 4, (1, 64, 64)).astype(np.uint8), 0.2),
        }
        for _ in range(9)
    ]
    geobench2.write(bench.folder / "flair2" / "geobench_flair2.tortilla", maps, [geobench2.stated(64)] * 9)


def write_major_tom(bench: Bench) -> None:
    bench.folder /= "Major-TOM"
    major_tom(bench)


def write_table(bench: Bench) -> None:
    rows = ["id,path,label,split,swh"]
    for number in range(24):
        pixels = bench.rng.normal(0, 1, (1, 64, 64)).astype(np.float32) ** 2
        write_tif(bench.folder / "img" / f"{number}.tif", pixels)
        split = ("train", "train", "val", "test")[number % 4]
        rows.append(f"{number},img/{number}.tif,{'waves' if number % 3 else 'slicks'},{split},{pixels.mean()}")
    (bench.folder / "samples.csv").write_text("\n".join(rows) + "\n")


def write_resisc(bench: Bench) -> None:
    names = [f"{{}}_{number:03d}.jpg" for number in range(1, 4)]
    folder = bench.folder / "NWPU-RESISC45"
    write_pictures(folder, resisc45.CLASSES, names, lambda label, place: bench.picture(256, 256))


def write_merced(bench: Bench) -> None:
    folder = bench.folder / "UCMerced_LandUse" / "Images"
    names = [f"{{}}{number:02d}.tif" for number in range(3)]
    write_pictures(folder, uc_merced.CLASSES, names, lambda label, place: bench.picture(256, 256))


def write_sen(bench: Bench) -> None:
    whole = {name: shares for name, shares in TRIPLETS.items() if not name.endswith("146_p202")}
    write_sen12ms(bench.folder / "SEN12MS", lambda place: bench.radar(256), lambda place: bench.optical(13, 256), whole)


def write_so2sat(bench: Bench) -> None:
    for stem in ("training", "validation", "testing"):
        so2sat.write(bench.folder / "So2Sat" / f"{stem}.h5", bench.rng.random((12, 32, 32, 10)), np.arange(12) % 4)


def write_ssl4eo(bench: Bench) -> None:
    root = bench.folder / "SSL4EO-S12"
    for location in ("0000000", "0000004"):
        for day in DAYS:
            write_scene(root, "s1", location, day, lambda place, step: bench.radar(264)[place])
            write_scene(root, "s2c", location, day, lambda place, step: bench.optical(1, 264 // step)[0])


def write_items(bench: Bench) -> None:
    bands = SENSORS["s2-l2a"].bands
    items = []
    for name in "ab":
        assets = {}
        for number, band in enumerate(bands):
            file, step = f"{name}-{band.name}.tif", round(band.gsd / 10)
            write_tif(bench.folder / file, noise(number, side=516 // step), resolution=band.gsd)
            assets[band.name.lower()] = asset(file, band.name)
        items.append(item(name, assets))
    collection(bench.folder / "items.json", *items)


def write_vignettes(bench: Bench) -> None:
    write_tengeop(bench.folder / "TenGeoP-SARwv")


def write_sites(bench: Bench) -> None:
    bench.folder /= "sites"
    terramesh_sites(bench)


def write_wave_mode(bench: Bench) -> None:
    # Pixels as far apart as it takes for so few of them to cover 20 km.
    scenes = [Scene(number, lines=480, samples=520, range_spacing=16, azimuth_spacing=42) for number in range(1, 13)]
    write_product(bench.folder / "products", *scenes)
    rows = [f"{scene.times[0].isoformat()},40.01,-29.99,{scene.number % 4},{scene.number}" for scene in scenes]
    (bench.folder / "altimeter.csv").write_text("\n".join(["time,latitude,longitude,swh,wind_speed", *rows]) + "\n")


def write_tracks(bench: Bench) -> None:
    write_wave_mode(bench)
    found = run(f"terrasieve wv ingest {bench.folder / 'products'} --out {bench.folder / 'wv.zarr'}")
    assert found.exit_code == 0, found.output


def write_offset(bench: Bench) -> None:
    """A site with the offset of 1,000 and one without."""
    for name, offset in (("38D", 0), ("282D", 1000)):
        write_tif(bench.folder / "sites" / "S2L1C" / f"{name}.tif", bench.optical(13, 224) + offset)


def write_products(bench: Bench) -> None:
    write_safe(bench.folder, Safe("l2a", drawn("l2a", 288), drawn_classes(288)))
    write_eopf(bench.folder, drawn("l2a", 288), drawn_classes(288))
    images = [Image(10 ** (np.float64(pixels) / 10)) for pixels in bench.radar(288)]
    write_grd(bench.folder, images[0], replace(images[1], polarisation="VH"))
    numbers = {f"SR_B{number}": bench.optical(1, 288)[0] + np.uint16(7300) for number in range(1, 8)}
    write_landsat(bench.folder / LANDSAT, {**numbers, "QA_PIXEL": np.full((288, 288), 21_824, np.uint16)})
    bands = {name: bench.optical(1, 288)[0].astype(np.int16) for name in BAND_IDS}
    write_hls(bench.folder / S30, {**bands, "Fmask": np.zeros((288, 288), np.uint8)})
    for place, name in enumerate(("VV", "VH")):
        power = (10 ** (bench.radar(288)[place] / 10)).astype(np.float32)
        write_band(bench.folder / HYP3 / f"{HYP3}_{name}.tif", power, 0)
        path = bench.folder / PLANETARY / "measurement" / f"iw-{name.lower()}.rtc.tiff"
        write_band(path, power, -32768, spacing=10)


WRITERS: Mapping[str, Callable[[Bench], None]] = {
    "datasets/bigearthnet": write_bigearthnet,
    "datasets/dfc2020": write_dfc,
    "datasets/eurosat": write_eurosat,
    "datasets/geobench2": write_geobench,
    "datasets/major-tom": write_major_tom,
    "datasets/plain-table": write_table,
    "datasets/resisc45": write_resisc,
    "datasets/sen12ms": write_sen,
    "datasets/so2sat": write_so2sat,
    "datasets/ssl4eo-s12": write_ssl4eo,
    "datasets/stac": write_items,
    "datasets/tengeop-sarwv": write_vignettes,
    "datasets/terramesh": write_sites,
    "datasets/uc-merced": write_merced,
    "datasets/wave-mode": write_wave_mode,
    "how-to/collocate": write_tracks,
    "how-to/products": write_products,
    "how-to/suspicions": write_offset,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders of one band and of three, by the names that pages give them."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (
            "terrasieve pretrain rs-byol-1-small --data simulated:0:48 --out runs/first",
            "terrasieve pretrain rs-byol-3-small --data simulated:0:48 --out runs/three",
        ):
            found = run(line)
            assert found.exit_code == 0, (line, found.output)
    for name in ("sen12ms", "wv"):
        shutil.copytree(folder / "runs" / "first", folder / "runs" / name)
    return folder


@pytest.mark.parametrize("page", WRITERS)
def test_what_a_page_on_data_shows_runs(page: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    WRITERS[page](Bench(tmp_path))
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    write_named(text)
    lines = [line for line in shell_lines(text) if re.match(r"terrasieve [a-z]", line) and LONG not in line]
    failed = {}
    for line in lines:
        make_room(line)
        found = run(line)
        if found.exit_code:
            failed[line] = f"{found.output} {found.exception!r}"
    assert lines
    assert not failed, "\n".join(f"{line}\n{said}" for line, said in failed.items())
