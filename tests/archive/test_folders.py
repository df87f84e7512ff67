"""One way to list folders: leftovers are nothing, suffixes count in any case, links neither loop nor hide a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrasieve.archive.folders import (
    NotTaken,
    count_data,
    find_files,
    has_files,
    kind_of,
    list_files,
    subfolders,
    walk,
)
from terrasieve.archive.opening import open_archive, scenes_spec_from_options
from terrasieve.archive.scenes.survey import edge_share
from terrasieve.errors import ArchiveError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.TIF", ".tif"), ("a.tiff", ".tif"), ("a.Jpeg", ".jpg"), ("a.b.zarr.ZIP", ".zarr.zip"), ("LICENSE", "")],
)
def test_the_kind_of_a_file_does_not_depend_on_how_its_suffix_is_written(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_leftovers_of_systems_are_neither_files_nor_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "._a.tif", ".DS_Store", "Thumbs.db", "desktop.ini")
    touch(tmp_path, "__MACOSX/s2/._a.tif", ".ipynb_checkpoints/a-checkpoint.tif", "@eaDir/a.tif", "s2/b.TIFF")
    assert list_files(tmp_path, ".tif") == [tmp_path / "a.tif"]
    assert subfolders(tmp_path) == ["s2"]
    found = find_files(tmp_path, "**/*.tif")
    assert found.files == [tmp_path / "a.tif", tmp_path / "s2/b.TIFF"]
    assert not found.others


def test_patterns_find_every_way_to_write_a_suffix_and_the_rest_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "b.TIF", "x/c.tiff", "x/y/d.Tif", "e.jp2", "f.JP2", "g.zip", "a.tif.aux.xml", "notes.txt")
    found = find_files(tmp_path, "**/*.tif")
    assert [path.name for path in found.files] == ["a.tif", "b.TIF", "c.tiff", "d.Tif"]
    assert found.others == {".jp2": 2, ".zip": 1}
    assert [path.name for path in find_files(tmp_path, "*.TIF").files] == ["a.tif", "b.TIF"]
    assert [path.name for path in find_files(tmp_path, "x/**/d*").files] == ["d.Tif"]
    assert not find_files(tmp_path, "*A*.tif").files, "only suffixes may be written in another case"


def test_links_are_followed_once_and_those_to_nothing_are_counted(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    touch(elsewhere, "far.tif")
    top = tmp_path / "top"
    touch(top, "z/near.tif")
    os.symlink(elsewhere, top / "linked")
    os.symlink(top, top / "z" / "up")
    os.symlink(top / "z", top / "a")
    os.symlink(tmp_path / "gone", top / "lost.tif")
    found = find_files(top, "**/*.tif")
    # What can be reached without a link keeps that name, although the link ``a`` comes first.
    assert found.files == [top / "linked/far.tif", top / "z/near.tif"]
    assert found.links == 1
    assert len(list(walk(top, 6))) == 3


def test_a_data_set_is_told_of_zips_and_of_other_products_beside_it(tmp_path: Path) -> None:
    touch(tmp_path, "a.zip", "b/c.zip", "b/S2A.SAFE/GRANULE/x.jp2", "b/d.jpg", "README.md", "b/e.JPG", "b/f.png")
    assert count_data(tmp_path, {".jpg"}) == NotTaken({".zip": 2, ".safe": 1, ".png": 1})
    assert has_files(tmp_path / "b", ".jpg")
    assert not has_files(tmp_path, ".jpg")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ArchiveError, match="cannot be listed"):
        list_files(tmp_path, ".tif")


def test_what_is_not_taken_is_one_line() -> None:
    assert NotTaken().line() == ""
    assert NotTaken({".jp2": 1, ".zip": 3}, links=1, edges=0.412).line() == (
        "not taken: 3 .zip, 1 .jp2, 1 unreadable link, 41 % of pixels at the edges (--edge overlap)"
    )
    assert "less than 1 %" in NotTaken(edges=0.004).line()


def test_pixels_beyond_the_last_tile_are_counted() -> None:
    assert edge_share([(251, 251)], 64, 64, "drop") == pytest.approx(1 - (192 / 251) ** 2)
    assert edge_share([(251, 251), (256, 256)], 64, 64, "overlap") == 0
    assert edge_share([(256, 128)], 64, 32, "drop") == 0


def test_no_scene_is_lost_for_its_suffix_or_a_link(tmp_path: Path, write_tif: Any) -> None:
    pixels = np.arange(3 * 16 * 16, dtype=np.uint8).reshape(3, 16, 16)
    for name in ("s2/a.tif", "s2/b.TIF", "s2/c.tiff"):
        write_tif(tmp_path / "scenes" / name, pixels)
    write_tif(tmp_path / "far" / "d.tif", pixels)
    os.symlink(tmp_path / "far", tmp_path / "scenes" / "s2" / "link")
    touch(tmp_path / "scenes" / "s2", "._a.tif", "e.zip")
    archive = open_archive(scenes_spec_from_options(tmp_path / "scenes", ["s2=rgb8"], tile=16))
    assert [scene.name for scene in archive.scenes] == ["a", "b", "c", "link/d"]
    assert archive.not_taken.files == {".zip": 1}
