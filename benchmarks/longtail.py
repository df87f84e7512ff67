"""A redundant, long-tailed archive made of real pixels: what an archive looks like before anybody has sorted it.

Of EuroSAT only the train split is used. Its ten classes, in an order that the seed decides but for the first where that
is named, keep from ``most`` down to ``fewest`` images on a geometric sequence. The images of the head are joined by
near-copies, shifted, flipped and noised, until the archive holds ``samples``. By default the head is the most frequent
class alone, as open water is in an archive of the ocean. The other classes get no copies, so that the archive is more
skewed than its originals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from terrasieve.archive.packed.integrity import digest
from terrasieve.archive.protocol import Archive, BaseArchive, Window
from terrasieve.archive.readers.geotiff import cut
from terrasieve.errors import ArchiveError
from terrasieve.schema import Spec
from terrasieve.sensors import Sensor

_CLASSES, _IMAGES, _COPIES, _NOISE = range(4)


class LongTailSpec(Spec):
    """How an archive is skewed and inflated.

    Attributes:
        seed: Of the class order, the images kept and the copies.
        first: Name of the most frequent class; null leaves it to the seed, as the order of the others.
        samples: Size of the archive with its copies.
        most: Originals of the most frequent class.
        fewest: Originals of the rarest class.
        head: How many of the most frequent classes get copies.
        redundancy: Copies of a class are in proportion to its frequency to this power; 1 copies every image of the
            head equally often, 2 copies those of a class of twice the frequency twice as often.
        shift: Largest shift of a copy along either axis, in pixels.
        noise: Standard deviation of what is added to a copy, in digital numbers of 8 bits.
    """

    seed: int = Field(default=3, ge=0)
    first: str | None = None
    samples: int = Field(default=30_000, ge=1)
    most: int = Field(default=600, ge=1)
    fewest: int = Field(default=60, ge=1)
    head: int = Field(default=1, ge=1)
    redundancy: float = Field(default=2.0, ge=0)
    shift: int = Field(default=4, ge=0)
    noise: float = Field(default=3.0, ge=0)


@dataclass(frozen=True)
class Copies:
    """Where each sample comes from and how it differs from that; row ``i`` is sample ``i``.

    Attributes:
        source: Index in the labelled archive, shape ``(n,)``.
        original: Sample of this archive that it is a copy of, shape ``(n,)``; -1 for an original.
        shift: Pixels down and right, shape ``(n, 2)``.
        flip: Whether rows and columns are reversed, shape ``(n, 2)``.
    """

    source: NDArray[np.int64]
    original: NDArray[np.int64]
    shift: NDArray[np.int64]
    flip: NDArray[np.bool_]


class LongTailArchive(BaseArchive):
    """The skewed and inflated train split of a labelled archive of 8-bit patches.

    Labels stand in the table for the oracle and for diagnostics; nothing else may look at them.

    Args:
        archive: A labelled archive with a column ``split``.
        spec: How it is skewed.

    Attributes:
        classes: Names of the classes, the most frequent first.

    Raises:
        ArchiveError: The train split has too few images, or the originals alone are more than ``samples``, or no class
            is called ``first``.
    """

    def __init__(self, archive: Archive, spec: LongTailSpec) -> None:
        self.archive = archive
        self.spec = spec
        self._table = archive.table()
        members = _members(self._table)
        self.classes = _order(spec, sorted(members))
        self.copies = _plan(spec, [members[name] for name in self.classes])

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """Those of the labelled archive."""
        return self.archive.sensors

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """The original's name, with the sample's own number behind it where it is a copy."""
        names = self.archive.ids[self.copies.source]
        copied = self._of >= 0
        return np.array([f"{name}~{i}" if copied[i] else name for i, name in enumerate(names)])

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance: how the archive was made, and of what."""
        origin = self.archive.source
        options = self.spec.model_dump(mode="json")
        return {
            "layout": "longtail",
            "root": origin.get("root"),
            "options": options,
            "sensors": origin.get("sensors"),
            "simulated": origin.get("simulated", False),
            "made_from": dict(origin),
            "fingerprint": digest([str(origin.get("fingerprint")), *(f"{k}={v}" for k, v in options.items())]),
        }

    def __len__(self) -> int:
        return len(self.copies.source)

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> NDArray[Any]:
        """A copy's noise depends on the seed and its index only."""
        pixels = self.archive.read(int(self.copies.source[index]), sensor)
        if self._of[index] >= 0:
            generator = np.random.default_rng([self.spec.seed, _NOISE, index])
            pixels = near_copy(pixels, self.copies.shift[index], self.copies.flip[index], self.spec.noise, generator)
        return cut(pixels, window)[list(positions)]

    def table(self) -> pa.Table:
        """See ``Archive.table``; with ``copy_of``, the id of the original of which a sample is a copy."""
        table = self._table.take(pa.array(self.copies.source))
        originals = [str(self.ids[of]) if of >= 0 else None for of in self._of]
        columns = {"id": pa.array(self.ids.tolist()), "split": pa.array(["train"] * len(self), pa.string())}
        for name, values in columns.items():
            table = table.set_column(table.column_names.index(name), name, values)
        return table.append_column("copy_of", pa.array(originals, pa.string()))

    def counts(self) -> dict[str, tuple[int, int]]:
        """Originals and samples of each class, the most frequent first."""
        labels = np.array(self.table()["label"].to_pylist())
        originals, samples = Counter(labels[self._of < 0].tolist()), Counter(labels.tolist())
        return {name: (originals[name], samples[name]) for name in self.classes}

    @property
    def _of(self) -> NDArray[np.int64]:
        return self.copies.original

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return self.archive.shape(int(self.copies.source[index]), sensor)


