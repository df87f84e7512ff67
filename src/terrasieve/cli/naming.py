"""From what a command line names to an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from terrasieve.archive.protocol import Archive


def open_named(
    data: str, sensors: list[str] | None, tile: int, stride: int | None, match: Literal["stem", "geometry"]
) -> Archive:
    """An archive by its name, or a folder of scenes by its sensors; options as of ``terrasieve pack``."""
    from terrasieve.archive.opening import open_archive, scenes_spec_from_options

    if sensors:
        return open_archive(scenes_spec_from_options(Path(data), sensors, tile, stride, match))
    return open_archive(data)
