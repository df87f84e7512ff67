"""What files may be of where nothing says it: a guess from names, headers and a few pixels, as options to confirm."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from terrasieve.archive.folders import find_files, kind_of
from terrasieve.archive.layouts.pictures import KINDS
from terrasieve.archive.protocol import Window
from terrasieve.archive.quality.limits import FlawError
from terrasieve.archive.readers.geotiff import Header, has_palette, read_header, read_window, validate_bands
from terrasieve.band_names import match_names
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.sensors import SENSORS, Band, Sensor

_LOOKED_AT = 32
"""Headers that are read of a folder, evenly spread."""
_WHOLE = 512
"""Rows or columns of pictures that are samples as they are; larger ones are cut."""
_TILE, _SCENE_TILE = 256, 64
_CORNER = 128
"""Rows and columns from the middle of a file that are read to see what its values are like."""
_FEW_VALUES = 24
"""A band with no more values than this, and more than one, looks like a map of classes."""
_HINTS: Mapping[str, str] = {
    r"s1|sar|radar|sentinel-?1": "s1",
    r"s2|sentinel-?2|s2l[12][ac]": "s2",
    r"lulc|land-?cover|labels?|classes|masks?": "land-cover",
    r"dem|dtm|dsm|elevation": "dem",
    r"ndvi": "ndvi",
}
"""Words in names of folders and files, and how the names of sensors begin that they speak for."""
_BAND = re.compile(r"(?<![A-Za-z0-9])(B\d{1,2}A?|VV|VH|HH|HV|R|G|B)(?![A-Za-z0-9])")


class UnnamedSensorError(ArchiveError):
    """Files are there that could be opened, and nothing says of which sensor they are.

    Attributes:
        proposal: How they could be opened.
    """

    def __init__(self, message: str, proposal: Proposal) -> None:
        super().__init__(message)
        self.proposal = proposal

    def __reduce__(self) -> tuple[type[UnnamedSensorError], tuple[str, Proposal]]:
        return type(self), (str(self), self.proposal)


@dataclass(frozen=True)
class Proposal:
    """How something could be opened.

    Attributes:
        what: What is there, as the middle of a sentence.
        sensors: As ``--sensor`` takes them; none where no built-in sensor fits.
        patterns: As ``--pattern`` takes them.
        tile: Rows and columns of a sample; None for the layout's own.
        match: How files of several sensors are paired; None for the layout's own.
        reasons: What headers say of each, and which sensors fit that.
        declaration: Where no built-in sensor fits, one that would.
    """

    what: str
    sensors: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    tile: int | None = None
    match: Literal["stem", "geometry"] | None = None
    reasons: tuple[str, ...] = ()
    declaration: Sensor | None = None

    def words(self) -> list[str]:
        """The options as they are written on the command line, not quoted."""
        words = [word for one in self.sensors for word in ("--sensor", one)]
        words += [word for one in self.patterns for word in ("--pattern", one)]
        words += ["--tile", str(self.tile)] if self.tile else []
        return words + (["--match", self.match] if self.match else [])


def propose(path: Path) -> Proposal | None:
    """How a raster file, or a folder of them, could be opened; None where there is none.

    Args:
        path: What is not recognised by itself. Names are read, headers of at most 32 files, and a few pixels.

    Raises:
        SampleError: It is a file that cannot be read, or all files of a folder are.
    """
    if path.is_file():
        return _of_files(path.parent, [path], "one picture") if kind_of(path.name) in KINDS else None
    found = find_files(path, *(f"**/*{kind}" for kind in KINDS)).files
    if not found:
        return None
    tops: dict[str, list[Path]] = {}
    for file in found:
        tops.setdefault(file.relative_to(path).parts[0] if file.parent != path else ".", []).append(file)
    kinds = sorted({kind_of(file.name) for file in found})
    where = "" if list(tops) == ["."] else f" in {', '.join(list(tops)[:4])}{', ...' if len(tops) > 4 else ''}"
    what = f"{len(found):,} {', '.join(kinds)}{where}"
    return _of_bands(path, found, what) or _of_folders(tops, what) or _of_files(path, found, what, list(tops))


# ------------------------------------------------------------------- one sensor


def _of_files(root: Path, files: Sequence[Path], what: str, tops: Sequence[str] = ()) -> Proposal:
    """Files that are all of one sensor, that of the kind of file that is most frequent."""
    looked = _look_at(files)
    (count, dtype), _ = Counter((one.count, one.dtype) for one in looked).most_common(1)[0]
    alike = [one for one in looked if (one.count, one.dtype) == (count, dtype)]
    fitting = _fitting(alike[0], root)
    reason = _reason(alike[0], fitting)
    if len(alike) < len(looked):
        reason += f"; {len(looked) - len(alike)} of {len(looked)} files that were looked at are of another form"
    single = not tops
    least = min(min(one.height, one.width) for one in alike)
    tile = least if least < _SCENE_TILE else None
    if not fitting:
        mine = _declared(alike[0])
        patterns = () if single else _patterns(mine.name, files)
        return Proposal(what, (), patterns, tile, reasons=(reason,), declaration=mine)
    sensor = SENSORS[fitting[0]]
    if sensor.bands[0].unit in ("dn", "class") and not single:
        sizes = {(one.height, one.width) for one in alike}
        whole = len(sizes) == 1 and max(max(size) for size in sizes) <= _WHOLE
        # Else the largest power of two that fits in all pictures, up to the usual size of a tile.
        tile = None if whole else min(_TILE, 1 << (least.bit_length() - 1))
        return Proposal(what, (sensor.name,), tile=tile, reasons=(reason,))
    if single:
        return Proposal(what, (sensor.name,), tile=tile, reasons=(reason,))
    named = len(tops) == 1 and tops[0] != "." and not set(":=") & set(tops[0])
    key, folder = (tops[0], "") if named else (sensor.key, ":.")
    return Proposal(what, (f"{key}={sensor.name}{folder}",), _patterns(key, files), tile, reasons=(reason,))


def _look_at(files: Sequence[Path]) -> list[Header]:
    """Headers of some files, without those that cannot be read; the last of these errors where all are so."""
    chosen = files if len(files) <= _LOOKED_AT else files[:: -(-len(files) // _LOOKED_AT)]
    headers: list[Header] = []
    lost: SampleError | None = None
    for path in chosen:
        try:
            headers.append(read_header(path))
        except SampleError as error:
            lost = error
    if lost is not None and not headers:
        raise lost
    return headers


def _patterns(key: str, files: Sequence[Path]) -> tuple[str, ...]:
    """What finds files that a folder of scenes does not look for by itself."""
    kind = Counter(kind_of(file.name) for file in files).most_common(1)[0][0]
    return () if kind == ".tif" else (f"{key}=**/*{kind}",)


def _reason(header: Header, fitting: Sequence[str]) -> str:
    said = f"{header.path.name} has {header.count} band{'s' * (header.count > 1)} of {header.dtype}"
    return f"{said}, as {' or '.join(fitting)}" if fitting else f"{said}, as no built-in sensor"


# -------------------------------------------------------------- several sensors


def _of_folders(tops: Mapping[str, Sequence[Path]], what: str) -> Proposal | None:
    """Folders of which each holds the files of a sensor; None where they do not differ in what they hold."""
    if len(tops) < 2 or "." in tops or any(set(":=") & set(top) for top in tops):
        return None
    firsts: dict[str, Header] = {}
    for top, files in tops.items():
        try:
            firsts[top] = _look_at(files[:1])[0]
        except SampleError:
            continue
    if len({(one.count, one.dtype) for one in firsts.values()}) < 2:
        return None
    fitting = {top: _fitting(header, header.path.parent) for top, header in firsts.items()}
    reasons = tuple(f"{top}: {_reason(header, fitting[top])}" for top, header in firsts.items())
    keys = [top for top in firsts if fitting[top]]
    if not keys:
        return None
    names = [{file.with_suffix("").name for file in tops[key]} for key in keys]
    together = bool(set.intersection(*names))
    apart = not together and all(firsts[key].crs for key in keys)
    if not together and not apart:
        keys, names = keys[:1], names[:1]
    least = min(min(firsts[key].height, firsts[key].width) for key in keys)
    return Proposal(
        what,
        tuple(f"{key}={fitting[key][0]}" for key in keys),
        tuple(pattern for key in keys for pattern in _patterns(key, tops[key])),
        least if least < _SCENE_TILE else None,
        "geometry" if apart else None,
        reasons,
    )


# -------------------------------------------------------------- one file a band


def _of_bands(root: Path, files: Sequence[Path], what: str) -> Proposal | None:
    """Files whose names differ in that of a band; None where they do not."""
    parts: dict[tuple[str, str], dict[str, Path]] = {}
    for file in files:
        marks = list(_BAND.finditer(file.stem))
        if marks:
            before, after = file.stem[: marks[-1].start()], file.stem[marks[-1].end() :]
            parts.setdefault((f"{file.parent}/{before}", f"{after}{file.suffix}"), {})[marks[-1][0]] = file
    bands = max(parts.values(), key=len, default={})
    if len(bands) < 2:
        return None
    ends = {end for (_, end), found in parts.items() if len(found) == len(bands)}
    scene = next(key for key, found in parts.items() if found is bands)
    headers = {name: _look_at([file])[0] for name, file in bands.items()}
    first = next(iter(headers.values()))
    fitting = [
        one
        for one in SENSORS.values()
        if all(header.count == 1 for header in headers.values())
        and set(bands) <= set(one.names)
        and _of_type(one, first.dtype)
    ]
    if not fitting or len(ends) > 1:
        return None
    # The sensor that has fewest bands beside those that are there, and of these the one that values speak for.
    order = _ordered([one.name for one in fitting], first, root)
    best = min(fitting, key=lambda one: (len(one.names), order.index(one.name)))
    separator = scene[0][-1:] if scene[0][-1:] in "_-." else ""
    pattern = f"*{separator}{{band}}{scene[1]}"
    reason = (
        f"the files of {Path(scene[0]).name or root.name} are of the bands {', '.join(sorted(bands))}, as {best.name}"
    )
    others = len(files) - sum(len(group) for (_, end), group in parts.items() if end in ends)
    if others:
        reason += f"; {others} files are named otherwise, which a YAML file can list band by band (files:)"
    least = max(min(one.height, one.width) for one in headers.values())
    tile = least if least < _SCENE_TILE else None
    key = best.key
    return Proposal(f"{what}, one a band", (f"{key}={best.name}:.",), (f"{key}={pattern}",), tile, reasons=(reason,))


# ---------------------------------------------------------------- what may be of what


def _fitting(header: Header, root: Path) -> list[str]:
    """Names of the built-in sensors that a file may be of, the likeliest first."""
    fitting = []
    for name, sensor in SENSORS.items():
        try:
            validate_bands(header, sensor)
        except FlawError:
            continue
        fitting += [name] if _of_type(sensor, header.dtype) else []
    return _ordered(fitting, header, root)


def _of_type(sensor: Sensor, dtype: str) -> bool:
    """Whether files of a sensor may hold values of a type."""
    unit = sensor.bands[0].unit
    kind = np.dtype(dtype if dtype != "complex_int16" else "complex64")
    if unit in ("dn", "class"):
        return bool(kind == np.uint8)
    # Eight bits hold no reflectance times 10,000, and no decibels.
    return kind.kind in {"reflectance_e4": "iu", "m": "if"}.get(unit, "f") and kind.itemsize > 1


def _ordered(names: Sequence[str], header: Header, root: Path) -> list[str]:
    """Names of sensors, those first that names, colours and values of a file speak for."""
    values = _Values.of(header)
    said = f"{root.name}/{header.path.parent.name}/{header.path.stem}".lower()
    hinted = [start for words, start in _HINTS.items() if re.search(rf"(?<![a-z0-9])(?:{words})(?![a-z])", said)]

    def rank(name: str) -> tuple[bool, bool, bool]:
        unit = SENSORS[name].bands[0].unit
        spoken = any(name == start or name.startswith(f"{start}-") for start in hinted)
        against = {
            "class": not (values.palette or 1 < values.distinct <= _FEW_VALUES),
            "dn": values.palette or 1 < values.distinct <= _FEW_VALUES,
            "db": not values.negative,
            "linear": values.negative or name == "s1-wv",
            "index": values.most > 1,
            "m": values.most <= 1,
        }.get(unit, False)
        return (not spoken, bool(against), name not in ("rgb8", "gray8"))

    return sorted(names, key=rank)


@dataclass(frozen=True)
class _Values:
    """What the values in the middle of a file are like."""

    palette: bool = False
    distinct: int = 0
    negative: bool = False
    most: float = field(default=0.0)

    @classmethod
    def of(cls, header: Header) -> _Values:
        """Those of the first band; what cannot be read says nothing."""
        height, width = min(header.height, _CORNER), min(header.width, _CORNER)
        middle = Window((header.height - height) // 2, (header.width - width) // 2, height, width)
        try:
            pixels = read_window(header.path, [0], middle)[0]
            palette = has_palette(header.path)
        except SampleError:
            return cls()
        if pixels.dtype.kind == "c":
            return cls()
        valid = pixels[np.isfinite(pixels) & (pixels != header.nodata if header.nodata is not None else True)]
        if not valid.size:
            return cls(palette)
        return cls(palette, len(np.unique(valid)), bool((valid < 0).any()), float(np.abs(valid).max()))


def _declared(header: Header) -> Sensor:
    """A sensor with the bands of a file: those of a built-in sensor where their names say so, else of no unit."""
    said = [text or "" for text in header.descriptions]
    for one in SENSORS.values():
        names = [name for name in match_names(said, one) if name] if all(said) else []
        if len(set(names)) == len(said) and one.kind != "map" and _of_type(one, header.dtype):
            return one.select(*names).model_copy(update={"name": "mine", "sets": {}, "nodata": header.nodata})
    kind = np.dtype(header.dtype)
    limits = (float(np.iinfo(kind).min), float(np.iinfo(kind).max)) if kind.kind in "iu" else (-1e6, 1e6)
    distinct = all(said) and len(set(said)) == len(said)
    names = said if distinct else [f"band{place}" for place in range(1, header.count + 1)]
    bands = tuple(Band(name=name, gsd=1, unit="dn", valid_range=limits) for name in names)
    return Sensor(name="mine", kind="optical", bands=bands, nodata=header.nodata)
