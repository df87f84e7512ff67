"""One round of curation as its file records it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrasieve.errors import ArchiveError


@dataclass(frozen=True)
class Round:
    """A round of curation.

    Attributes:
        number: From 1.
        step: The optimiser step before which it took place.
        candidates: Samples to choose from.
        pool: Samples chosen.
        groups: Clusters with at least one candidate.
        effective_before: Effective number of clusters of the candidates.
        effective_after: The same of the chosen.
        largest_before: Share of the fullest cluster in the candidates, 0 to 1.
        largest_after: The same in the chosen.
        coverage: Mean distance of a dropped sample to the nearest chosen one, 0 to 2; None where all were chosen.
        turnover: Share of the chosen that the pool before did not have; None in the first round.
        seconds: Duration.
        sizes: Candidates of each cluster.
        quotas: Chosen samples of each cluster.
        classes_before: Candidates by class; empty where labels are unknown.
        classes_after: Chosen samples by class.
        selection: The Parquet file that names the chosen samples.
    """

    number: int
    step: int
    candidates: int
    pool: int
    groups: int
    effective_before: float
    effective_after: float
    largest_before: float
    largest_after: float
    coverage: float | None
    turnover: float | None
    seconds: float
    sizes: tuple[int, ...]
    quotas: tuple[int, ...]
    classes_before: Mapping[str, int]
    classes_after: Mapping[str, int]
    selection: Path


def read_round(path: Path) -> Round:
    """Read ``round-00001.json``.

    Raises:
        ArchiveError: It is damaged or of another version.
    """
    try:
        return _round(json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".parquet"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveError(
            f"{path} is no record of a curation round of this version ({type(error).__name__}: {error}). Restore it, "
            "or move it out of the run folder."
        ) from error


def _round(record: Mapping[str, Any], selection: Path) -> Round:
    found = record["diagnostics"]
    before, after = found["occupancy_before"], found["occupancy_after"]
    return Round(
        number=record["round"],
        step=record["step"],
        candidates=record["candidates"],
        pool=record["pool"],
        groups=before["groups"],
        effective_before=before["effective"],
        effective_after=after["effective"],
        largest_before=before["largest"],
        largest_after=after["largest"],
        coverage=found["coverage_mean"],
        turnover=found["turnover"],
        seconds=sum(record["seconds"].values()),
        sizes=tuple(record.get("group_sizes", ())),
        quotas=tuple(record.get("quotas", ())),
        classes_before=_counts(found["classes_before"]),
        classes_after=_counts(found["classes_after"]),
        selection=selection,
    )


def _counts(balance: Mapping[str, Any] | None) -> Mapping[str, int]:
    return {} if balance is None else dict(balance["counts"])
