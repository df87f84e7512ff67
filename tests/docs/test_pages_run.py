"""What pages show to be typed runs, page by page and in order, on small files of the names that they use.

Left out are lines that the page shows to be refused, and those that act on what is too large to be made here; each page
says how many are left.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from doc_lines import make_room, run, write_named
from doc_pages import ROOT, shell_lines
from small_archives.making import write_tif
from small_archives.pictures import write_pictures
from terrasieve.archive.layouts.eurosat import CLASSES

pytestmark = pytest.mark.slow

ELSEWHERE = (
    r" (demo|wv|collocate|segment|bench) |SAFE|SEN12MS|sites|wv\.|imagenet|s3://|http|EPOCHS|archive\.zarr"
    "|--private|--format transformers"
)
"""Lines on what is made and run by other tests."""
REFUSED = (
    r"train\.epoch=4|mine\.yaml|rgb\.yaml|1e30|model\.name=resnet50"
    r"|pack scenes --out|clipped\.parquet$|bgr\.yaml|runs/flight$|info long\.zarr"
)
"""Lines that a page shows to be refused, or whose file it shows besides."""
PAGES = {
    "README.md": 8,
    "docs/quickstart.md": 9,
    "docs/how-to/curate.md": 4,
    "docs/how-to/dense-maps.md": 3,
    "docs/how-to/embed.md": 2,
    "docs/how-to/ocean.md": 4,
    "docs/how-to/own-scenes.md": 6,
    "docs/how-to/own-sensor.md": 2,
    "docs/how-to/pack.md": 4,
    "docs/how-to/pretrain.md": 4,
    "docs/how-to/probe.md": 1,
    "docs/how-to/report.md": 3,
    "docs/how-to/share.md": 5,
    "docs/how-to/start-from-weights.md": 1,
}
"""How many lines of a page run, at least."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, labelled pictures, a store, runs and embeddings, by the names that pages give them."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    names = [f"{{}}_{number}.jpg" for number in range(1, 7)]
    for name in ("EuroSAT_RGB", "eurosat"):
        write_pictures(folder / name, CLASSES, names, lambda label, place: rng.integers(0, 255, (64, 64, 3), np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (
            "terrasieve pack simulated:0:48 --out pairs.zarr",
            "terrasieve pack simulated:0:48 --out sim.zarr",
            "terrasieve pack simulated:5:48 --out coast.zarr",
            "terrasieve index simulated:0:48 --out pairs.parquet",
            *(
                f"terrasieve pretrain rs-byol-1-small --data pairs.zarr --out runs/{run}"
                for run in ("first", "second", "sim")
            ),
            "terrasieve embed runs/first --data pairs.zarr --input s2:B03 --out embeddings.parquet",
        ):
            found = run(line)
            assert found.exit_code == 0, (line, found.output)
    return folder


def scenes(folder: Path, bands: int, kind: type[np.generic], size: int) -> None:
    """Scenes of both sensors as a page shows them."""
    rng = np.random.default_rng(1)
    for name, east in (("019", 500_000.0), ("021", 600_000.0)):
        optical = rng.integers(1, 200, (bands, size, size)).astype(kind)
        radar = rng.normal(-14, 3, (2, size, size)).astype(np.float32) if bands > 3 else optical[:1]
        write_tif(folder / "s2" / f"{name}.tif", optical, origin=(east, 5_000_000.0))
        write_tif(folder / "s1" / f"{name}.tif", radar, origin=(east, 5_000_000.0))


def write_scenes(folder: Path) -> None:
    """Pairs whose names say nothing, files of which some are spoilt, and one of which a corner was never seen."""
    scenes(folder / "scenes", 3, np.uint8, 256)
    scenes(folder / "offset", 3, np.uint8, 128)
    (folder / "offset" / "s2").rename(folder / "offset" / "optical")
    (folder / "offset" / "s1").rename(folder / "offset" / "radar")
    scenes(folder / "spoilt", 3, np.uint8, 256)
    (folder / "spoilt" / "s1" / "021.tif").unlink()
    pixels = np.random.default_rng(2).integers(1, 4000, (12, 224, 224)).astype(np.uint16)
    pixels[:, :44, 168:] = 0
    write_tif(folder / "clipped" / "38D.tif", pixels)
    shutil.copy(folder / "pairs.parquet", folder / "one-scene.parquet")


def write_flight(folder: Path) -> None:
    """Two strips of an airborne camera."""
    rng = np.random.default_rng(3)
    for number in range(2):
        pixels = rng.integers(1, 250, (3, 256, 256)).astype(np.uint8)
        write_tif(folder / "flight" / f"{number}.tif", pixels, origin=(500_000.0, 5_000_000.0 + number))
    run("terrasieve pack flight --sensor camera=airborne.yaml:. --tile 64 --out flight.zarr")


def write_scene(folder: Path) -> None:
    """A scene, and an encoder that was trained on its sensor."""
    shutil.rmtree(folder / "runs" / "first")
    run("terrasieve pretrain rs-byol-1-ms-only-small --data scenes --sensor s2=s2-rgb8 --out runs/first")
    write_tif(folder / "scene.tif", np.random.default_rng(4).integers(1, 250, (3, 128, 128)).astype(np.uint8))


SCENES = {
    "docs/how-to/own-scenes.md": write_scenes,
    "docs/how-to/own-sensor.md": write_flight,
    "docs/how-to/dense-maps.md": write_scene,
}
"""What a page uses besides."""


def shown(page: str) -> list[str]:
    """The lines of a page that are run here."""
    lines = [line for line in shell_lines((ROOT / page).read_text("utf-8")) if re.match(r"terrasieve [a-z]", line)]
    return [line for line in lines if not re.search(ELSEWHERE, line) and not re.search(rf"{REFUSED}|\.\.\.", line)]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_runs(page: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    scenes(tmp_path / "scenes", *((12, np.uint16, 256) if page == "README.md" else (3, np.uint8, 128)))
    monkeypatch.chdir(tmp_path)
    write_named((ROOT / page).read_text("utf-8"))
    SCENES.get(page, lambda folder: None)(tmp_path)
    failed, lines = {}, shown(page)
    for line in lines:
        make_room(line)
        found = run(line)
        if found.exit_code:
            failed[line] = f"{found.output} {found.exception!r}"
    assert not failed, "\n".join(f"{line}\n{said}" for line, said in failed.items())
    assert len(lines) >= PAGES[page]
