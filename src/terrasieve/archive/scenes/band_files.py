"""Scenes of which each band has a file of its own, at its own resolution."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from terrasieve.archive.folders import Found, find_files
from terrasieve.archive.quality.limits import FlawError, Problem, Rejection
from terrasieve.archive.readers.geotiff import Header, PixelGrid, read_headers, validate_bands
from terrasieve.archive.stac.tiles import BandFile, StacScene, join_bands
from terrasieve.errors import ArchiveError
from terrasieve.sensors import Sensor


@dataclass(frozen=True, slots=True)
class BandsHeader(Header):
    """What the files of a scene's bands say; of what they differ in, the finest band's.

    Attributes:
        scene: The file of each band, on the grid of the finest.
    """

    scene: StacScene = field(kw_only=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The file of each band."""
        return tuple(str(band.file) for band in self.scene.bands)


def find_band_files(top: Path, patterns: Mapping[str, str]) -> Found:
    """The files of all bands below a folder; one pattern a band, which without ``/`` counts at any depth."""
    return find_files(top, *(pattern if "/" in pattern else f"**/{pattern}" for pattern in patterns.values()))


def group_bands(top: Path, patterns: Mapping[str, str], paths: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """The files of each scene by band.

    A scene is named after what the wildcards of its patterns stand for; where they have none, after its folder.

    Args:
        top: Folder that paths lie in.
        patterns: Those of :func:`find_band_files`, by band.
        paths: What it found.

    Raises:
        ArchiveError: Two files would be one band of one scene.
    """
    matchers = {band: _matcher(pattern) for band, pattern in patterns.items()}
    groups: dict[str, dict[str, Path]] = {}
    for path in paths:
        place = path.relative_to(top).with_suffix("").as_posix()
        for band, matcher in matchers.items():
            match = matcher.fullmatch(place)
            if match is None:
                continue
            said = "/".join(part.strip("/") for part in match.groups() if part.strip("/"))
            bands = groups.setdefault(said or path.relative_to(top).parent.as_posix(), {})
            if band in bands:
                raise ArchiveError(
                    f"{bands[band]} and {path} would both be band {band} of one scene; make the pattern "
                    f"{patterns[band]!r} narrower, or remove one."
                )
            bands[band] = path
    return dict(sorted(groups.items()))


def read_band_headers(
    key: str, sensor: Sensor, groups: Mapping[str, Mapping[str, Path]], drop: str
) -> tuple[dict[str, Header], list[Rejection]]:
    """One header a scene, and why other scenes have none.

    Args:
        key: The sensor's, for messages.
        sensor: The bands, each of which a scene must have.
        groups: The files of each scene by band.
        drop: Text to take out of the names of scenes.
    """
    paths = [path for bands in groups.values() for path in bands.values()]
    headers = dict(zip(paths, read_headers(paths, f"Headers of {key}"), strict=True))
    found: dict[str, Header] = {}
    lost = []
    for name, bands in groups.items():
        short = name.replace(drop, "") if drop else name
        try:
            found[short] = _join(name, sensor, bands, headers)
        except FlawError as error:
            lost.append(Rejection.from_error(short, key, str(next(iter(bands.values()))), error))
    return found, lost


def _join(
    name: str, sensor: Sensor, bands: Mapping[str, Path], headers: Mapping[Path, Header | FlawError]
) -> BandsHeader:
    absent = [band for band in sensor.names if band not in bands]
    if absent:
        lacking = f"Scene {name} ({next(iter(bands.values()))}) has no file of band {', '.join(absent)}."
        raise FlawError(Problem.PARTNER, f"{lacking} Add it, or remove the scene.")
    ordered = []
    for band in sensor.names:
        header = headers[bands[band]]
        if isinstance(header, FlawError):
            raise header
        validate_bands(header, sensor.select(band))
        ordered.append(header)
    files = [BandFile(header.path, 0, header.height, header.width) for header in ordered]
    grids = [PixelGrid(header.height, header.width, header.crs, header.transform) for header in ordered]
    scene = join_bands(files, grids, f"scene {name}")
    finest = max(ordered, key=lambda header: header.height * header.width)
    said = {one.name: getattr(finest, one.name) for one in fields(Header)}
    # What was changed in any of the files changes what is known of the scene.
    said |= {"bytes": sum(header.bytes for header in ordered), "count": len(ordered), "descriptions": sensor.names}
    return BandsHeader(**said, scene=scene)


def _matcher(pattern: str) -> re.Pattern[str]:
    """What a path without its suffix looks like, with a group for each wildcard."""
    whole = pattern if "/" in pattern else f"**/{pattern}"
    stem = whole.rpartition(".")[0] if "." in whole.rpartition("/")[2] else whole
    # Of a pattern without a folder, the folder is no part of the scene's name.
    any_folder = "((?:[^/]+/)*)" if "/" in pattern else "(?:[^/]+/)*"
    parts, at = [], 0
    for wild in re.finditer(r"\*\*/|\*|\?|\[[^\]]+\]", stem):
        parts.append(re.escape(stem[at : wild.start()]))
        said = wild[0].replace("[!", "[^")
        parts.append(any_folder if said == "**/" else {"*": "([^/]*)", "?": "([^/])"}.get(said, f"({said})"))
        at = wild.end()
    return re.compile("".join(parts) + re.escape(stem[at:]))
