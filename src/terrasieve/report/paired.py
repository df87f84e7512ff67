"""Models compared sample by sample, where a run kept what each probe said of each test sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from terrasieve.errors import ArchiveError
from terrasieve.probes.results import ProbeRow
from terrasieve.probes.significance import Difference, paired_bootstrap

_KEYS = ["model", "inputs", "probe", "target", "train_share", "seed"]
_NEEDED = [*_KEYS, "id", "truth", "predicted"]


@dataclass(frozen=True)
class Predictions:
    """Whether each test sample was classified correctly, by sample id, for each row of a probe."""

    correct: Mapping[tuple[Any, ...], Mapping[str, bool]] = field(default_factory=dict)

    def difference(self, ours: ProbeRow, theirs: ProbeRow) -> Difference | None:
        """Accuracy of one row less that of another, on the samples of both, with its paired bootstrap 95 % interval.

        None where a row's predictions were not kept, are not of the samples that the other was tested on, or do not
        give the accuracy of the row.
        """
        mine, other = self.correct.get(_key(ours)), self.correct.get(_key(theirs))
        if mine is None or other is None or mine.keys() != other.keys():
            return None
        left = np.array([mine[name] for name in mine], dtype=np.float64)
        right = np.array([other[name] for name in mine], dtype=np.float64)
        if not (_agrees(left, ours) and _agrees(right, theirs)):
            return None
        return paired_bootstrap(left, right)


def read_predictions(path: Path) -> Predictions:
    """Read ``probe-predictions.parquet``; without that file there are no predictions.

    Raises:
        ArchiveError: The file is damaged or lacks a column.
    """
    if not path.is_file():
        return Predictions()
    try:
        frame = pq.read_table(path, columns=_NEEDED).to_pandas()
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ArchiveError(f"{path} holds no predictions of this version: {error}. Probe the run again.") from error
    frame["correct"] = frame["truth"].astype(str) == frame["predicted"].astype(str)
    groups = frame.groupby(_KEYS, observed=True, sort=False)
    return Predictions({key: dict(zip(part["id"], part["correct"], strict=True)) for key, part in groups})


def _key(row: ProbeRow) -> tuple[Any, ...]:
    return (row.model, row.inputs, row.probe, row.target, row.train_share, row.seed)


def _agrees(correct: NDArray[np.float64], row: ProbeRow) -> bool:
    return len(correct) == row.n_test and bool(np.isclose(correct.mean(), row.metrics.get("accuracy", np.nan)))
