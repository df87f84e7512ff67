"""What torchgeo's data sets read from the same folders: pixels, bands, classes and splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import terrasieve._torchvision  # noqa: F401  # makes torchvision importable where its build does not match torch's

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from small_archives.pictures import write_pictures
from terrasieve.archive.layouts import eurosat, resisc45, uc_merced
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive

datasets = pytest.importorskip("torchgeo.datasets", reason="torchgeo is not installed")

Site = Callable[..., NDArray[Any]]
SPLITS = ("train", "val", "test")


def found_by_id(archive: Archive) -> dict[str, int]:
    return {name: index for index, name in enumerate(archive.ids.tolist())}


def labels_of(archive: Archive) -> dict[str, str]:
    return dict(zip(archive.ids.tolist(), archive.table()["label"].to_pylist(), strict=True))


def split_of(archive: Archive) -> dict[str, str]:
    return dict(zip(archive.ids.tolist(), archive.table()["split"].to_pylist(), strict=True))


def write_lists(root: Path, prefix: str, classes: tuple[str, ...], suffix: str) -> None:
    for number, split in enumerate(SPLITS):
        names = [f"{label}_{number}{suffix}" for label in classes]
        (root / f"{prefix}{split}.txt").write_text("\n".join(names), encoding="utf-8")


def test_eurosat(tmp_path: Path, site: Site, write_tif: Any) -> None:
    pixels, folder = site("S2L1C"), tmp_path / datasets.EuroSAT.base_dir
    for place, label in enumerate(eurosat.CLASSES):
        for number in range(3):
            corner = 12 * place + 4 * number
            write_tif(folder / label / f"{label}_{number}.tif", pixels[:, corner : corner + 64, 8:72])
    write_lists(tmp_path, "eurosat-", eurosat.CLASSES, ".jpg")
    ours = open_archive(tmp_path)
    index, labels, splits = found_by_id(ours), labels_of(ours), split_of(ours)
    for split in SPLITS:
        theirs = datasets.EuroSAT(tmp_path, split=split, bands=["B8A", "B02", "B12"])
        assert len(theirs) == 10
        for position, (path, _) in enumerate(theirs.imgs):
            name, sample = Path(path).stem, theirs[position]
            assert splits[name] == split
            assert labels[name] == theirs.classes[int(sample["label"])]
            np.testing.assert_array_equal(ours.read(index[name], "s2", ["B8A", "B02", "B12"]), sample["image"].numpy())


def test_sen12ms(tmp_path: Path, site: Site, write_tif: Any) -> None:
    names = []
    for place, season in enumerate(("ROIs1158_spring", "ROIs1868_summer", "ROIs1970_fall", "ROIs2017_winter")):
        for key, pixels in (("s1", site("S1RTC")), ("s2", site("S2L1C").astype(np.uint16)), ("lc", site("LULC"))):
            values = np.repeat(pixels[:1] + 1, 4, axis=0).astype(np.uint16) if key == "lc" else pixels
            path = tmp_path / season / f"{key}_{place}" / f"{season}_{key}_{place}_p{place}.tif"
            write_tif(path, np.roll(values, 9 * place, axis=2))
        names.append(f"{season}_s1_{place}_p{place}.tif")
    (tmp_path / "train_list.txt").write_text("\n".join(names[:3]), encoding="utf-8")
    (tmp_path / "test_list.txt").write_text(names[3], encoding="utf-8")
    ours = open_archive(tmp_path)
    index, splits = found_by_id(ours), split_of(ours)
    for split, listed in (("train", names[:3]), ("test", names[3:])):
        theirs = datasets.SEN12MS(tmp_path, split=split)
        for position, file in enumerate(listed):
            name, sample = Path(file).stem.replace("_s1", ""), theirs[position]
            assert splits[name] == split
            found = np.concatenate([ours.read(index[name], key).astype(np.float32) for key in ("s1", "s2")])
            np.testing.assert_array_equal(found, sample["image"].float().numpy())
            np.testing.assert_array_equal(ours.read(index[name], "lc")[0], sample["mask"].numpy())


def test_bigearthnet(tmp_path: Path, data_dir: Path) -> None:
    ours = open_archive(data_dir / "bigearthnet_sample")
    (tmp_path / "BigEarthNet-v1.0").symlink_to(data_dir / "bigearthnet_sample" / "BigEarthNet-S2")
    (tmp_path / "BigEarthNet-S1-v1.0").symlink_to(data_dir / "bigearthnet_sample" / "BigEarthNet-S1")
    rows = ours.table().to_pylist()
    pairs = [f"{row['id']},{Path(row['asset:s1']).parent.name}" for row in rows]
    for split in SPLITS:
        (tmp_path / f"bigearthnet-{split}.csv").write_text("\n".join(pairs), encoding="utf-8")
    theirs = datasets.BigEarthNet(tmp_path, split="train", bands="all", num_classes=19)
    assert len(theirs) == len(ours) == 3
    for position, row in enumerate(rows):
        sample = theirs[position]
        assert row["labels"] == sorted(theirs._onehot_labels_to_names(sample["label"].numpy()))
        # torchgeo casts to whole numbers, decibels too.
        radar, optical = sample["image"][:2].numpy(), sample["image"][2:].numpy()
        np.testing.assert_allclose(ours.read(position, "s1", ["VH", "VV"]), radar, atol=1)
        np.testing.assert_allclose(ours.read(position, "s2"), optical, atol=1)


@pytest.mark.parametrize(
    ("dataset", "classes", "folder", "suffix", "prefix"),
    [
        (datasets.RESISC45, resisc45.CLASSES, "NWPU-RESISC45", ".jpg", "resisc45-"),
        (datasets.UCMerced, uc_merced.CLASSES, "UCMerced_LandUse/Images", ".tif", "uc_merced-"),
    ],
)
def test_pictures(
    dataset: Any, classes: tuple[str, ...], folder: str, suffix: str, prefix: str, tmp_path: Path, scene: NDArray[Any]
) -> None:
    def pixels(label: str, place: int) -> NDArray[Any]:
        top, left = 8 * classes.index(label), 100 * place
        return scene[top : top + 256, left : left + 256]

    write_pictures(tmp_path / folder, classes, [f"{{}}_{number}{suffix}" for number in range(3)], pixels)
    write_lists(tmp_path, prefix, classes, suffix)
    ours = open_archive(tmp_path)
    index, labels, splits = found_by_id(ours), labels_of(ours), split_of(ours)
    for split in SPLITS:
        theirs = dataset(tmp_path, split=split)
        assert len(theirs) == len(classes)
        for position in range(0, len(theirs), 7):
            name, sample = Path(theirs.imgs[position][0]).stem, theirs[position]
            assert splits[name] == split
            assert labels[name] == theirs.classes[int(sample["label"])]
            np.testing.assert_array_equal(ours.read(index[name], "rgb"), sample["image"].numpy())


def test_so2sat(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for stem in ("training", "validation", "testing"):
        with h5py.File(tmp_path / f"{stem}.h5", "w") as file:
            file["sen1"], file["sen2"] = rng.normal(size=(3, 32, 32, 8)), rng.random((3, 32, 32, 10))
            file["label"] = np.eye(17)[rng.integers(0, 17, 3)]
    ours = open_archive(tmp_path)
    index, labels, splits = found_by_id(ours), labels_of(ours), split_of(ours)
    for split, stem in (("train", "training"), ("validation", "validation"), ("test", "testing")):
        theirs = datasets.So2Sat(tmp_path, version="2", split=split)
        for position in range(3):
            name, sample = f"{stem}/{position:06d}", theirs[position]
            assert splits[name] == {"validation": "val"}.get(split, split)
            said = theirs.classes[int(sample["label"])]
            assert _plain(labels[name]) == _plain(said)
            found = np.concatenate([ours.read(index[name], key) for key in ("s1", "s2")])
            np.testing.assert_array_equal(found.astype(np.float32), sample["image"].numpy())


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalpha())


def test_ssl4eo_s12(tmp_path: Path, site: Site, write_tif: Any) -> None:
    pixels = site("S2L1C", size=264)
    fine = {"B2": 1, "B3": 2, "B4": 3, "B8": 7}
    for place, band in enumerate(datasets.SSL4EOS12.metadata["s2c"]["bands"]):
        step = 1 if band in fine else 6 if band in ("B1", "B9", "B10") else 2
        path = tmp_path / "s2c" / "0000000" / "20200307T054639_20200307T054831_T43RCP" / f"{band}.tif"
        write_tif(path, pixels[place, ::step, ::step][None], resolution=10 * step)
    ours = open_archive(f"ssl4eo-s12:{tmp_path}")
    theirs = datasets.SSL4EOS12(tmp_path, split="s2c")[0]["image"].numpy()
    # torchgeo takes the nearest pixel of coarser bands, terrasieve interpolates: bands of 10 m have to be equal.
    for band, place in fine.items():
        np.testing.assert_array_equal(ours.read(0, "s2c", [f"B0{band[1]}"])[0], theirs[place])
    assert np.abs(ours.read(0, "s2c") - theirs).mean() < 0.1 * theirs.mean()
