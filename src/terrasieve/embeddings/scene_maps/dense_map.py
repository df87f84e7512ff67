"""A vector for every cell of a scene: overlapping tiles through an encoder, blended, a row of tiles in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Archive, Window
from terrasieve.archive.scenes.whole_scene import WholeScene
from terrasieve.baselines.baseline import Repeated
from terrasieve.console import track
from terrasieve.embeddings.inputs import EncoderInput, bands_by_sensor, join, resolve_inputs
from terrasieve.embeddings.scene_maps.dense_cells import DenseSettings
from terrasieve.embeddings.stream import EmbedSettings, RawBatch, device_of, embed_batch, inference_copies
from terrasieve.embeddings.table import provenance
from terrasieve.models.backbone import Encoder
from terrasieve.models.dense import CellVectors
from terrasieve.models.export import EncoderCard
from terrasieve.processes.parallel import read_ahead
from terrasieve.views.render import Normaliser

BLOCK_ROWS = 32
"""Rows of cells that are written at a time."""

Strip = Mapping[str, NDArray[np.float32]]
"""The pixels of a row of tiles by sensor, ``(bands, tile, padded width)``; NaN beyond the scene."""


@dataclass(frozen=True, eq=False)
class DenseJob:
    """Scenes to make maps of, and how.

    Attributes:
        encoder: Runs on the device that it is on; one for all inputs, or one for each, as
            :func:`terrasieve.embeddings.stream.calibrated_encoders` gives them. A timm ResNet or ViT, or one that is
            shown copies of a band.
        card: What the encoder was trained with.
        archive: The archive that the scenes are of.
        scenes: The scenes.
        inputs: What the encoder is shown.
        normaliser: Standardises each band by its statistics.
        asked: Stride, tile, batch size and precision; the defaults when None.
    """

    encoder: Encoder | Repeated | Sequence[Encoder]
    card: EncoderCard
    archive: Archive
    scenes: Sequence[WholeScene]
    inputs: Sequence[EncoderInput]
    normaliser: Normaliser
    asked: DenseSettings | None = None

    @cached_property
    def settings(self) -> DenseSettings:
        """The settings with the tile and the precision that they mean for the encoder.

        Raises:
            ConfigError: The encoder gives no feature maps, or the tile does not fit it.
        """
        fitted = (self.asked or DenseSettings()).fitted(_network(self._each[0]), self.card.image_size)
        return fitted.model_copy(update={"precision": self._passing.precision})

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What makes the vectors, as :func:`terrasieve.embeddings.table.provenance` says it."""
        measured = {"batch_norms": "measured on the archive, for each input"} if self._measured else {}
        said = provenance(self.card, self.archive, self.resolved, self.normaliser, self.settings)
        return {**said, "emb:type": "pixel", **measured}

    @cached_property
    def maps(self) -> list[SceneMap]:
        """The map of each scene; nothing of it is computed before its blocks are asked for."""
        return [SceneMap(self, scene) for scene in self.scenes]

    @cached_property
    def features(self) -> int:
        """Length of a cell's vector."""
        return _network(self._each[0]).features * len(self.resolved)

    @cached_property
    def resolved(self) -> Sequence[EncoderInput]:
        """The inputs with every band by name."""
        first = self._each[0]
        return resolve_inputs(self.inputs, self.archive.sensors, 1 if isinstance(first, Repeated) else first.channels)

    def vectors(self, tiles: Mapping[str, NDArray[np.float32]], size: int) -> NDArray[np.float32]:
        """Vectors ``(n, cells, cells, features)`` of the cells of tiles.

        Args:
            tiles: By sensor the bands that the inputs need, ``(n, bands, size, size)``.
            size: Height and width of the tiles, in pixels.
        """
        frozen = self._frozen(size)
        count = len(next(iter(tiles.values())))
        batch = RawBatch(np.arange(count), {sensor: (pixels,) for sensor, pixels in tiles.items()})
        maps = embed_batch(frozen, batch, self.resolved, self.normaliser, self._passing)
        placed = np.moveaxis(maps, (1, 2), (3, 4))
        return join(placed.reshape(-1, *placed.shape[3:])).reshape(*placed.shape[:3], -1)

    @cached_property
    def native(self) -> int:
        """Pixels from one cell of the network's own maps to the next."""
        (first, *_) = self._frozen(self.settings.tile or 1)
        return int(first.dense.stride)

    @property
    def _each(self) -> list[Encoder | Repeated]:
        """An encoder for each input."""
        if isinstance(self.encoder, (Encoder, Repeated)):
            return [self.encoder] * len(self.inputs)
        return list(self.encoder)

    @property
    def _measured(self) -> bool:
        return not isinstance(self.encoder, (Encoder, Repeated))

    @cached_property
    def _passing(self) -> EmbedSettings:
        asked = self.asked or DenseSettings()
        return EmbedSettings(precision=asked.precision).on(device_of(_network(self._each[0])))

    @cached_property
    def _frozen_by_size(self) -> dict[int, list[CellVectors]]:
        return {}

    def _frozen(self, size: int) -> list[Any]:
        if size not in self._frozen_by_size:
            distinct = dict.fromkeys(self._each)
            copies = {one: one.copies if isinstance(one, Repeated) else 1 for one in distinct}
            cells = {one: CellVectors(_network(one), self.settings.stride, size, copies[one]) for one in distinct}
            made: list[Any] = inference_copies(
                [cells[one].to(device_of(_network(one))) for one in self._each], self._passing.precision
            )
            # Scenes of many sizes smaller than a tile must not keep a network each.
            self._frozen_by_size.clear()
            self._frozen_by_size[size] = made
        return self._frozen_by_size[size]


