from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from terrasieve.archive.layouts.eurosat import EuroSatArchive, EuroSatSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.overview import contact_sheet, describe, spaced_evenly
from terrasieve.archive.quicklook import pictures, shown_bands
from terrasieve.archive.scenes.tiled import ScenesArchive, ScenesSpec, SensorFolder
from terrasieve.sensors import SENSORS


def printed(archive: Any, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(describe(archive))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.fixture(scope="module")
def sites(data_dir: Path) -> ScenesArchive:
    folders = {"s2": ("S2L1C", "s2-l1c"), "s1": ("S1RTC", "s1"), "lc": ("LULC", "land-cover")}
    sensors = {key: SensorFolder(folder=Path(folder), sensor=name) for key, (folder, name) in folders.items()}
    return ScenesArchive(ScenesSpec(root=data_dir / "terramesh_sites", sensors=sensors, tile=224))


def test_the_tables_state_what_the_files_hold(sites: ScenesArchive) -> None:
    text = printed(sites)
    for part in (
        "samples  5",
        "EPSG:32736 (1)",
        "s2: s2-l1c, reflectance_e4",
        "s1: s1, db",
        "224x224",
        "time     unknown",
    ):
        assert part in text
    vv = np.concatenate([sites.read(i, "s1", ["VV"]).ravel() for i in range(5)]).astype(np.float64)
    line = next(line for line in text.splitlines() if line.strip().startswith("VV"))
    assert [float(word) for word in line.split()[2:]] == [
        float(f"{value:.4g}") for value in (vv.mean(), vv.std(), vv.min(), vv.max())
    ]
    assert "SIMULATED" not in text


def test_class_numbers_have_no_mean(sites: ScenesArchive) -> None:
    line = next(line for line in printed(sites).splitlines() if line.strip().startswith("class"))
    assert line.split()[2:4] == ["-", "-"]


def test_labels_and_splits_are_counted(data_dir: Path) -> None:
    text = printed(EuroSatArchive(EuroSatSpec(root=data_dir / "eurosat_rgb")))
    assert "train (5,000), test (1,000), val (1,000)" in text
    line = next(line for line in text.splitlines() if line.strip().startswith("SeaLake"))
    assert line.split()[1:3] == ["700", "10.0%"]


def test_simulated_data_is_called_so(tmp_path: Path) -> None:
    archive = open_archive("simulated:0:4")
    assert "SIMULATED" in printed(archive)
    assert contact_sheet(archive, tmp_path / "s.png").is_file()


def test_rejected_scenes_are_mentioned(tmp_path: Path, write_tif: Any) -> None:
    for name in ("s2/a", "s2/b", "s1/b"):
        write_tif(tmp_path / f"{name}.tif", np.ones((3 if "s2" in name else 1, 32, 32), np.uint8))
    sensors = {
        "s2": SensorFolder(folder=Path("s2"), sensor="s2-rgb8"),
        "s1": SensorFolder(folder=Path("s1"), sensor="s1-vh8"),
    }
    text = printed(ScenesArchive(ScenesSpec(root=tmp_path, sensors=sensors, tile=16)))
    assert "rejected  4 samples" in text


def test_the_sheet_is_a_png_with_a_panel_for_each_sensor(sites: ScenesArchive, tmp_path: Path) -> None:
    path = contact_sheet(sites, tmp_path / "deep" / "sheet.png", samples=3)
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).astype(int)
    ink = (pixels < 250).any(axis=2)
    assert ink.mean() > 0.3
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]


@given(total=st.integers(0, 500), wanted=st.integers(1, 40))
def test_samples_are_spread_from_first_to_last(total: int, wanted: int) -> None:
    chosen = spaced_evenly(total, wanted)
    assert len(chosen) == min(total, wanted)
    if total and wanted > 1:
        assert (chosen[0], chosen[-1]) == (0, total - 1)
        assert max(np.diff(chosen), default=1) - min(np.diff(chosen), default=1) <= 1


def test_true_colour_where_there_is_red_green_and_blue() -> None:
    assert shown_bands(SENSORS["s2-l1c"]) == ("B04", "B03", "B02")
    assert shown_bands(SENSORS["s1"]) == ("VV",)


def test_pictures_are_comparable_within_a_sensor() -> None:
    dark, bright = (np.full((3, 8, 8), value, np.uint8) for value in (0, 200))
    shown = pictures([dark, bright], SENSORS["s2-rgb8"])
    assert shown[0].shape == (8, 8, 3)
    assert (shown[0] == 0).all()
    assert (shown[1] == 1).all()


def test_what_is_missing_is_grey_and_does_not_stretch() -> None:
    sample = np.linspace(-20, -5, 64, dtype=np.float32).reshape(1, 8, 8)
    holed = sample.copy()
    holed[0, 0, 0] = np.nan
    (shown,) = pictures([holed], SENSORS["s1"])
    assert np.isfinite(shown).all()
    assert (shown[0, 0] == 0.5).all()
    assert shown[7, 7, 0] == 1


def test_classes_have_colours_of_their_own() -> None:
    (shown,) = pictures([np.arange(10, dtype=np.uint8).reshape(1, 2, 5)], SENSORS["land-cover"])
    assert len({tuple(colour) for colour in shown.reshape(-1, 3)}) == 10
