"""What each probe said of each test sample, kept so that models can be compared sample by sample."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from terrasieve.probes.rows import ProbeRow
from terrasieve.probes.splits import Splits

PREDICTIONS = "probe-predictions.parquet"


@dataclass(frozen=True)
class Measured:
    """A row and the predictions behind it.

    Attributes:
        row: The result.
        predicted: Of the test samples, in the order of the split: class codes, scores by label, or numbers.
    """

    row: ProbeRow
    predicted: NDArray[Any]


def predictions_table(measured: Sequence[Measured], splits: Splits, ids: NDArray[np.str_]) -> pa.Table:
    """One line per test sample and row, with the model, its input, probe, target, share of train and seed.

    ``truth`` and ``predicted`` are text: a class, or a number in full precision. Several labels a sample are left out.

    Args:
        measured: From :func:`terrasieve.probes.evaluate.compare`.
        splits: The split that they were measured on.
        ids: Of every sample of the archive.
    """
    truth = _texts(splits.labels[splits.test], splits.classes) if splits.target.task != "multilabel" else None
    tables = [_table(one, ids[splits.test], truth, splits.classes) for one in measured if one.row.task != "multilabel"]
    return pa.concat_tables([_SCHEMA.empty_table(), *tables])


def write_predictions(measured: Sequence[Measured], splits: Splits, ids: NDArray[np.str_], path: Path) -> Path:
    """Write :func:`predictions_table` as Parquet; the file appears under its name only when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(predictions_table(measured, splits, ids), partial, compression="zstd")
    os.replace(partial, path)
    return path


def _table(one: Measured, ids: NDArray[np.str_], truth: pa.Array, classes: tuple[str, ...]) -> pa.Table:
    row = one.row
    facts = [(row.model, pa.string()), (row.inputs, pa.string()), (row.probe, pa.string()), (row.target, pa.string())]
    constant = [pa.repeat(pa.scalar(value, kind), len(ids)) for value, kind in facts]
    numbers = [pa.repeat(pa.scalar(row.train_share), len(ids)), pa.repeat(pa.scalar(row.seed), len(ids))]
    own = [pa.array(ids.tolist(), pa.string()), truth, _texts(one.predicted, classes)]
    return pa.table([*constant, *numbers, *own], schema=_SCHEMA)


_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("inputs", pa.string()),
        ("probe", pa.string()),
        ("target", pa.string()),
        ("train_share", pa.float64()),
        ("seed", pa.int64()),
        ("id", pa.string()),
        ("truth", pa.string()),
        ("predicted", pa.string()),
    ]
)


def _texts(values: NDArray[Any], classes: tuple[str, ...]) -> pa.Array:
    if not classes:
        return pa.array([repr(float(value)) for value in values], pa.string())
    return pa.array(classes, pa.string()).take(pa.array(np.asarray(values, dtype=np.int64)))
