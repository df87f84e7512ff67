"""Vignettes as patches of an archive, and what their annotations add to its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.footprints import outlines
from terrasieve.archive.products.annotation import Annotation, read_annotation
from terrasieve.archive.protocol import Window
from terrasieve.archive.readers.documents import parse
from terrasieve.archive.readers.geotiff import cut
from terrasieve.archive.wave_mode.averaging import CellGrid, plan_grid
from terrasieve.archive.wave_mode.safe import VignetteFiles, processor_version
from terrasieve.archive.wave_mode.vignette import Averaging, read_vignette
from terrasieve.errors import SampleError
from terrasieve.sensors import Sensor

COLUMNS: Mapping[str, pa.DataType] = {
    "geometry": pa.binary(),
    "time": pa.timestamp("us", tz="UTC"),
    "mode": pa.string(),
    "incidence": pa.float64(),
    "latitude": pa.float64(),
    "longitude": pa.float64(),
    "platform": pa.string(),
    "orbit": pa.int64(),
    "pass": pa.string(),
    "heading": pa.float64(),
    "processor": pa.string(),
}
"""What annotations say: outline and centre of the cells, time of the middle line, mean incidence in degrees, version of
the processor. Where a vignette crosses 180 degrees of longitude it has no outline, but a centre."""


class VignetteReader:
    """Reads vignettes, averaged.

    Args:
        root: Folder that addresses are relative to, which are paths of measurements.
        sensor: The sensor with its one band, that of the vignettes' polarisation.
        averaging: Spacing, size and corrections by which pixels become cells.
    """

    def __init__(self, root: Path, sensor: Sensor, averaging: Averaging) -> None:
        self.root, self.sensor, self.averaging = root, sensor, averaging

    def files(self, address: str) -> tuple[Path, ...]:
        """The measurement, annotation, calibration and noise."""
        files = self._files(address)
        return (files.measurement, files.annotation, files.calibration, files.noise)

    def shape(self, address: str) -> tuple[int, int]:
        """The size that all have, or else what fits into the vignette."""
        if self.averaging.size is not None:
            return (self.averaging.size, self.averaging.size)
        return self._planned(address)[1].shape

    def read(self, address: str, positions: Sequence[int], window: Window | None) -> NDArray[np.float32]:
        """Backscatter; the whole vignette is averaged, whatever the window. See ``PatchReader.read``."""
        cells = read_vignette(self._files(address), self.averaging)[None]
        return cut(cells, window)[list(positions)]

    def header(self, address: str) -> None:
        """Measurements have no grid on the ground; :meth:`facts` says where a vignette lies."""

    def facts(self, address: str) -> dict[str, Any]:
        """What the annotation says, by the names of :data:`COLUMNS`; all None where it cannot be read."""
        try:
            annotation, grid = self._planned(address)
        except SampleError:
            return dict.fromkeys(COLUMNS)
        latitude, longitude = (
            float(table.at(*([centre.mean()] for centre in grid.centres))[0, 0])
            for table in (annotation.latitude, annotation.longitude)
        )
        return {
            "geometry": _outline(annotation, grid),
            # The middle line's: times cannot be added, differences can.
            "time": annotation.first + (annotation.last - annotation.first) / 2,
            "mode": annotation.mode,
            "incidence": float(annotation.incidence.at(*grid.centres).mean()),
            "latitude": latitude,
            # Tables of annotations go on past 180 degrees.
            "longitude": (longitude + 180) % 360 - 180,
            "platform": annotation.platform,
            "orbit": annotation.orbit,
            "pass": annotation.direction,
            "heading": annotation.heading,
            "processor": _version_or_none(self._files(address).manifest),
        }

    def _files(self, address: str) -> VignetteFiles:
        return VignetteFiles.of(self.root / address)

    def _planned(self, address: str) -> tuple[Annotation, CellGrid]:
        files = self._files(address)
        annotation = read_annotation(parse(files.annotation))
        return annotation, plan_grid(annotation, self.averaging.spacing, self.averaging.size, str(files.measurement))


def _outline(annotation: Annotation, grid: CellGrid) -> bytes | None:
    """The outline of the cells, counter-clockwise or clockwise as the pass has it."""
    longitude, latitude = annotation.longitude.at(*grid.corners), annotation.latitude.at(*grid.corners)
    around = ((0, 0), (0, 1), (1, 1), (1, 0))
    ring = np.array([[(longitude[place] + 180) % 360 - 180, latitude[place]] for place in around])
    return outlines(ring[None], "EPSG:4326")[0]


# The vignettes of a product come one after the other and share its manifest.
@lru_cache(maxsize=1)
def _version_or_none(manifest: Path) -> str | None:
    try:
        return processor_version(manifest)
    except SampleError:
        return None
