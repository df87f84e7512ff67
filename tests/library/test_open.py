"""`terrasieve.open`: whatever a user holds becomes an archive, or an error that says how."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import terrasieve as ts
from small_archives.labelled import Labelled
from terrasieve.archive.opening import recognise
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.protocol import Archive
from terrasieve.errors import ArchiveError, BandError, ConfigError, SampleError, TerrasieveError
from terrasieve.sensors import SENSORS, Sensor

Pixels = NDArray[np.uint16]


def test_an_array_with_a_sensor_reads_back_by_the_names_of_its_bands(pixels: Pixels) -> None:
    archive = ts.open(pixels, sensor="s2-l2a", bands=["B04", "B8A", "B02"], labels=[1, 2, None, 1, 2, 2])
    assert archive.sensors["s2"].names == ("B04", "B8A", "B02")
    assert np.array_equal(archive.read(4, "s2", ("B02", "B04")), pixels[4, [2, 0]])
    assert np.array_equal(archive.read(1, "s2", ("B8A",), (2, 3, 4, 5)), pixels[1, 1:2, 2:6, 3:8])
    assert archive.table()["label"].to_pylist() == ["1", "2", None, "1", "2", "2"]


def test_a_packed_store_is_one(archive: Archive, tmp_path: Path) -> None:
    pack(archive[:3], tmp_path / "store.zarr")
    opened = ts.open(tmp_path / "store.zarr")
    assert list(opened.ids) == list(archive.ids[:3])
    assert np.array_equal(opened.read(1, "s2", ("B03",)), archive.read(1, "s2", ("B03",)))
    assert recognise(tmp_path / "store.zarr") == []
    with pytest.raises(ConfigError, match="takes no --tile"):
        ts.open(tmp_path / "store.zarr", tile=32)


def test_an_array_is_not_cut(pixels: Pixels) -> None:
    with pytest.raises(ConfigError, match="tile: not for this kind"):
        ts.open(pixels, tile=32)


def test_an_array_of_no_sensor_gets_numbered_bands(pixels: Pixels) -> None:
    assert ts.open(pixels).sensors["unnamed"].names == ("1", "2", "3")


def test_tensors_and_memory_maps_are_arrays(pixels: Pixels, tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = ts.open(np.load(tmp_path / "pixels.npy", mmap_mode="r"))
    tensor = ts.open(torch.from_numpy(pixels.astype(np.float32)))
    assert np.array_equal(mapped.read(2, "unnamed"), tensor.read(2, "unnamed"))


def test_what_is_read_of_an_array_may_be_changed(pixels: Pixels) -> None:
    before = pixels.copy()
    ts.open(pixels).read(0, "unnamed", None, (0, 0, 4, 4))[:] = 0
    ts.open(pixels).read(0, "unnamed")[:] = 0
    assert np.array_equal(pixels, before)


def test_the_fingerprint_of_arrays_follows_any_pixel(pixels: Pixels) -> None:
    first = ts.open(pixels).source["fingerprint"]
    assert ts.open(pixels.copy()).source["fingerprint"] == first
    pixels[-1, -1, -1, -1] += 1
    assert ts.open(pixels).source["fingerprint"] != first


def test_an_archive_is_itself_and_paths_are_those_of_the_command_line(tmp_path: Path) -> None:
    archive = Labelled()
    assert ts.open(archive) is archive
    assert len(ts.open("simulated:0:5")) == 5
    with pytest.raises(ArchiveError, match="does not exist"):
        ts.open(tmp_path / "nothing")


class Tensors:
    """A data set whose items are pixels and a class."""

    classes = ("field", "wood")

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Any:
        return torch.from_numpy(self.pixels[index].astype(np.float32)), index % 2


class Dictionaries(Tensors):
    """A data set as torchgeo's are."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return {"image": image, "label": torch.tensor(label)}


@pytest.mark.parametrize("kind", [Tensors, Dictionaries])
def test_a_torch_data_set_gives_pixels_and_names_of_classes(kind: type[Tensors], pixels: Pixels) -> None:
    archive = ts.open(kind(pixels), sensor="s2-l1c", bands=["B04", "B03", "B02"])
    assert np.array_equal(archive.read(3, "s2", ("B03",)), pixels[3, 1:2])
    assert archive.table()["label"].to_pylist() == ["field", "wood"] * 3
    # And it is one of torch's again.
    assert archive.as_torch()[3]["label"] == 1


def test_every_form_that_cannot_be_opened_names_one_that_can(pixels: Pixels) -> None:
    cases: list[tuple[Any, dict[str, Any], type[TerrasieveError], str]] = [
        (pixels[0], {}, ArchiveError, "array[None]"),
        (pixels.transpose(0, 2, 3, 1), {"sensor": "s2-rgb8"}, BandError, "second axis"),
        (pixels.astype(object), {}, ArchiveError, "numbers"),
        (pixels, {"sensor": "s2-l2a"}, BandError, "has 12"),
        (pixels, {"bands": ["B04", "B03", "B02"]}, BandError, "sensor='s2-l1c'"),
        (pixels, {"bands": ["B04", "B03", "B99"]}, BandError, "No sensor has the bands"),
        (pixels, {"ids": ["a"] * 6}, ArchiveError, "once"),
        (pixels, {"labels": ["a"]}, ArchiveError, "6 samples"),
        (pixels, {"layout": "eurosat"}, ConfigError, "layout"),
        (pixels, {"sensor": {"s2": "s2-l2a"}}, ConfigError, "folder of scenes"),
        ("simulated", {"labels": ["a"]}, ConfigError, "labels"),
        (42, {}, ArchiveError, "map-style data set"),
        ([{"picture": 1}], {}, SampleError, "dictionary of picture"),
        ([], {}, ArchiveError, "empty"),
    ]
    for source, options, kind, said in cases:
        with pytest.raises(kind, match=re.escape(said)):
            ts.open(source, **options)


def test_a_sensor_for_a_folder_says_of_which_subfolder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape("sensor={'s2': 's2-l2a:.'}")):
        ts.open(tmp_path, sensor="s2-l2a")


@pytest.mark.parametrize("sensor", ["rgb8", SENSORS["rgb8"]])
def test_a_folder_of_pictures_is_of_one_sensor(tmp_path: Path, sensor: str | Sensor) -> None:
    for name in "ab":
        Image.new("RGB", (40, 32), (7, 8, 9)).save(tmp_path / f"{name}.png")
    archive = ts.open(tmp_path, sensor=sensor, tile=16)
    assert len(archive) == 2 * 2 * 2
    assert archive.sensors[next(iter(archive.sensors))].name == "rgb8"
