"""Class folders are found where a download puts them, and not looked for among half a million patches."""

from __future__ import annotations

from pathlib import Path

import pytest

from terrasieve.archive.patches import class_folders
from terrasieve.archive.patches.class_folders import find_class_folders, likely_folders


def test_class_folders_are_found_six_levels_down_and_no_further(tmp_path: Path) -> None:
    for depth in ("a/b/c/d/e/f", "a/b/c/d/e/f/g"):
        for label in ("x", "y"):
            (tmp_path / depth / label).mkdir(parents=True)
            (tmp_path / depth / label / "1.jpg").write_bytes(b"")
    assert find_class_folders(tmp_path, ["x", "y"], [".jpg"]) == {".jpg": tmp_path / "a/b/c/d/e/f"}


def test_a_folder_of_patches_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_folders, "CROWDED", 3)
    for number in range(4):
        (tmp_path / "patches" / str(number) / "inner").mkdir(parents=True)
    assert list(likely_folders(tmp_path, ())) == [tmp_path, tmp_path / "patches"]
