"""So2Sat LCZ42: HDF5 files of patches of 32x32 px."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from small_archives.making import Bench, makes
from terrasieve.archive.layouts.so2sat import So2SatSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive


def write(path: Path, optical: NDArray[Any], codes: NDArray[Any] | None) -> None:
    """Write one of the files.

    Args:
        path: Such as ``training.h5``.
        optical: Reflectance, shape ``(n, 32, 32, 10)``; radar is drawn for as many.
        codes: Classes from 0 to 16, ``(n,)``; no labels when None.
    """
    h5py = pytest.importorskip("h5py")
    radar = np.random.default_rng(len(optical)).normal(0, 0.2, (*optical.shape[:3], 8))
    radar[..., 4:6] = radar[..., 4:6] ** 2
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["sen1"], file["sen2"] = radar, optical
        if codes is not None:
            file["label"] = np.eye(17)[codes]


@makes("so2sat")
def so2sat(bench: Bench) -> Archive:
    for stem, count in (("training", 3), ("testing", 2)):
        write(bench.folder / f"{stem}.h5", bench.rng.random((count, 32, 32, 10)), np.arange(count))
    return open_archive(So2SatSpec(root=bench.folder))
