"""The layout that the page on layouts shows works as it stands there, and the table of data sets is the registry's."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from small_archives.making import MAKERS, Bench
from terrasieve.archive.layout import LAYOUTS, data_set_table
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "how-to" / "add-a-layout.md"


def added(file: str) -> str:
    """The text of a file that the page's diff adds."""
    found = re.search(rf"\n\+\+\+ b/{re.escape(file)}\n@@.*\n((?:\+.*\n)+)", PAGE.read_text("utf-8"))
    assert found is not None
    return "".join(f"{line[1:]}\n" for line in found[1].splitlines())


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """The layout, and what makes a small data set in it."""
    layout, maker = added("src/terrasieve/archive/layouts/fields.py"), added("tests/small_archives/fields.py")
    assert len(layout.splitlines()) < 60
    (tmp_path / "documented_fields.py").write_text(layout, encoding="utf-8")
    (tmp_path / "documented_maker.py").write_text(maker, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(MAKERS, "fields", [])
    module = importlib.import_module("documented_fields")
    monkeypatch.setitem(sys.modules, "terrasieve.archive.layouts.fields", module)
    return module, importlib.import_module("documented_maker")


def test_it_is_recognised_opened_packed_and_made_for_the_contract(
    documented: tuple[ModuleType, ModuleType], tmp_path: Path
) -> None:
    layout, maker = documented
    root = tmp_path / "fields"
    pixels = np.stack([np.full((6, 128, 128), 100 + i, np.uint16) for i in range(3)])
    maker.write_fields(root, pixels)
    assert layout.FieldsSpec.recognise(tmp_path) is None
    archive = layout.FieldsSpec.recognise(root).spec.open()
    assert archive.table()["label"].to_pylist() == ["maize", "wheat", "maize"]
    assert archive.table()["split"].to_pylist() == ["train", "train", "test"]
    assert archive.read(1, "s2", ["B11"]).tolist() == pixels[1, 4:5].tolist()
    pack(archive, tmp_path / "packed.zarr")
    assert np.array_equal(PackedArchive(tmp_path / "packed.zarr").read(2, "s2"), pixels[2])
    assert MAKERS["fields"] == [maker.fields]
    (tmp_path / "made").mkdir()
    assert isinstance(maker.fields(Bench(tmp_path / "made")), layout.FieldsArchive)


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
