"""Random fields that simulated pictures are made of, all periodic: what leaves one edge comes in at the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def random_field(rng: np.random.Generator, size: int, length: float) -> Field:
    """A periodic Gaussian random field of mean 0 and standard deviation 1.

    White noise, filtered by a Gaussian; the correlation falls to ``exp(-1/4)`` at ``length`` pixels.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32)) * transfer(size, length)
    # Without its constant term the field has mean 0; the standard deviation is set below.
    spectrum[0, 0] = 0
    field: Field = np.fft.irfft2(spectrum, s=(size, size)).astype(np.float32)
    field /= max(float(field.std()), 1e-6)
    return field


def transfer(size: int, sigma: float) -> Field:
    """Transfer function of a periodic Gaussian blur of ``sigma`` pixels, laid out as ``numpy.fft.rfft2`` is."""
    squared = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size)[None, :] ** 2
    response: Field = np.exp(-2 * np.pi**2 * sigma**2 * squared).astype(np.float32)
    return response


def nearest_sites(
    rng: np.random.Generator, size: int, across: int, jitter: float
) -> tuple[NDArray[np.int64], Field, Field]:
    """Number of the nearest site of a lattice, and distances in pixels to it and to the second nearest, on a torus.

    Args:
        rng: Generator that the sites are drawn from.
        size: Number of rows, and of columns, in pixels.
        across: Sites along each side.
        jitter: How far sites leave their places, as a share of their distance.
    """
    lattice = np.stack(np.meshgrid(np.arange(across), np.arange(across), indexing="ij"), axis=-1).astype(np.float64)
    # Every other row is shifted by half a place, so that six neighbours surround each.
    lattice[1::2, :, 1] += 0.5
    sites = (lattice.reshape(-1, 2) + jitter * rng.uniform(-0.5, 0.5, (across * across, 2))) * (size / across)
    places: Field = (sites + rng.uniform(0, size, 2)).astype(np.float32) % np.float32(size)
    along = np.arange(size, dtype=np.float32)
    gaps = [np.abs(along[:, None] - places[None, :, axis]) for axis in (0, 1)]
    squares = [np.minimum(gap, size - gap) ** 2 for gap in gaps]
    distances = squares[0][:, None] + squares[1][None]
    nearest = np.argmin(distances, axis=2)
    two = np.sqrt(np.partition(distances, 1, axis=2)[..., :2])
    return nearest, two[..., 0], two[..., 1]
