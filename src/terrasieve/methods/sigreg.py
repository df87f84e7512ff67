"""SIGReg: how far vectors are from a standard normal distribution (Balestriero and LeCun 2025, arXiv 2511.08544)."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn import functional as across

KNOTS = 17
"""Frequencies at which characteristic functions are compared, from 0 to ``HIGHEST``."""
HIGHEST = 3.0


def sigreg(vectors: Tensor, directions: Tensor) -> Tensor:
    """The statistic of Epps and Pulley along each of many directions, averaged (section 4 of the paper).

    Along a direction the empirical characteristic function of the vectors is compared with ``exp(-t^2 / 2)``, that of
    a standard normal variable. The squared distance is weighted by the same function, integrated over frequencies ``t``
    from -3 to 3, and multiplied by the number of vectors. Under several processes the characteristic function is that
    of the vectors of all of them.

    Args:
        vectors: ``(n, d)`` on this process; every process has as many.
        directions: Columns of unit length, ``(d, slices)``, the same in every process.

    Returns:
        Scalar, 0 or more, float32 whatever the precision of the vectors; about 1 where they are normal.
    """
    # In 16 bits neither the products nor the means over the batch would be exact enough.
    with torch.autocast(vectors.device.type, enabled=False):
        frequencies = torch.linspace(0, HIGHEST, KNOTS, device=vectors.device)
        normal = torch.exp(-frequencies.square() / 2)
        angles = (vectors.float() @ directions)[..., None] * frequencies
        # (2, slices, knots): the real and the imaginary part.
        found = torch.stack([angles.cos().mean(dim=0), angles.sin().mean(dim=0)])
        processes = 1
        if distributed.is_available() and distributed.is_initialized():
            processes = distributed.get_world_size()
            # Differentiable: each process's vectors move the mean over all.
            found = across.all_reduce(found) / processes  # type: ignore[no-untyped-call]  # torch leaves it so
        distance = (found[0] - normal).square() + found[1].square()
        # Twice the integral over positive frequencies, since the integrand is even.
        integral = 2 * torch.trapezoid(distance * normal, dx=HIGHEST / (KNOTS - 1), dim=-1)
        return integral.mean() * (len(vectors) * processes)
