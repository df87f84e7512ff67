"""The archives of ``learning.py``: what is learnt from, and what is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.opening import open_archive, scenes_spec_from_options
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive
from terrasieve.processes.parallel import spare_cores

TILE = 64
HELD_OUT = 0.1
"""Share of the train split on which probes choose their settings where validation is what is scored."""


def open_scenes(data: Path, store: Path) -> Archive:
    """Optical and radar tiles of the 25 real scenes, packed where they are not yet."""
    spec = scenes_spec_from_options(data / "la_texas_pairs", ["s2=s2-rgb8", "s1=s1-vh8"], TILE, None, "stem")
    pack(open_archive(spec), store, workers=spare_cores())
    return PackedArchive(store)


def open_labelled(data: Path, store: Path) -> Archive:
    """All of EuroSAT that is there, packed where it is not yet."""
    pack(open_archive(data / "eurosat_rgb_full"), store, workers=spare_cores())
    return PackedArchive(store)


def train_split(archive: Archive) -> NDArray[np.int64]:
    """Indices of the samples of the published train split, ascending."""
    return np.flatnonzero(_splits(archive) == "train")


class Scored(SubsetArchive):
    """A labelled archive whose ``split`` column says what is scored.

    Of the test split: the published split, thinned where few labels are wanted. Of the validation split: the test
    split is left out, validation takes its place, and a tenth of the train split that of validation, so that no setting
    is chosen on an image that is scored.

    Args:
        archive: The whole, with its published split.
        scored: Which published split becomes ``test``.
        labels: How many images of the train split stay, drawn once for all runs; all where None.
    """

    def __init__(self, archive: Archive, scored: Literal["val", "test"], labels: int | None) -> None:
        splits = _splits(archive)
        generator = np.random.default_rng(0)
        train = generator.permutation(np.flatnonzero(splits == "train"))[:labels]
        parts = {"train": train, "val": np.flatnonzero(splits == "val"), "test": np.flatnonzero(splits == "test")}
        if scored == "val":
            held = round(HELD_OUT * len(train))
            parts = {"train": train[held:], "val": train[:held], "test": parts["val"]}
        indices = np.concatenate(list(parts.values()))
        order = np.argsort(indices, kind="stable")
        super().__init__(archive, indices[order])
        self._parts = np.repeat(list(parts), [len(part) for part in parts.values()])[order]

    def table(self) -> pa.Table:
        """The chosen rows, with the parts that they have here."""
        table = super().table()
        return table.set_column(table.column_names.index("split"), "split", pa.array(self._parts))


def _splits(archive: Archive) -> NDArray[np.str_]:
    return np.array(archive.table()["split"].to_pylist())