def near_copy(
    pixels: NDArray[np.uint8],
    shift: NDArray[np.int64],
    flip: NDArray[np.bool_],
    noise: float,
    generator: np.random.Generator,
) -> NDArray[np.uint8]:
    """The same place again: shifted with reflection at the border, flipped, and with rounded Gaussian noise.

    Args:
        pixels: Shape ``(bands, height, width)``, 8 bits.
        shift: Pixels down and right.
        flip: Whether rows and columns are reversed.
        noise: Standard deviation in digital numbers.
        generator: Draws the noise.
    """
    margin = int(np.abs(shift).max())
    height, width = pixels.shape[1:]
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    top, left = margin - int(shift[0]), margin - int(shift[1])
    moved = padded[:, top : top + height, left : left + width]
    moved = moved[:, :: -1 if flip[0] else 1, :: -1 if flip[1] else 1]
    noisy = moved + generator.normal(0, noise, moved.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def class_sizes(spec: LongTailSpec, classes: int) -> NDArray[np.int64]:
    """Originals of each class, from ``most`` to ``fewest`` on a geometric sequence, rounded."""
    return np.rint(np.geomspace(spec.most, spec.fewest, classes)).astype(np.int64)


def _members(table: pa.Table) -> dict[str, NDArray[np.int64]]:
    """Indices of the train split by label."""
    labels, splits = np.array(table["label"].to_pylist()), np.array(table["split"].to_pylist())
    return {name: np.flatnonzero((labels == name) & (splits == "train")) for name in np.unique(labels).tolist()}


def _order(spec: LongTailSpec, names: list[str]) -> tuple[str, ...]:
    """The classes, the most frequent first."""
    if spec.first is not None and spec.first not in names:
        raise ArchiveError(f"No class is called {spec.first!r}; first is one of {', '.join(names)}, or null.")
    drawn = _generator(spec, _CLASSES).permutation(names).tolist()
    return tuple(sorted(drawn, key=lambda name: name != spec.first))


def _plan(spec: LongTailSpec, members: Sequence[NDArray[np.int64]]) -> Copies:
    sizes = class_sizes(spec, len(members))
    short = [len(indices) for indices, size in zip(members, sizes, strict=True) if len(indices) < size]
    if short or sizes.sum() > spec.samples:
        raise ArchiveError(
            f"A class of {short[0]} train images cannot keep {spec.most}; lower most."
            if short
            else f"{sizes.sum()} originals do not fit into {spec.samples} samples; raise samples."
        )
    choice, copying = _generator(spec, _IMAGES), _generator(spec, _COPIES)
    kept = np.concatenate([choice.permutation(indices)[:size] for indices, size in zip(members, sizes, strict=True)])
    copies = spec.samples - len(kept)
    head = sizes[: spec.head].astype(np.float64)
    chances = np.repeat(head**spec.redundancy / head, sizes[: spec.head])
    copied = copying.choice(len(chances), copies, p=chances / chances.sum())
    original = np.concatenate([np.full(len(kept), -1), copied])
    return Copies(
        source=np.concatenate([kept, kept[original[len(kept) :]]]),
        original=original,
        shift=copying.integers(-spec.shift, spec.shift + 1, (spec.samples, 2)),
        flip=copying.random((spec.samples, 2)) < 0.5,
    )


def _generator(spec: LongTailSpec, stream: int) -> np.random.Generator:
    return np.random.default_rng([spec.seed, stream])
