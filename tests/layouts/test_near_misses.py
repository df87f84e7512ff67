"""Folders that nearly are what a layout reads: recognised, or refused by name with what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from terrasieve.archive.layouts.bigearthnet import BigEarthNetSpec
from terrasieve.archive.layouts.eurosat import CLASSES, EuroSatSpec
from terrasieve.archive.opening import open_archive, recognise
from terrasieve.errors import ArchiveError


def eurosat(root: Path, *without: str) -> Path:
    for label in CLASSES:
        if label not in without:
            (root / label).mkdir(parents=True)
            for number in (1, 2):
                pixels = np.full((64, 64, 3), number, dtype=np.uint8)
                Image.fromarray(pixels).save(root / label / f"{label}_{number}.jpg")
    return root


def test_eurosat_without_a_class_is_told_which(tmp_path: Path) -> None:
    root = eurosat(tmp_path / "e", "River", "SeaLake")
    for said in (root, f"eurosat:{root}"):
        with pytest.raises(ArchiveError, match="EuroSAT's class folders but for River, SeaLake; unpack"):
            open_archive(said)


def test_lists_of_eurosat_100_are_its_split(tmp_path: Path) -> None:
    root = eurosat(tmp_path / "e")
    (root / "eurosat-100-train.txt").write_text("River_1.jpg\nForest_1.jpg\n")
    (root / "eurosat-100-test.txt").write_text("River_2.jpg\n")
    table = EuroSatSpec(root=root).open().table()
    split = dict(zip(table["id"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert (split["River_1"], split["River_2"], split["Forest_2"]) == ("train", "test", None)


def test_bigearthnet_version_1_is_recognised_under_its_own_names(tmp_path: Path, data_dir: Path) -> None:
    for name, shipped in (("BigEarthNet-v1.0", "BigEarthNet-S2"), ("BigEarthNet-S1-v1.0", "BigEarthNet-S1")):
        (tmp_path / name).symlink_to(data_dir / "bigearthnet_sample" / shipped)
    (seen,) = recognise(tmp_path)
    archive, known = seen.spec.open(), BigEarthNetSpec(root=data_dir / "bigearthnet_sample").open()
    assert archive.ids.tolist() == known.ids.tolist()
    for key in known.sensors:
        np.testing.assert_array_equal(archive.read(0, key), known.read(0, key))
    with pytest.raises(ArchiveError, match="name the folder above it"):
        open_archive(data_dir / "bigearthnet_sample" / "BigEarthNet-S2")


def test_dfc2020_of_copernicus_bench_is_told_how_to_open_it(tmp_path: Path, write_tif: Any) -> None:
    for part, bands, kind in (("s1", 2, np.float32), ("s2", 13, np.uint16), ("dfc", 1, np.uint8)):
        pixels = np.full((bands, 256, 256), 7, dtype=kind)
        write_tif(tmp_path / "d" / part / f"ROIs0000_test_{part}_0_p1.tif", pixels)
    with pytest.raises(ArchiveError, match="as Copernicus-Bench ships them") as refused:
        open_archive(tmp_path / "d")
    _, _, advice = str(refused.value).partition("YAML file: ")
    # What is advised opens.
    (tmp_path / "d.yaml").write_text(advice.removesuffix("."))
    assert yaml.safe_load(advice.removesuffix("."))["layout"] == "scenes"
    archive = open_archive(tmp_path / "d.yaml")
    assert archive.ids.tolist() == ["ROIs0000_test_0_p1/0_0"]
    assert set(archive.sensors) == {"s1", "s2", "dfc"}


@pytest.mark.parametrize(
    ("bands", "kind", "said", "never"),
    [
        (3, np.uint8, "If these are pictures: terrasieve index {} --sensor rgb8", "s2-l2a"),
        (1, np.uint8, "If these are pictures: terrasieve index {} --sensor gray8", "s2-l2a"),
        (12, np.uint16, "terrasieve index {} --sensor mine=s2-l2a --tile 8", "s1"),
        (13, np.int16, "terrasieve index {} --sensor mine=s2-l1c --tile 8", "mine=s2-l2a"),
        (2, np.float32, "terrasieve index {} --sensor mine=s1-linear --tile 8", "mine=s2-l2a"),
        (4, np.uint16, "has 4 bands of uint16, as no built-in sensor", "=s2-l2a"),
        (3, np.uint16, "has 3 bands of uint16, as no built-in sensor", "rgb8 "),
    ],
)
def test_sensors_are_suggested_by_the_header(
    tmp_path: Path, write_tif: Any, bands: int, kind: Any, said: str, never: str
) -> None:
    write_tif(tmp_path / "x" / "mine" / "a.TIF", np.ones((bands, 8, 8), dtype=kind))
    with pytest.raises(ArchiveError, match="nothing says of which sensor") as refused:
        open_archive(tmp_path / "x")
    reasons, _, rest = str(refused.value).partition(" Built in:")
    advice = reasons + rest.partition(". ")[2]
    assert said.format(tmp_path / "x") in advice
    assert never not in advice
