"""Probe rows put side by side: the trained model against the others, on the same input under the same probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from terrasieve.errors import ArchiveError
from terrasieve.files.local_paths import local_path
from terrasieve.probes.metrics import METRIC_INFO, Task
from terrasieve.probes.results import ProbeRow
from terrasieve.probes.row_tables import HEADLINES, Line, best, interval_text, lines_of, shown, subject_of
from terrasieve.probes.significance import Difference, paired_bootstrap, paired_rmse_bootstrap

_KEYS = ["model", "inputs", "probe", "target", "train_share", "seed"]
_NEEDED = [*_KEYS, "id", "truth", "predicted"]


# ------------------------------------------------------------ sample by sample


@dataclass(frozen=True)
class Predictions:
    """Truth and prediction of each test sample, as texts by the sample's id, for each row of a probe."""

    of_rows: Mapping[tuple[Any, ...], pd.DataFrame] = field(default_factory=dict)

    def gain(self, ours: ProbeRow, theirs: ProbeRow) -> Difference | None:
        """How much better one row is than another on the samples of both, with its paired bootstrap 95 % interval.

        By accuracy where the target is a class, by RMSE where it is a number. None where a row's predictions were not
        kept, are not of the samples that the other was tested on, or do not give the metric of the row.
        """
        mine, other = self.of_rows.get(_key(ours)), self.of_rows.get(_key(theirs))
        if mine is None or other is None or set(mine.index) != set(other.index):
            return None
        # Paired by id: files need not list samples in one order.
        left, right = _scores(mine, ours), _scores(other.loc[mine.index], theirs)
        if left is None or right is None:
            return None
        # Of errors, the smaller is the better.
        return paired_rmse_bootstrap(right, left) if ours.task == "regression" else paired_bootstrap(left, right)


def read_predictions(path: Path) -> Predictions:
    """Read ``probe-predictions.parquet``; without that file there are no predictions.

    Raises:
        ArchiveError: The file is damaged or lacks a column.
    """
    if not path.is_file():
        return Predictions()
    try:
        frame = pq.read_table(local_path(path), columns=_NEEDED).to_pandas()
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ArchiveError(f"{path} holds no predictions of this version: {error}. Probe the run again.") from error
    groups = frame.groupby(_KEYS, observed=True, sort=False)
    return Predictions({key: part.drop_duplicates("id").set_index("id") for key, part in groups})


def _key(row: ProbeRow) -> tuple[Any, ...]:
    return (row.model, row.inputs, row.probe, row.target, row.train_share, row.seed)


def _scores(samples: pd.DataFrame, row: ProbeRow) -> NDArray[np.float64] | None:
    """Error of each sample, or 1 where its class is right and 0 where not; None where they do not give the row's."""
    if row.task == "regression":
        # What is no number makes the mean NaN, which is no row's.
        truth, predicted = (pd.to_numeric(samples[name], errors="coerce") for name in ("truth", "predicted"))
        scores = (predicted - truth).to_numpy(np.float64)
        found, stated = float(np.sqrt(np.mean(scores**2))), row.metrics.get("rmse", np.nan)
    else:
        scores = (samples["predicted"] == samples["truth"]).to_numpy(np.float64)
        found, stated = float(scores.mean()), row.metrics.get("accuracy", np.nan)
    return scores if len(scores) == row.n_test and np.isclose(found, stated) else None


# ---------------------------------------------------------------------- groups


Standing = Literal["better", "worse", "not told apart"]


@dataclass(frozen=True)
class Verdict:
    """The trained model against another one on one line.

    Attributes:
        line: Name of the input that both models were shown.
        other: Name of the model that the trained one is compared with.
        metric: Name of the metric that is compared.
        gain: How much better the trained model is, in the metric's own scale: positive is better.
        apart: Whether the 95 % intervals do not overlap; None where a row has no interval.
        paired: The gain sample by sample; None where the predictions were not kept.
    """

    line: str
    other: str
    metric: str
    gain: float
    apart: bool | None
    paired: Difference | None

    @property
    def clear(self) -> bool:
        """Whether the two differ beyond chance: by the paired interval where there is one, else by both intervals."""
        if self.paired is not None:
            return self.paired.low > 0 or self.paired.high < 0
        return self.apart is True

    @property
    def standing(self) -> Standing:
        """Whether the trained model is better, which nothing says where an interval leaves it open."""
        if not self.clear and (self.paired is not None or self.apart is not None):
            return "not told apart"
        return "better" if self.gain > 0 else "worse" if self.gain < 0 else "not told apart"

    @property
    def evidence(self) -> str:
        """What the intervals say, in words; that of the paired gain counts as :attr:`gain` without its sign."""
        if self.paired is None:
            return {True: "intervals do not overlap", False: "intervals overlap", None: "no intervals"}[self.apart]
        bounds = (self.paired.low, self.paired.high) if self.gain >= 0 else (-self.paired.high, -self.paired.low)
        low, high = (shown(self.metric, bound) for bound in bounds)
        return f"paired 95\u00a0% interval {low} to {high}"


