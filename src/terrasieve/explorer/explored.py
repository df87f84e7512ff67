"""What is explored: vectors with what is known of each sample, and the rounds of curation of their run."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.names import positions_of
from terrasieve.archive.readers.parquet import read_table
from terrasieve.embeddings.table import EmbeddingTable, read_embeddings
from terrasieve.errors import ArchiveError, CurationError
from terrasieve.runs import RunFolder


@dataclass(frozen=True)
class Round:
    """What a round of curation did with the samples.

    Attributes:
        number: Of the round, from 1.
        kept: Whether it chose each sample, shape ``(n,)``.
    """

    number: int
    kept: NDArray[np.bool_]


@dataclass(frozen=True)
class Explored:
    """An embedded archive, ready to be looked at.

    Attributes:
        name: What the page is called.
        table: The vectors.
        rounds: Of the run that the vectors lie in, the first first; none where there is no run or no curation.
    """

    name: str
    table: EmbeddingTable
    rounds: tuple[Round, ...] = ()


def open_explored(path: Path) -> Explored:
    """Read what is to be explored.

    Args:
        path: A file of embeddings; or the folder of a run, whose ``embeddings.parquet`` and curation are taken.

    Raises:
        ArchiveError: There are no embeddings, they are damaged, or a round's selection is.
    """
    if not path.is_dir():
        return Explored(path.stem, read_embeddings(path))
    run = RunFolder(path)
    if not run.embeddings.is_file():
        raise ArchiveError(
            f"{path} holds no embeddings.parquet. Write it first: terrasieve embed {path} --data ARCHIVE --out "
            f"{run.embeddings}"
        )
    table = read_embeddings(run.embeddings)
    numbers = [record.round for record in run.rounds()]
    rounds = (Round(number, _kept(run.round_selection(number), table)) for number in numbers)
    return Explored(path.resolve().name, table, tuple(one for one in rounds if one.kept.any()))


def rows_named(path: Path, table: EmbeddingTable) -> NDArray[np.int64]:
    """Rows of the samples that a list names, ascending.

    Args:
        path: A CSV file with a column ``id``, as the page exports it.
        table: The vectors that the samples are of.

    Raises:
        CurationError: The file cannot be read, has no such column, or names samples that are not there.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if "id" not in (rows.fieldnames or ()):
                raise CurationError(f"{path} has no column 'id'. Export it from the page of terrasieve explore.")
            ids = [row["id"] for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise CurationError(f"{path} cannot be read as a CSV of ids: {error}.") from error
    positions = _positions(ids, table)
    if len(unknown := np.flatnonzero(positions < 0)):
        raise CurationError(
            f"{path} names {len(unknown):,} of {len(ids):,} samples that the embeddings do not hold, the first "
            f"{ids[int(unknown[0])]!r}. Give the embeddings that were explored."
        )
    return np.unique(positions)


def _kept(selection: Path, table: EmbeddingTable) -> NDArray[np.bool_]:
    kept = np.zeros(len(table), dtype=np.bool_)
    if selection.is_file():
        try:
            ids = read_table(selection, ["id"])["id"]
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            raise ArchiveError(f"{selection} cannot be read as the selection of a round: {error}.") from error
        found = positions_of(ids, table.ids)
        kept[found[found >= 0]] = True
    return kept


def _positions(ids: Sequence[str], table: EmbeddingTable) -> NDArray[np.int64]:
    return positions_of(pa.chunked_array([pa.array(ids, pa.string())], pa.string()), table.ids)
