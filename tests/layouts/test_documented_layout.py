"""The layout that the design page shows works as it stands there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from terrasieve.archive.layouts import LAYOUTS
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive

PAGE = Path(__file__).parents[2] / "docs" / "design.md"


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = re.search(r"```python\n(\"\"\"Fields.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    assert found[1].count("\n") < 60
    (tmp_path / "documented_fields.py").write_text(found[1], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("documented_fields")


def test_it_is_recognised_opened_and_packed(documented: ModuleType, tmp_path: Path, write_tif: Any) -> None:
    root = tmp_path / "fields"
    pixels = [write_tif(root / "tif" / f"{i}.tif", np.full((6, 128, 128), 100 + i, np.uint16)) for i in range(3)]
    (root / "labels.csv").write_text("id,crop,part\n0,maize,train\n1,wheat,train\n2,maize,test\n", encoding="utf-8")
    assert documented.LAYOUT.recognise(tmp_path) is None
    recognised = documented.LAYOUT.recognise(root)
    archive = documented.LAYOUT.build(recognised.spec)
    assert archive.table()["label"].to_pylist() == ["maize", "wheat", "maize"]
    assert archive.table()["split"].to_pylist() == ["train", "train", "test"]
    assert archive.read(1, "s2", ["B11"]).tolist() == pixels[1][4:5].tolist()
    pack(archive, tmp_path / "packed.zarr")
    assert np.array_equal(PackedArchive(tmp_path / "packed.zarr").read(2, "s2"), pixels[2])


def test_the_table_of_data_sets_names_every_layout_and_a_page_that_exists() -> None:
    index = PAGE.parent / "datasets" / "README.md"
    text = index.read_text(encoding="utf-8")
    assert [layout.name for layout in LAYOUTS if f"`{layout.name}`" not in text] == []
    for page in re.findall(r"\]\(([^)#]+\.md)", text):
        assert (index.parent / page).is_file(), page
