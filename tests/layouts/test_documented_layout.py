"""The layout that the page on layouts shows works as it stands there, and the table of data sets is the registry's."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from terrasieve.archive.layout import LAYOUTS, data_set_table
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "how-to" / "add-a-layout.md"


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = re.search(
        r"\n\+\+\+ b/src/terrasieve/archive/layouts/fields\.py\n@@.*\n((?:\+.*\n)+)", PAGE.read_text("utf-8")
    )
    assert found is not None
    lines = [line[1:] for line in found[1].splitlines()]
    assert len(lines) < 60
    (tmp_path / "documented_fields.py").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("documented_fields")


def test_it_is_recognised_opened_and_packed(documented: ModuleType, tmp_path: Path, write_tif: Any) -> None:
    root = tmp_path / "fields"
    pixels = [write_tif(root / "tif" / f"{i}.tif", np.full((6, 128, 128), 100 + i, np.uint16)) for i in range(3)]
    (root / "labels.csv").write_text("id,crop,part\n0,maize,train\n1,wheat,train\n2,maize,test\n", encoding="utf-8")
    assert documented.FieldsSpec.recognise(tmp_path) is None
    archive = documented.FieldsSpec.recognise(root).spec.open()
    assert archive.table()["label"].to_pylist() == ["maize", "wheat", "maize"]
    assert archive.table()["split"].to_pylist() == ["train", "train", "test"]
    assert archive.read(1, "s2", ["B11"]).tolist() == pixels[1][4:5].tolist()
    pack(archive, tmp_path / "packed.zarr")
    assert np.array_equal(PackedArchive(tmp_path / "packed.zarr").read(2, "s2"), pixels[2])


def test_the_table_of_data_sets_is_the_registrys_and_every_page_exists() -> None:
    index = DOCS / "datasets" / "README.md"
    text = index.read_text(encoding="utf-8")
    assert f"\n\n{data_set_table()}\n\n" in text, "put the output of python -m terrasieve.archive.layouts there"
    for page in re.findall(r"\]\(([^)#]+\.md)", text):
        assert (index.parent / page).is_file(), page


def test_every_data_set_with_a_paper_has_a_citation_that_bibtex_reads() -> None:
    entries = [spec.data_set.citation for spec in LAYOUTS.ours.values() if spec.data_set and spec.data_set.citation]
    assert len(entries) >= 12
    for entry in entries:
        assert re.fullmatch(r"@(article|inproceedings)\{\w+,\n(  \w+ *= \{[^@]+\},\n)+\}", entry), entry
        assert entry.count("{") == entry.count("}"), entry
