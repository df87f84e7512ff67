"""The files of a folder of scenes by the names under which they match: found, and kept for those who work on a part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from terrasieve.archive.folders import Found, find_files, name_below, subfolders
from terrasieve.archive.scenes.band_files import find_band_files
from terrasieve.errors import ArchiveError
from terrasieve.files.writing import write_text
from terrasieve.schema import read_json

if TYPE_CHECKING:
    from terrasieve.archive.scenes.survey import ScenesSpec, SensorFolder

Named: TypeAlias = Mapping[str, Mapping[str, Path]]
"""By key of the sensor, its files by the name under which they match, in order."""


def find_named(spec: ScenesSpec) -> tuple[dict[str, Found], dict[str, dict[str, Path]]]:
    """What the folder of each sensor holds, and its files by name where no band has one of its own; none is opened.

    Raises:
        ArchiveError: A folder is absent or holds no file, or two files have one name.
    """
    places = {key: _search(spec.root, key, folder) for key, folder in spec.sensors.items()}
    named = {
        key: _named(spec.root / folder.folder, key, folder, places[key])
        for key, folder in spec.sensors.items()
        if not folder.files
    }
    return places, named


def write_named(spec: ScenesSpec, named: Named, path: Path) -> None:
    """Keep what :func:`find_named` found: a folder of a million files is then searched once, not by every worker.

    Args:
        spec: Where the files lie.
        named: The files.
        path: A JSON file.

    Raises:
        WriteError: The file cannot be written.
    """
    below = {
        key: {name: name_below(spec.root / spec.sensors[key].folder, file) for name, file in files.items()}
        for key, files in named.items()
    }
    write_text(path, json.dumps(below))


def read_named(spec: ScenesSpec, path: Path) -> dict[str, dict[str, Path]]:
    """The files as :func:`write_named` kept them; of none it is looked whether it still is there.

    Args:
        spec: That which they were found for.
        path: The JSON file.

    Raises:
        ArchiveError: The folder of a sensor is absent.
        OSError: The file cannot be read.
        ValueError: It is damaged, or names a file outside its sensor's folder.
    """
    kept = read_json(path)
    named: dict[str, dict[str, Path]] = {}
    for key, folder in spec.sensors.items():
        top = _top(spec.root, key, folder)
        files = kept.get(key) if isinstance(kept, dict) else None
        if not isinstance(files, dict) or not all(isinstance(below, str) for below in files.values()):
            raise ValueError(f"it lists no files of sensor {key!r}")
        if outside := next((below for below in files.values() if {"", ".."} & set(below.split("/"))), None):
            raise ValueError(f"it names {outside!r}, which does not lie in {top}")
        named[key] = {name: top / below for name, below in files.items()}
    return named


def _top(root: Path, key: str, folder: SensorFolder) -> Path:
    """The folder of a sensor, which has to be there."""
    top = root / folder.folder
    if not top.is_dir():
        beside = ", ".join(subfolders(root)) if root.is_dir() else "nothing"
        raise ArchiveError(f"Folder {top} of sensor {key!r} does not exist; {root} holds {beside or 'no folder'}.")
    return top


def _search(root: Path, key: str, folder: SensorFolder) -> Found:
    """What the folder of a sensor holds."""
    top = _top(root, key, folder)
    found = find_band_files(top, folder.files) if folder.files else find_files(top, folder.pattern)
    if not found.files:
        patterns = ", ".join(map(repr, folder.files.values())) or repr(folder.pattern)
        raise ArchiveError(
            f"No file in {top} matches {patterns} (sensor {key!r}); its files end in "
            f"{', '.join(sorted(found.others)[:8]) or 'nothing: it is empty'}. Set the sensor's "
            f"{'files' if folder.files else 'pattern'}."
        )
    return found


def _named(top: Path, key: str, folder: SensorFolder, found: Found) -> dict[str, Path]:
    """The files of a sensor by the name under which they match, in order."""
    named: dict[str, Path] = {}
    for path in found.files:
        name = name_below(top, path).removesuffix(path.suffix)
        name = name.replace(folder.drop, "") if folder.drop else name
        if name in named:
            raise ArchiveError(
                f"{named[name]} and {path} would both be {name!r} of sensor {key!r}; narrow the pattern, or remove one."
            )
        named[name] = path
    return named
