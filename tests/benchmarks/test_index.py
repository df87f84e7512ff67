"""The pieces of the index benchmark, on a few files and without a clock."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from terrasieve.archive.opening import open_archive

FILES = 20


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark, loaded by its path, with files made."""
    where = Path(__file__).parents[2] / "benchmarks/index.py"
    spec = importlib.util.spec_from_file_location("index_benchmark", where)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TURNS", 1)
    monkeypatch.setattr(module, "ROWS", 50)
    module.make_files(tmp_path, FILES)
    return module


def test_the_bare_side_reads_what_the_index_reads(bench: Any, tmp_path: Path) -> None:
    out = tmp_path / "out/c.parquet"
    assert bench.read_bare(tmp_path / "all") == FILES
    found = bench.index(tmp_path / "all", out, 0)
    assert (found["files"], found["read"]) == (FILES, FILES)
    assert set(bench.alone(tmp_path / "tenth", tmp_path / "out/a.parquet")) == {"bare_us", "index_us"}
    assert len(open_archive(tmp_path / "out/a.parquet")) == FILES // 10


def test_a_catalogue_of_many_rows_is_made_of_one_of_few(bench: Any, tmp_path: Path) -> None:
    bench.index(tmp_path / "all", tmp_path / "out/c.parquet", 0)
    bench.reopened(tmp_path / "out/c.parquet", tmp_path / "many.parquet")
    many, few = open_archive(tmp_path / "many.parquet"), open_archive(tmp_path / "out/c.parquet")
    assert len(set(many.ids.tolist())) == 50
    assert (many.read(41, "s1") == few.read(1, "s1")).all()
