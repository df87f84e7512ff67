"""A small data set in the layout fieldwork; as a plug-in of pytest, what the contract of archives makes of it.

python -m pytest -p small_fieldwork TERRASIEVE/tests/archive/test_archive_contract.py -k fieldwork
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from small_archives.making import Bench
    from terrasieve.archive.protocol import Archive


def write_fieldwork(root: Path, samples: int, size: int = 24) -> None:
    """Write samples of three classes that differ in brightness, four bands of ``size`` squared pixels each."""
    (root / "npy").mkdir()
    generator = np.random.default_rng(0)
    lines = ["id,label,split"]
    for i in range(samples):
        name, label = f"f{i:02}", i % 3
        pixels = 800 + 700 * label + 150 * generator.standard_normal((4, size, size))
        np.save(root / "npy" / f"{name}.npy", pixels.astype(np.uint16))
        lines.append(f"{name},{('maize', 'wheat', 'rice')[label]},{('train', 'train', 'val', 'test')[i // 3 % 4]}")
    (root / "samples.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def pytest_configure() -> None:
    # Terrasieve's tests are importable from here on, and not yet when pytest imports this module.
    from fieldwork.layout import FieldworkSpec

    from small_archives.making import makes

    @makes("fieldwork")
    def fieldwork(bench: Bench) -> Archive:
        write_fieldwork(bench.folder, samples=4)
        return FieldworkSpec(root=bench.folder).open()
