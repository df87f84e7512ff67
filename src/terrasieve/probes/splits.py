"""Which samples a probe learns from, chooses on and is scored on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.errors import ArchiveError, ConfigError, nearest

SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}
"""Of a seeded stratified split, where none is published."""

VALIDATION_SHARE = 0.1
"""Of a published train split, where no validation split is published."""


@dataclass(frozen=True)
class Splits:
    """The labelled samples of an archive, in three parts.

    Attributes:
        train: Indices into the archive, shape ``(n_train,)``, ascending; ``val`` and ``test`` likewise.
        labels: Class code of every sample, shape ``(n,)``; -1 where unlabelled.
        classes: Name of each class; the code is the position.
        origin: Where the split comes from, for the protocol.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    origin: str


def make_splits(table: pa.Table, seed: int = 0, column: str = "split") -> Splits:
    """The published split of a labelled archive, completed where parts of it are missing.

    No published split: a seeded 70/15/15, stratified by class. No published validation split: a seeded,
    stratified tenth of train. Samples without a label or a split belong to no part.

    Args:
        table: From ``Archive.table()``.
        seed: Of whatever has to be drawn.
        column: The column with ``train``, ``val`` and ``test``.

    Raises:
        ArchiveError: There are no labels, or the published split has no train or no test samples.
        ConfigError: There is no such column, though another split is published.
    """
    if column != "split" and column not in table.column_names:
        raise ConfigError(f"The archive has no split column {column!r}.{nearest(column, table.column_names)}")
    labels, classes = _codes(table)
    names = _strings(table, column)
    if all(name is None for name in names):
        return _drawn(labels, classes, seed)
    parts = _published(names, labels, column)
    origin = f"published ({column})"
    if not parts["val"].size:
        kept, held = carve(labels[parts["train"]], VALIDATION_SHARE, seed)
        parts["train"], parts["val"] = parts["train"][kept], parts["train"][held]
        origin += f", validation {VALIDATION_SHARE:.0%} of train drawn with seed {seed}"
    return Splits(**parts, labels=labels, classes=classes, origin=origin)


def carve(labels: NDArray[np.int64], share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions that stay and positions that are held out, drawn per class.

    Args:
        labels: Class codes, shape ``(n,)``.
        share: Of each class, rounded; a class with one sample keeps it, and one sample at least is held
            out of every other.
        seed: Of the draw.

    Returns:
        Two ascending arrays that together hold every position once.
    """
    generator = np.random.default_rng(seed)
    held = []
    for code in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == code))
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held.append(members[:count])
    held_out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def _published(names: NDArray[np.object_], labels: NDArray[np.int64], column: str) -> dict[str, NDArray[np.int64]]:
    parts = {part: np.flatnonzero((labels >= 0) & (names == part)) for part in SHARES}
    for part in ("train", "test"):
        if not parts[part].size:
            raise ArchiveError(
                f"Column {column!r} publishes no labelled {part!r} samples; complete it, or empty the column "
                "to have a stratified split drawn."
            )
    return parts


def _drawn(labels: NDArray[np.int64], classes: tuple[str, ...], seed: int) -> Splits:
    labelled = np.flatnonzero(labels >= 0)
    rest, test = carve(labels[labelled], SHARES["test"], seed)
    train, val = carve(labels[labelled[rest]], SHARES["val"] / (1 - SHARES["test"]), seed + 1)
    origin = f"stratified {':'.join(f'{100 * share:.0f}' for share in SHARES.values())}, drawn with seed {seed}"
    return Splits(labelled[rest[train]], labelled[rest[val]], labelled[test], labels, classes, origin)


def _codes(table: pa.Table) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    names = _strings(table, "label")
    known = np.array([name is not None for name in names], dtype=bool)
    if not known.any():
        raise ArchiveError(
            f"None of the archive's {len(names)} samples has a label; a probe needs a labelled archive, "
            "such as EuroSAT or the simulated one."
        )
    labels = np.full(len(names), -1, dtype=np.int64)
    classes, labels[known] = np.unique(names[known].astype(str), return_inverse=True)
    return labels, tuple(str(name) for name in classes)


def _strings(table: pa.Table, column: str) -> NDArray[np.object_]:
    if column not in table.column_names:
        return np.full(len(table), None, dtype=object)
    return np.array(table[column].to_pylist(), dtype=object)