@dataclass(frozen=True)
class Group:
    """Everything under one probe on one target.

    Attributes:
        title: The probe, the target and the share of the train split, as people read them.
        task: What kind of target the probe predicts.
        models: Names of the models, the trained one first.
        lines: One line for each input, and for each seed where there are several.
        against: For each other model, the trained one against it on every line that has both, by the headline metric.
    """

    title: str
    task: Task
    models: tuple[str, ...]
    lines: tuple[Line, ...]
    against: Mapping[str, tuple[Verdict, ...]]

    @property
    def trained(self) -> str:
        """The model that the others are there to judge."""
        return self.models[0]

    @property
    def floors(self) -> tuple[str, ...]:
        """What it has to beat."""
        found = {model for line in self.lines for model, row in line.rows.items() if row.is_floor}
        return tuple(model for model in self.models[1:] if model in found)

    @property
    def headline(self) -> str:
        """The metric that a sentence names."""
        return HEADLINES[self.task][0]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric of the rows, the headlines first."""
        found = dict.fromkeys(name for line in self.lines for row in line.rows.values() for name in row.metrics)
        ordered = dict.fromkeys([*HEADLINES[self.task], *found])
        return tuple(name for name in ordered if name in found and name in METRIC_INFO)

    @property
    def main(self) -> Line | None:
        """The line with the most bands that the trained model has; the first of several."""
        scored = [line for line in self.lines if _has(line, self.trained, self.headline)]
        return max(scored, key=lambda line: len(line.rows[self.trained].bands), default=None)

    @property
    def rivals(self) -> tuple[str, ...]:
        """The floors, and the best of the other models on the main line."""
        rows = self.main.rows if self.main else {}
        scores = {
            model: rows[model].metrics[self.headline]
            for model in self.models[1:]
            if model in rows and model not in self.floors and self.headline in rows[model].metrics
        }
        top = best(self.headline, scores.values()) if scores else None
        return (*self.floors, *[model for model, score in scores.items() if score == top][:1])


def groups_of(rows: Sequence[ProbeRow], predictions: Predictions | None = None) -> tuple[Group, ...]:
    """Rows by target, probe and share of the train split, in order of appearance.

    Args:
        rows: The rows of one run; the first row's model is the trained one.
        predictions: What the probes said of each test sample; without them no model is compared sample by sample.
    """
    keys = dict.fromkeys((row.target, row.probe, row.train_share) for row in rows)
    parts = [[row for row in rows if (row.target, row.probe, row.train_share) == key] for key in keys]
    return tuple(_group(part, rows[0].model, predictions or Predictions()) for part in parts)


def difference(metric: str, gain: float) -> str:
    """A difference without its sign: points where the metric is shown in per cent, else in its own unit."""
    return f"{shown(metric, abs(gain))} points" if METRIC_INFO[metric].percent else shown(metric, abs(gain))


def value_text(row: ProbeRow, metric: str) -> str:
    """``83.2 % (81.9-84.4)``; the interval only where there is one."""
    unit = "\u00a0%" if METRIC_INFO[metric].percent else ""
    interval = interval_text(row, metric)
    return f"{shown(metric, row.metrics[metric])}{unit}{f' ({interval})' if interval else ''}"


def _group(rows: Sequence[ProbeRow], trained: str, predictions: Predictions) -> Group:
    models = tuple(dict.fromkeys([trained, *(row.model for row in rows)]))
    lines = lines_of(rows)
    metric = HEADLINES[rows[0].task][0]
    against = {
        other: tuple(
            _verdict(line.name, line.rows[trained], line.rows[other], metric, predictions)
            for line in lines
            if _has(line, trained, metric) and _has(line, other, metric)
        )
        for other in models[1:]
    }
    return Group(subject_of(rows[0]), rows[0].task, models, lines, against)


def _has(line: Line, model: str, metric: str) -> bool:
    return model in line.rows and metric in line.rows[model].metrics


def _verdict(line: str, ours: ProbeRow, theirs: ProbeRow, metric: str, predictions: Predictions) -> Verdict:
    sign = -1 if METRIC_INFO[metric].higher_is_better is False else 1
    gain = sign * (ours.metrics[metric] - theirs.metrics[metric])
    paired = predictions.gain(ours, theirs) if metric in ("accuracy", "rmse") else None
    one, other = ours.ci95.get(metric), theirs.ci95.get(metric)
    apart = None if one is None or other is None else one[0] > other[1] or other[0] > one[1]
    return Verdict(line, theirs.model, metric, gain, apart, paired)
