"""What is embedded, and how: all at once, or in parts whose vectors are merged to the same file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from torch import nn

from terrasieve.archive.protocol import Archive
from terrasieve.archive.source_state import source_state
from terrasieve.console import track
from terrasieve.embeddings.inputs import EncoderInput, resolve_inputs
from terrasieve.embeddings.stream import EmbedSettings, device_of, embed_frozen, inference_copies
from terrasieve.embeddings.table import provenance, sample_columns
from terrasieve.errors import ArchiveError, PartsError
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard
from terrasieve.parts.part_plan import Outline
from terrasieve.parts.sharing import Planned
from terrasieve.views.render import Normaliser

_VECTORS = "vectors.npy"
"""The vectors of a part, shape ``(n, inputs, features)``."""

Batches = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Indices ``(n,)`` of samples and their vectors ``(n, inputs, features)``, batch by batch."""


@dataclass(frozen=True, eq=False)
class EmbedJob:
    """Samples to embed, and how; items are the samples along a Hilbert curve.

    Attributes:
        encoder: Runs on the device that it is on; one for all inputs, or one for each.
        card: What the encoder was trained with.
        archive: Archive that the samples are read from.
        inputs: What the encoder is shown.
        normaliser: Standardises each band by its statistics.
        asked: Size, batch size and precision; the defaults when None.
        indices: Samples to embed; all when None.
    """

    encoder: Encoder | Sequence[Encoder]
    card: EncoderCard
    archive: Archive
    inputs: Sequence[EncoderInput]
    normaliser: Normaliser
    asked: EmbedSettings | None = None
    indices: NDArray[np.int64] | None = None

    work = "embed"

    # ------------------------------------------------------------ what it is of

    @cached_property
    def settings(self) -> EmbedSettings:
        """Size, batch size, and the precision that it means on the encoder's device."""
        return (self.asked or EmbedSettings()).on(device_of(self._first))

    @cached_property
    def table(self) -> pa.Table:
        """The archive's table."""
        return self.archive.table()

    @cached_property
    def samples(self) -> pa.Table:
        """What the file says of each sample of the archive."""
        return sample_columns(self.table)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The samples to embed, in the order of the file.

        Raises:
            ArchiveError: There are none.
        """
        wanted = np.arange(len(self.samples)) if self.indices is None else self.indices
        order = hilbert_order(self.samples, wanted)
        if not order.size:
            raise ArchiveError("There is no sample to embed; look at the archive with `terrasieve info`.")
        return order

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What makes the vectors, as the file says it."""
        measured = {} if self._first is self.encoder else {"batch_norms": "measured on the archive, for each input"}
        return {**provenance(self.card, self.archive, self._resolved, self.normaliser, self.settings), **measured}

    @cached_property
    def plan(self) -> dict[str, Any]:
        """All that determines the vectors but the content of the source."""
        # In bytes of one order and width, so that every machine finds the same hash.
        return {**self.facts, "rows_sha256": hashlib.sha256(self.order.astype("<i8").tobytes()).hexdigest()}

    def batches(self, done: int = 0) -> Batches:
        """The vectors of all samples after the first ones, of which there are whole batches."""
        left = self.order[done:]
        return track(self._embed(left), "embed (batches)", total=-(-len(left) // self.settings.batch_size))

    # ----------------------------------------------------------------- in parts

    def request(self) -> str:
        """See ``Divisible``."""
        return hashlib.sha256(json.dumps(self.plan, sort_keys=True).encode()).hexdigest()

    def outline(self, folder: Path) -> Outline:
        """See ``Divisible``."""
        facts = {"precision": self.settings.precision}
        return Outline(len(self.order), unit=self.settings.batch_size, facts=facts)

    def state(self, items: range, planned: Planned) -> str:
        """See ``Divisible``."""
        return source_state(self.archive, self.table, self.order[items.start : items.stop])

    def write(self, items: range, place: Path, planned: Planned) -> None:
        """See ``Divisible``."""
        rows = self.order[items.start : items.stop]
        shown = track(self._embed(rows), "embed (batches)", total=-(-len(rows) // self.settings.batch_size))
        np.save(place / _VECTORS, np.concatenate([vectors for _, vectors in shown]), allow_pickle=False)

    def merged(self, planned: Planned, done: int = 0) -> Batches:
        """As :meth:`batches`, from the vectors of the parts.

        Raises:
            PartsError: A part is damaged.
        """
        size = self.settings.batch_size
        for items, folder in track(planned.parts, "take in parts", total=len(planned.filled())):
            try:
                vectors: NDArray[np.float32] = np.load(folder / _VECTORS, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise _damaged(folder, str(error)) from error
            if len(vectors) != len(items) or vectors.dtype != np.float32 or vectors.ndim != 3:
                raise _damaged(folder, f"it holds {vectors.dtype} of shape {vectors.shape} for {len(items)} samples")
            for start in range(max(items.start, done), items.stop, size):
                stop = min(start + size, items.stop)
                yield self.order[start:stop], np.asarray(vectors[start - items.start : stop - items.start])

    @property
    def _first(self) -> Encoder:
        return self.encoder if isinstance(self.encoder, Encoder) else self.encoder[0]

    @cached_property
    def _resolved(self) -> Sequence[EncoderInput]:
        return resolve_inputs(self.inputs, self.archive.sensors, self._first.channels)

    @cached_property
    def _frozen(self) -> Sequence[nn.Module]:
        """For each input its encoder as it runs: copied once, and not for each part."""
        each = [self.encoder] * len(self._resolved) if isinstance(self.encoder, Encoder) else self.encoder
        return inference_copies(each, self.settings.precision)

    def _embed(self, rows: NDArray[np.int64]) -> Batches:
        return embed_frozen(self._frozen, self.archive, self._resolved, self.normaliser, self.settings, rows)


def _damaged(folder: Path, why: str) -> PartsError:
    return PartsError(f"{folder / _VECTORS} is damaged: {why}. Remove {folder}, do that part again, and merge.")


def hilbert_order(samples: pa.Table, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices along a Hilbert curve through the centres of their geometries; those without one last.

    Args:
        samples: Table with a column ``geometry`` of WKB in longitude and latitude, null where unknown.
        indices: Rows of the table to order, shape ``(m,)``.

    Returns:
        The same indices in another order, shape ``(m,)``.
    """
    shapes = shapely.from_wkb(samples["geometry"].to_numpy(zero_copy_only=False))[indices]
    located = ~shapely.is_missing(shapes)
    if not located.any():
        return np.asarray(indices, dtype=np.int64)
    distance = geopandas.GeoSeries(shapes[located]).hilbert_distance().to_numpy()
    placed = indices[located][np.argsort(distance, kind="stable")]
    return np.concatenate([placed, indices[~located]]).astype(np.int64)
