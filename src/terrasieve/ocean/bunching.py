"""How a synthetic aperture radar images moving waves.

Real-aperture modulation by tilt, and velocity bunching: the radar takes motion along its line of sight for a place
further along its own track (Hasselmann and Hasselmann 1991, "On the nonlinear mapping of an ocean wave spectrum into a
synthetic aperture radar image spectrum and its inversion", J. Geophys. Res. 96(C6), 10713-10729). Here the surface
itself is mapped, not its spectrum, so the mapping is nonlinear without an expansion. Rows are azimuth, columns range.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from terrasieve.ocean.viewing import range_to_velocity
from terrasieve.ocean.waves import Field, Surface


def wave_image(surface: Surface, incidence: float, pixel: int) -> Field:
    """What waves do to an image: a factor on backscatter, of mean 1.

    Modulation of short waves by long ones (hydrodynamic modulation) and breaking are left out.

    Args:
        surface: Sea surface of a square grid of cells, rows along azimuth, columns along range away from the radar.
        incidence: Angle between the line of sight and the vertical, in degrees between 0 and 90.
        pixel: Cells of the surface along each side of an image's pixel; divides the surface's cells.

    Returns:
        Positive factors of mean 1, shape ``(cells / pixel, cells / pixel)``.
    """
    spacing = surface.grid.spacing
    shift = range_to_velocity(incidence) * surface.velocity(incidence) / spacing
    # Tilt first: it says how much power a cell sends back, bunching where that appears.
    fine = bunch(tilt(surface.slope(), incidence), shift)
    rows = fine.shape[0] // pixel
    coarse = fine.reshape(rows, pixel, rows, pixel).mean(axis=(1, 3))
    blur = range_to_velocity(incidence) * line_of_sight_spread(surface.unresolved[1], incidence)
    smeared = smear(coarse, blur / (spacing * pixel))
    image: Field = smeared / smeared.mean()
    return image


def tilt(slope: Field, incidence: float) -> Field:
    """Real-aperture modulation: slopes that face the radar are brighter.

    The transfer function is 4 cot(theta) / (1 + sin^2(theta)) a unit of slope, for VV (Wright 1968; Hasselmann and
    Hasselmann 1991); it is linear, so steep slopes that face away are cut off at no power.

    Args:
        slope: Rise of the surface in m for each metre away from the radar, any shape.
        incidence: Angle between the line of sight and the vertical, in degrees between 0 and 90.

    Returns:
        Factors on the power of a flat sea, not negative, in the shape of ``slope``.
    """
    angle = math.radians(incidence)
    gain = 4 / math.tan(angle) / (1 + math.sin(angle) ** 2)
    modulated: Field = np.maximum(1 + np.float32(gain) * slope, np.float32(0))
    return modulated


def bunch(power: Field, shift: Field) -> Field:
    """Move the power of each cell along the rows' axis, as velocity does; nothing is lost, and the edges are joined.

    Args:
        power: Power of each cell, shape ``(rows, columns)``.
        shift: How far each cell's power moves towards increasing rows, in cells, same shape; it need not be whole.

    Returns:
        Power after the move, same shape and sum.
    """
    rows, columns = power.shape
    place = np.arange(rows, dtype=np.float32)[:, None] + shift
    # Power that comes to lie between two rows is shared by them, as a plain rounding would leave stripes.
    below = np.floor(place)
    upper = place - below
    first = below.astype(np.int64) % rows * columns + np.arange(columns)
    second = (first + columns) % power.size
    gathered = np.bincount(first.ravel(), (power * (1 - upper)).ravel(), power.size)
    gathered += np.bincount(second.ravel(), (power * upper).ravel(), power.size)
    return gathered.reshape(power.shape).astype(np.float32)


def line_of_sight_spread(vertical: float, incidence: float) -> float:
    """Standard deviation of the velocity along the line of sight, in m/s, of waves from all around.

    Args:
        vertical: Variance of the orbital velocity's vertical component, in m2/s2.
        incidence: Angle between the line of sight and the vertical, in degrees between 0 and 90.
    """
    # Horizontal motion has the same variance, and half of it lies along range.
    return math.sqrt(vertical * (math.cos(math.radians(incidence)) ** 2 + math.sin(math.radians(incidence)) ** 2 / 2))


def smear(power: Field, width: float) -> Field:
    """Gaussian blur along the rows' axis, periodic: the shifts of waves too short to be resolved.

    Args:
        power: Power of each cell, shape ``(rows, columns)``.
        width: Standard deviation of the blur in rows.

    Returns:
        Blurred power, same shape and sum.
    """
    frequency = np.fft.rfftfreq(power.shape[0])[:, None]
    # The Fourier transform of a Gaussian of that width.
    response = np.exp(-2 * (math.pi * width * frequency) ** 2).astype(np.float32)
    blurred: Field = fft.irfft(fft.rfft(power, axis=0) * response, n=power.shape[0], axis=0).astype(np.float32)
    return blurred
