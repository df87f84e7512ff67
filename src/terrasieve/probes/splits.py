"""Which samples a probe learns from, chooses on and is scored on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.overlaps import overlapping
from terrasieve.archive.patches.listing import grouped_split
from terrasieve.draws import stratified_holdout
from terrasieve.errors import ArchiveError, ConfigError, nearest
from terrasieve.probes.groups import ASSET, block_groups, named_groups
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
        overlapping: Share of the test samples, 0 to 1, whose outlines overlap those of train or validation samples.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    target: Target
    origin: str
    overlapping: float = 0.0

    @property
    def labels(self) -> NDArray[Any]:
        """The target's values of every sample of the archive."""
        return self.target.values

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class; the code is the position."""
        return self.target.classes


def make_splits(
    table: pa.Table,
    seed: int = 0,
    column: str = "split",
    target: str = "label",
    group: str | None = None,
    block_km: float | None = None,
) -> Splits:
    """The published split of a labelled archive, completed where parts of it are missing.

    No published split: a seeded 70/15/15, stratified as :meth:`~terrasieve.probes.targets.Target.strata` says. No
    published validation split: a seeded, stratified tenth of train. Samples without a target or a split belong to no
    part. Groups or squares of ground go before what is published.

    Args:
        table: From ``Archive.table()``.
        seed: Seed of whatever has to be drawn.
        column: The column with ``train``, ``val`` and ``test``.
        target: The column that is to be predicted.
        group: Column whose equal values stay together, ``asset`` for the file of the first sensor; the split is then
            70/15/15 as nearly as groups allow.
        block_km: Side in km of squares of ground that stay together likewise. Train samples that overlap others, and
            validation samples that overlap test samples, are left out.

    Raises:
        ArchiveError: There are no labels, the published split has no train or no test samples, or groups are too few.
        ConfigError: There is no such column, though another split is published, no such target, or groups and squares
            are both asked for.
    """
    known = read_target(table, target)
    if group is not None or block_km is not None:
        splits = _grouped(table, known, group, block_km, seed)
    else:
        splits = _stated(table, known, column, seed)
    rest = np.concatenate([splits.train, splits.val])
    shared = overlapping(table, splits.test, rest)
    return replace(splits, overlapping=float(shared.mean()) if len(shared) else 0.0)


def _stated(table: pa.Table, known: Target, column: str, seed: int) -> Splits:
    if column != "split" and column not in table.column_names:
        raise ConfigError(f"The archive has no split column {column!r}.{nearest(column, table.column_names)}")
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
    return Splits(parts["train"], parts["val"], parts["test"], known, origin)


def _grouped(table: pa.Table, known: Target, group: str | None, block_km: float | None, seed: int) -> Splits:
    if group is not None and block_km is not None:
        raise ConfigError(f"Both the groups of {group!r} and squares of {block_km:g} km are asked for; leave one out.")
    labelled = np.flatnonzero(known.known)
    rows = table.take(pa.array(labelled))
    if group == ASSET:
        group = next(name for name in table.column_names if name.startswith(f"{ASSET}:"))
    groups = named_groups(rows, str(group)) if block_km is None else block_groups(rows, block_km)
    what = f"groups of {group}" if block_km is None else f"squares of {block_km:g} km"
    drawn = np.array(grouped_split(groups.tolist(), SHARES, seed))
    train, val, test = (labelled[drawn == part] for part in SHARES)
    dropped = ""
    if block_km is not None:
        # A sample may reach over the edge of its square.
        kept = ~overlapping(table, train, np.concatenate([val, test])), ~overlapping(table, val, test)
        left_out = sum(int((~one).sum()) for one in kept)
        train, val = train[kept[0]], val[kept[1]]
        dropped = f", {left_out} that reach over an edge left out" if left_out else ""
    if not all(len(part) for part in (train, val, test)):
        raise ArchiveError(
            f"{len(np.unique(groups))} {what} are too few to hold some out for validation and some for the test: "
            f"{len(train)}, {len(val)} and {len(test)} samples are left. Choose smaller ones."
        )
    origin = f"{len(np.unique(groups))} {what} held together, {_shares()}, drawn with seed {seed}{dropped}"
    return Splits(train, val, test, known, origin)


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
    origin = f"stratified {_shares()}, drawn with seed {seed}"
    return Splits(labelled[rest[train]], labelled[rest[val]], labelled[test], target, origin)


def _shares() -> str:
    return ":".join(f"{100 * share:.0f}" for share in SHARES.values())