class SceneMap:
    """The map of one scene, computed anew each time that its blocks are asked for.

    Args:
        job: How it is made.
        scene: What it is of.

    Attributes:
        name: Name of the scene.
        grid: Its cells and tiles.
        shape: Rows, columns and length of vectors.
    """

    def __init__(self, job: DenseJob, scene: WholeScene) -> None:
        self._job = job
        self.scene = scene
        self.name = scene.name
        self.grid = job.settings.grid(scene.height, scene.width, job.native)
        self.shape = (self.grid.rows, self.grid.columns, job.features)

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """The affine a-f from (column, row) of cells to coordinates; to pixels of the scene where it lies nowhere."""
        a, b, c, d, e, f = self.scene.transform or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
        step = self.grid.stride
        return (a * step, b * step, c, d * step, e * step, f)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Vectors from the first row of cells on, ``(n, columns, features)``; NaN for a cell that is mostly missing.

        Yields:
            Blocks of :data:`BLOCK_ROWS` rows; the last may have fewer.

        Raises:
            SampleError: The pixels cannot be read.
        """
        held: list[NDArray[np.float32]] = []
        for rows in track(self._rows(), f"{self.name} (rows of tiles)", total=len(self.grid.tops)):
            held.append(rows)
            if sum(map(len, held)) >= BLOCK_ROWS:
                whole = np.concatenate(held)
                for start in range(0, len(whole) - BLOCK_ROWS + 1, BLOCK_ROWS):
                    yield whole[start : start + BLOCK_ROWS]
                held = [whole[len(whole) // BLOCK_ROWS * BLOCK_ROWS :]]
        if sum(map(len, held)):
            yield np.concatenate(held)

    def _rows(self) -> Iterator[NDArray[np.float32]]:
        """The rows of cells that are done with each row of tiles."""
        grid, cells = self.grid, self.grid.cells
        padded = grid.padded_width // grid.stride
        sums = np.zeros((cells, padded, self.shape[2]), np.float32)
        totals = np.zeros((cells, padded, 1), np.float32)
        # No row begins before the tiles after the last do.
        following = [*(top // grid.stride for top in grid.tops[1:]), grid.rows]
        for top, after, strip in zip(grid.tops, following, read_ahead(self._strips(), depth=1), strict=True):
            self._add(strip, sums, totals)
            done = after - top // grid.stride
            rows = sums[:done, : grid.columns] / totals[:done, : grid.columns]
            rows[self._missing(strip)[:done, : grid.columns]] = np.nan
            yield rows
            for kept in (sums, totals):
                kept[: cells - done] = kept[done:].copy()
                kept[cells - done :] = 0

    def _add(self, strip: Strip, sums: NDArray[np.float32], totals: NDArray[np.float32]) -> None:
        """Add the weighted vectors of a row of tiles, and their weights."""
        grid, weights = self.grid, self.grid.weights()[..., None]
        for start in range(0, len(grid.lefts), self._job.settings.batch_size):
            lefts = grid.lefts[start : start + self._job.settings.batch_size]
            tiles = {
                sensor: np.stack([pixels[..., left : left + grid.tile] for left in lefts])
                for sensor, pixels in strip.items()
            }
            for left, vectors in zip(lefts, self._job.vectors(tiles, grid.tile), strict=True):
                place = slice(left // grid.stride, left // grid.stride + grid.cells)
                sums[:, place] += weights * vectors
                totals[:, place] += weights

    def _missing(self, strip: Strip) -> NDArray[np.bool_]:
        absent = np.zeros((self.grid.tile, self.grid.padded_width), np.bool_)
        for sensor, pixels in strip.items():
            nodata = self._job.archive.sensors[sensor].nodata
            absent |= (~np.isfinite(pixels) | (pixels == (np.nan if nodata is None else nodata))).any(axis=0)
        return self.grid.missing(absent)

    def _strips(self) -> Iterator[Strip]:
        """The pixels of each row of tiles; of what the row before holds, nothing is read again."""
        grid, needed = self.grid, bands_by_sensor(self._job.resolved)
        held: dict[str, NDArray[np.float32]] = {}
        for before, top in pairwise((-grid.tile, *grid.tops)):
            begin = max(top, before + grid.tile)
            window = Window(begin, 0, top + grid.tile - begin, grid.padded_width)
            read = {sensor: self.scene.read(sensor, bands, window) for sensor, bands in needed.items()}
            if begin > top:
                read = {
                    sensor: np.concatenate([held[sensor][:, top - before :], new], axis=1)
                    for sensor, new in read.items()
                }
            held = read
            yield read


def _network(encoder: Encoder | Repeated) -> Encoder:
    return encoder.encoder if isinstance(encoder, Repeated) else encoder
