"""Names with a colon are those of files, not addresses of remote file systems."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from terrasieve.archive.selection import read_selection, write_selection
from terrasieve.embeddings.vectors import open_vectors
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

SOURCE = Path(__file__).parents[1] / "src" / "terrasieve"


@pytest.mark.parametrize(
    "name", ["s2:B03.parquet", "run-20240101T10:00/chosen.parquet", "file:a.parquet", "s3:/b.parquet"]
)
def test_a_relative_name_with_a_colon_is_written_and_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    archive = SimulatedArchive(SimulatedSpec(samples=8))
    chosen = np.array([1, 5])
    write_selection(Path(name), chosen, archive.ids[chosen], np.array([0, 0]), {"n": 8})
    assert read_selection(Path(name), archive).tolist() == [1, 5]
    assert [path.name for path in Path(name).parent.iterdir()] == [Path(name).name]


def test_vectors_are_read_from_a_relative_name_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"embedding": [[1.0, 2.0], [3.0, 4.0]]}), tmp_path / "s2:B03.parquet")
    assert open_vectors(Path("s2:B03.parquet"), tmp_path).vectors.tolist() == [[1, 2], [3, 4]]


def test_no_path_reaches_pyarrow_but_as_a_local_one() -> None:
    opened = re.compile(r"\bpq\.(?:read_\w+|ParquetFile)\((?!local_path\(|io\.)")
    found = [path.name for path in SOURCE.rglob("*.py") if opened.search(path.read_text(encoding="utf-8"))]
    assert not found, f"{found} open Parquet files without local_path, which mistakes s2:B03.parquet for an address"
