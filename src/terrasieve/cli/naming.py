"""From what a command line names to an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from terrasieve.archive.protocol import Archive
from terrasieve.errors import ConfigError


def open_named(
    data: str,
    sensors: list[str] | None,
    tile: int,
    stride: int | None,
    match: Literal["stem", "geometry"],
    layout: str | None = None,
) -> Archive:
    """An archive by its name, or a folder of scenes by its sensors; options as of ``terrasieve pack``.

    Raises:
        ConfigError: Both sensors and a layout are given.
    """
    from terrasieve.archive.layouts.plain_table import is_table, table_spec_from_options
    from terrasieve.archive.opening import open_archive, scenes_spec_from_options

    if sensors and is_table(Path(data)):
        return open_archive(table_spec_from_options(Path(data), sensors))
    if sensors and layout:
        raise ConfigError(f"--sensor is for a folder of scenes, --layout {layout} says it is none; leave one out.")
    if sensors:
        return open_archive(scenes_spec_from_options(Path(data), sensors, tile, stride, match))
    return open_archive(data, layout=layout)


def say_layout(data: str, sensors: list[str] | None, layout: str | None) -> str | None:
    """Which layout a folder is taken to have, how sure that is, and why; None where nothing had to be recognised."""
    from terrasieve.archive.opening import recognise

    if layout is not None:
        return f"Layout: {layout}, as --layout says."
    if sensors or not Path(data).is_dir():
        return None
    seen = recognise(Path(data))
    if not seen:
        return None
    best, *others = seen
    beside = ", ".join(f"{other.spec.layout} {other.confidence:.0%}" for other in others)
    about = best.spec.data_set
    name = f"{about.title} ({best.spec.layout})" if about else best.spec.layout
    return (
        f"Layout: {name}, {best.confidence:.0%} sure: {best.evidence}."
        + (f" Also possible: {beside}." if beside else "")
        + " --layout overrides it."
    )
