"""A file that names samples: found by name, refused where it does not fit."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.opening import open_archive
from terrasieve.archive.selection import read_selection, write_selection
from terrasieve.errors import CurationError, WriteError

ARCHIVE = open_archive("simulated:0:12")
CHOSEN = np.array([7, 1, 4])
GROUPS = np.array([0, 1, 0])


def test_samples_are_found_by_name_in_an_archive_of_another_order(tmp_path: Path) -> None:
    path = write_selection(tmp_path / "new" / "chosen.parquet", CHOSEN, ARCHIVE.ids[CHOSEN], GROUPS, {"n": 12})
    assert read_selection(path, ARCHIVE).tolist() == [1, 4, 7]
    turned = SubsetArchive(ARCHIVE, np.arange(12)[::-1])
    assert sorted(turned.ids[read_selection(path, turned)]) == sorted(ARCHIVE.ids[CHOSEN])


def test_samples_without_names_are_taken_by_position_in_an_archive_of_that_size(tmp_path: Path) -> None:
    path = write_selection(tmp_path / "chosen.parquet", CHOSEN, None, GROUPS, {"n": 12})
    assert read_selection(path, ARCHIVE).tolist() == [1, 4, 7]
    with pytest.raises(CurationError, match=r"chosen from 12 vectors without names, but the archive holds 11"):
        read_selection(path, SubsetArchive(ARCHIVE, np.arange(11)))


def test_a_sample_that_the_archive_does_not_hold_is_named(tmp_path: Path) -> None:
    path = write_selection(tmp_path / "chosen.parquet", CHOSEN, ARCHIVE.ids[CHOSEN], GROUPS, {"n": 12})
    with pytest.raises(CurationError, match=f"names 1 of 3 samples .*{ARCHIVE.ids[7]!s}"):
        read_selection(path, SubsetArchive(ARCHIVE, np.arange(7)))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"index": [1, 2]}), other)
    with pytest.raises(CurationError, match=r"names no samples.*terrasieve curate"):
        read_selection(other, ARCHIVE)
    other.write_text("not Parquet")
    with pytest.raises(CurationError, match="cannot be read as a selection"):
        read_selection(other, ARCHIVE)


def test_a_full_disk_leaves_the_selection_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_selection(tmp_path / "chosen.parquet", CHOSEN, None, GROUPS, {"n": 12})

    def full(table: pa.Table, where: Path, **_: object) -> None:
        where.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(WriteError, match="No space left"):
        write_selection(path, CHOSEN[:1], None, GROUPS[:1], {"n": 12})
    assert os.listdir(tmp_path) == [path.name]
    assert read_selection(path, ARCHIVE).tolist() == [1, 4, 7]
