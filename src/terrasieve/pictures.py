"""A drawing that a notebook shows and that can be saved, without a window or global state."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from terrasieve.files.writing import write_whole


@dataclass(frozen=True, repr=False)
class Picture:
    """A drawing: a notebook shows it where it is the last value of a cell.

    Attributes:
        figure: The drawing, to be changed with matplotlib.
        says: What it shows, in a few words.
    """

    figure: Figure
    says: str

    def save(self, path: str | os.PathLike[str], dpi: int = 150) -> Path:
        """Write it as the suffix of the path says: ``.png``, ``.svg`` or ``.pdf``.

        Args:
            path: The file to write; one that is there is replaced.
            dpi: Pixels an inch, of formats that have pixels.

        Raises:
            WriteError: The system refused it.
        """
        written = Path(path)
        with write_whole(written) as partial:
            self.figure.savefig(partial, format=written.suffix.lstrip(".") or "png", dpi=dpi)
        return written

    def __repr__(self) -> str:
        width, height = self.figure.get_size_inches()
        return f"<Picture of {self.says}, {width:.0f} x {height:.0f} inches; .save(path) writes it>"

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        content = io.BytesIO()
        self.figure.savefig(content, format="png", dpi=100)
        return content.getvalue()
