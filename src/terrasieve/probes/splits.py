"""Which samples a probe learns from, chooses on and is scored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.draws import stratified_holdout
from terrasieve.errors import ArchiveError, ConfigError, nearest
from terrasieve.probes.probe import VALIDATION_SHARE
from terrasieve.probes.targets import Target, read_target

SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}
"""Shares of a seeded stratified split, where none is published."""


@dataclass(frozen=True)
class Splits:
    """The samples of an archive whose target is known, in three parts.

    Attributes:
        train: Indices into the archive, shape ``(n_train,)``, ascending; ``val`` and ``test`` likewise.
        target: What is known of every sample.
        origin: Where the split comes from, for the protocol.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    target: Target
    origin: str

    @property
    def labels(self) -> NDArray[Any]:
        """The target's values of every sample of the archive."""
        return self.target.values

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class; the code is the position."""
        return self.target.classes


def make_splits(table: pa.Table, seed: int = 0, column: str = "split", target: str = "label") -> Splits:
    """The published split of a labelled archive, completed where parts of it are missing.

    No published split: a seeded 70/15/15, stratified as :meth:`Target.strata` says. No published validation split:
    a seeded, stratified tenth of train. Samples without a target or a split belong to no part.

    Args:
        table: From ``Archive.table()``.
        seed: Seed of whatever has to be drawn.
        column: The column with ``train``, ``val`` and ``test``.
        target: The column that is to be predicted.

    Raises:
        ArchiveError: There are no labels, or the published split has no train or no test samples.
        ConfigError: There is no such column, though another split is published, or no such target.
    """
    if column != "split" and column not in table.column_names:
        raise ConfigError(f"The archive has no split column {column!r}.{nearest(column, table.column_names)}")
    known = read_target(table, target)
    stated = table[column].to_pylist() if column in table.column_names else [None] * len(table)
    names = np.array(stated, dtype=object)
    if all(name is None for name in names):
        return _drawn(known, seed)
    parts = _published(names, known, column)
    origin = f"published ({column})"
    if not parts["val"].size:
        kept, held = stratified_holdout(known.strata()[parts["train"]], VALIDATION_SHARE, seed)
        parts["train"], parts["val"] = parts["train"][kept], parts["train"][held]
        origin += f", validation {VALIDATION_SHARE:.0%} of train drawn with seed {seed}"
    return Splits(**parts, target=known, origin=origin)


def _published(names: NDArray[np.object_], target: Target, column: str) -> dict[str, NDArray[np.int64]]:
    parts = {part: np.flatnonzero(target.known & (names == part)) for part in SHARES}
    for part in ("train", "test"):
        if not parts[part].size:
            raise ArchiveError(
                f"Column {column!r} publishes no labelled {part!r} samples; complete it, or empty the column "
                "to have a stratified split drawn."
            )
    return parts


def _drawn(target: Target, seed: int) -> Splits:
    labelled, strata = np.flatnonzero(target.known), target.strata()
    # Test samples are drawn first: they stay the same whatever share of the rest is held back to choose on.
    rest, test = stratified_holdout(strata[labelled], SHARES["test"], seed)
    train, val = stratified_holdout(strata[labelled[rest]], SHARES["val"] / (1 - SHARES["test"]), seed + 1)
    origin = f"stratified {':'.join(f'{100 * share:.0f}' for share in SHARES.values())}, drawn with seed {seed}"
    return Splits(labelled[rest[train]], labelled[rest[val]], labelled[test], target, origin)
