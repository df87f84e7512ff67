"""One vignette: from complex pixels to backscatter on a grid of cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.products.annotation import Annotation, check_belongs, read_annotation
from terrasieve.archive.products.look_up import LookUpTable
from terrasieve.archive.products.radiometry import FLOOR, Noise, calibrate, read_calibration, read_noise
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError, Problem
from terrasieve.archive.readers.documents import Document, parse
from terrasieve.archive.readers.geotiff import read_header, read_window
from terrasieve.archive.wave_mode.averaging import CellGrid, plan_grid, weights
from terrasieve.archive.wave_mode.safe import VignetteFiles, processor_version
from terrasieve.ocean.cmod5n import detrend

MAX_EMPTY = 0.1
"""A cell has no value where more than this share of its pixels is exactly 0+0i. Such pixels fill the borders that the
processor leaves empty; in images so dark that some occur by chance they are rarer, and count as measured."""

_STRIP = 512
"""Lines that are read at once, about: some 20 MB of a vignette of 170."""

NoiseHandling = Literal["subtract", "keep"]
Detrending = Literal["cmod5n", "none"]


@dataclass(frozen=True)
class Averaging:
    """How pixels become cells.

    Attributes:
        spacing: Length of a cell's sides in metres, positive.
        size: Rows and columns of the result, from the middle; as many as fit when None.
        noise: ``subtract`` takes the noise out before averaging; values below 0 are kept until the mean is taken.
        detrending: ``cmod5n`` divides by what the sea gives at 10 m/s at the same incidence.
    """

    spacing: float
    size: int | None
    noise: NoiseHandling
    detrending: Detrending


def read_vignette(files: VignetteFiles, averaging: Averaging) -> NDArray[np.float32]:
    """Backscatter of a vignette, shape ``(height, width)``, linear; rows follow the flight, columns the range.

    Each pixel is ``(|DN|^2 - noise) / sigmaNought^2``, each cell the mean of its pixels, weighted by area. What lies
    below :data:`FLOOR` then is set to it; a cell without a measurement (:data:`MAX_EMPTY`) is NaN.

    Args:
        files: The vignette's files; that of the noise and the manifest are read only where noise is to be subtracted.
        averaging: Spacing, size and corrections.

    Raises:
        SampleError: A file is absent, damaged or of another vignette, or the image is not what its annotation says.
    """
    document = parse(files.annotation)
    annotation = read_annotation(document)
    grid = plan_grid(annotation, averaging.spacing, averaging.size, str(files.measurement))
    calibrating = parse(files.calibration)
    check_belongs(calibrating, document)
    calibration = read_calibration(calibrating)
    noise = _noise(files, document, annotation) if averaging.noise == "subtract" else None
    _check_image(files, annotation)
    strips = list(_strips(files, annotation, grid, calibration, noise))
    cells = np.concatenate(strips)
    if averaging.detrending == "cmod5n":
        cells = detrend(cells, annotation.incidence.at(*grid.centres))
    # The floor comes last, and on cells: on pixels, of which noise was subtracted, it would raise the mean of dark sea.
    return np.maximum(cells, FLOOR).astype(np.float32)


def _noise(files: VignetteFiles, annotation: Document, facts: Annotation) -> Noise | None:
    """The noise that is in the pixels; None where the processor took it out."""
    if facts.denoised:
        return None
    document = parse(files.noise)
    check_belongs(document, annotation)
    return read_noise(document, facts.platform, facts.mode, processor_version(files.manifest))


def _check_image(files: VignetteFiles, annotation: Annotation) -> None:
    header = read_header(files.measurement)
    if (header.height, header.width) != (annotation.lines, annotation.samples):
        raise FlawError(
            Problem.GRID,
            f"{files.measurement} is {header.height}x{header.width} px, its annotation says {annotation.lines}x"
            f"{annotation.samples}. Fetch the product again.",
        )
    if header.count != 1 or not header.dtype.startswith("complex"):
        raise FlawError(
            Problem.BANDS,
            f"{files.measurement} has {header.count} band(s) of {header.dtype}, not one of complex numbers; "
            "it is no SLC measurement.",
        )


def _strips(
    files: VignetteFiles, annotation: Annotation, grid: CellGrid, calibration: LookUpTable, noise: Noise | None
) -> Iterator[NDArray[np.float64]]:
    """Rows of cells, a few at a time, with NaN where nothing was measured."""
    # The mean is separable: of each line over columns, then of these over lines, each by a sparse matrix.
    left, right = _covered(grid.columns)
    across = weights(grid.columns - left, right - left)
    pixels = np.arange(left, right)
    for rows in np.array_split(np.arange(grid.shape[0]), max(1, annotation.lines // _STRIP)):
        if not len(rows):
            continue  # there are more strips than rows of cells
        edges = grid.rows[rows[0] : rows[-1] + 2]
        top, bottom = _covered(edges)
        lines = np.arange(top, bottom)
        numbers = read_window(files.measurement, [0], Window(top, left, bottom - top, right - left))[0]
        # The square of a 16-bit number has up to 30 bits, of which float32 would keep 24.
        power = numbers.real.astype(np.float64) ** 2 + numbers.imag.astype(np.float64) ** 2
        empty = power == 0
        along = weights(edges - top, bottom - top)
        cells = _mean(calibrate(power, lines, pixels, calibration, noise), along, across)
        if empty.any():  # a second mean costs as much as the first, and few vignettes need it
            cells[_mean(empty.astype(np.float64), along, across) > MAX_EMPTY] = np.nan
        yield cells


def _covered(edges: NDArray[np.float64]) -> tuple[int, int]:
    """First pixel that cells touch, and the one after the last."""
    return int(np.floor(edges[0])), int(np.ceil(edges[-1]))


def _mean(pixels: NDArray[np.float64], along: Any, across: Any) -> NDArray[np.float64]:
    cells: NDArray[np.float64] = along @ (across @ pixels.T).T
    return cells
