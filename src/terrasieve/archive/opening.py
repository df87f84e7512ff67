"""Opening an archive from whatever a user may name: a folder, a file, a URL, a few words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any, Literal

import yaml

from terrasieve.archive.catalogue import read_catalogue
from terrasieve.archive.cubes.guarded_opening import is_netcdf
from terrasieve.archive.folders import find_files, kind_of, list_files, subfolders
from terrasieve.archive.layout import LAYOUTS, ArchiveSpec, Recognition, parse_spec
from terrasieve.archive.layouts.plain_table import PlainTableSpec, is_table
from terrasieve.archive.packed.reading import PackedArchive, PackedSpec
from terrasieve.archive.packed.store import GROUP, KEY
from terrasieve.archive.protocol import Archive
from terrasieve.archive.readers.gdal import DRIVERS
from terrasieve.archive.readers.geotiff import fitting_sensors, read_header
from terrasieve.archive.scenes.survey import Edge, ScenesSpec, SensorFolder
from terrasieve.archive.stac.items import unsigned
from terrasieve.archive.zarr_codecs import parse_metadata
from terrasieve.errors import ArchiveError, ConfigError, SampleError
from terrasieve.local_paths import find_address
from terrasieve.schema import parse_yaml
from terrasieve.sensors import SENSORS

_SURE = 0.2
"""How much more confident the first recognition must be than the second to be taken without asking."""

_SIMULATED = re.compile(r"(?P<layout>simulated(?:-ocean)?)(?::(?P<seed>\d+))?(?::(?P<samples>\d+))?")


def open_archive(spec: str | Path | ArchiveSpec, layout: str | None = None) -> Archive:
    """Open whatever a user may name.

    Args:
        spec: An archive spec; or the path of a YAML spec, a catalogue, a packed store or the folder of a data set;
            or the URL of a packed store; or ``simulated``, ``simulated:SEED``, ``simulated:SEED:SAMPLES``;
            or the same with ``simulated-ocean``.
        layout: Name of the folder's layout, where it is not to be recognised; ``LAYOUT:PATH`` says the same.

    Raises:
        ArchiveError: Nothing is there, or it is not recognised.
        ConfigError: A YAML spec is invalid or, as a catalogue may, names an address on the net; or there is no such
            layout.
    """
    if isinstance(spec, ArchiveSpec):
        return spec.open()
    if match := _SIMULATED.fullmatch(str(spec)):
        return parse_spec({key: value for key, value in match.groupdict().items() if value}, str(spec)).open()
    if "://" in str(spec):
        return PackedArchive(str(spec))
    # ``LAYOUT:PATH``, unless a file of just that name is there.
    name, _, path_of_it = str(spec).partition(":")
    if layout is None and name in LAYOUTS and path_of_it and not Path(spec).exists():
        layout, spec = name, path_of_it
    path = Path(spec)
    if layout is not None:
        return parse_spec({"layout": layout, "root": path}, str(path)).open()
    if path.is_dir() or is_netcdf(path) or (kind_of(path.name) in (".zip", ".safe.zip") and path.is_file()):
        return _recognise_one(path).open()
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return load_spec(path).open()
    if is_table(path):
        return PlainTableSpec(root=path).open()
    if path.suffix == ".parquet" and path.is_file():
        catalogue = read_catalogue(path)
        return catalogue.open(_parse_local(catalogue.spec, path))
    raise ArchiveError(_unopened(path))


def recognise(folder: Path) -> list[Recognition]:
    """The layouts that a folder may have, the likeliest first.

    Args:
        folder: A folder that exists; names and small text files in it are read, no pixels.
    """
    found = [seen for spec in LAYOUTS.values() if (seen := spec.recognise(folder)) is not None]
    return sorted(found, key=lambda seen: -seen.confidence)


def load_spec(path: Path) -> ArchiveSpec:
    """An archive spec from a YAML file; paths in it are relative to the file's folder.

    Args:
        path: The YAML file, with ``layout`` and that layout's options.

    Raises:
        ConfigError: The file is not YAML, not an archive spec, or names an address on the net.
    """
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    return _parse_local(values, path).anchored(path.resolve().parent)


def _parse_local(values: Any, path: Path) -> ArchiveSpec:
    """The archive spec that a file holds, whoever wrote it: of files on this machine, and not of addresses."""
    if (address := find_address(values)) is not None:
        raise ConfigError(
            f"{path} names {unsigned(address)!r}, and what a file names is not asked for on the net. Fetch it and name "
            "its folder; or, if you trust it, name the address itself on the command line in place of the file."
        )
    return parse_spec(values, str(path))


def scenes_spec_from_options(
    root: Path,
    sensors: Sequence[str],
    tile: int = 64,
    stride: int | None = None,
    match: Literal["stem", "geometry"] = "stem",
    edge: Edge = "drop",
    max_days: float | None = None,
    patterns: Sequence[str] = (),
) -> ScenesSpec:
    """A scenes spec from what fits on a command line.

    Args:
        root: The folder that the scenes' folders lie in; or the one file of the one scene.
        sensors: ``key=sensor`` or ``key=sensor:folder`` each; the folder is the key when it is left out.
        tile: Rows and columns of a sample, in pixels, at least 1.
        stride: Pixels from the first row of one sample to that of the next; ``tile`` when None.
        match: How files of several sensors find each other.
        edge: What becomes of the remainder at the far edges.
        max_days: Most days between files of several sensors that are paired; any number when None.
        patterns: ``key=glob`` each, which files a sensor's are; with ``{band}`` in it, one file a band.

    Raises:
        ConfigError: An entry is malformed, or a key is used twice or names no sensor.
    """
    folders: dict[str, SensorFolder] = {}
    for text in sensors:
        key, separator, value = text.partition("=")
        sensor, _, folder = value.partition(":")
        if not (key and separator and sensor):
            raise ConfigError(f"--sensor {text!r} is not key=sensor or key=sensor:folder, such as s2=s2-l2a:optical.")
        if key in folders:
            raise ConfigError(f"--sensor {text!r} uses the key {key!r} a second time; choose another.")
        folders[key] = SensorFolder(folder=Path(folder or key), sensor=sensor)
    if not folders:
        raise ConfigError(f"{root} needs at least one --sensor key=sensor[:folder], such as s2=s2-l2a.")
    for text in patterns:
        key, _, pattern = text.partition("=")
        if key not in folders or not pattern:
            known = ", ".join(folders)
            raise ConfigError(f"--pattern {text!r} is not key=glob with the key of a --sensor, one of {known}.")
        folders[key] = _with_pattern(folders[key], pattern)
    if root.is_file():
        if len(folders) > 1 or patterns:
            raise ConfigError(f"{root} is one file, of one --sensor and without --pattern; name its folder for more.")
        only = {"folder": Path(), "pattern": escape(root.name)}
        folders = {key: one.model_copy(update=only) for key, one in folders.items()}
        root = root.parent
    return ScenesSpec(root=root, sensors=folders, tile=tile, stride=stride, match=match, edge=edge, max_days=max_days)


def _with_pattern(folder: SensorFolder, pattern: str) -> SensorFolder:
    if "{band}" not in pattern:
        return folder.model_copy(update={"pattern": pattern})
    return folder.model_copy(update={"files": {name: pattern.replace("{band}", name) for name in folder.load().names}})


def _recognise_one(folder: Path) -> ArchiveSpec:
    if _is_packed(folder):
        return PackedSpec(root=folder)
    seen = recognise(folder)
    if len(seen) > 1 and seen[0].confidence - seen[1].confidence < _SURE:
        either = " or ".join(f"{one.spec.layout} ({one.evidence})" for one in seen[:2])
        name = seen[0].spec.layout
        raise ArchiveError(
            f"{folder} could be {either}. Say which, for example {name}:{folder}; `index`, `pack` and `info` take "
            f"--layout {name}, too."
        )
    if seen:
        return seen[0].spec
    # From here on nothing can be opened: what is there decides which error helps most.
    if not folder.is_dir():
        raise ArchiveError(f"{folder} is no product that is recognised; unzip it and name its folder. {_recognised()}")
    near = next((said for spec in LAYOUTS.values() if (said := spec.near_miss(folder)) is not None), None)
    if near is not None:
        raise ArchiveError(f"{folder} is no archive that is recognised. {near}")
    scenes = {name: files[0] for name in [*subfolders(folder), "."] if (files := _some_tiff(folder, name))}
    if scenes:
        raise ArchiveError(_without_sensors(folder, scenes))
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
    raise ArchiveError(f"{folder} is no archive that is recognised; it holds {found}. {_recognised()}")


def _some_tiff(folder: Path, name: str) -> Sequence[Path]:
    return list_files(folder, ".tif") if name == "." else find_files(folder / name, "**/*.tif").files


def _without_sensors(folder: Path, scenes: Mapping[str, Path]) -> str:
    """What to say of GeoTIFF whose sensors nobody names: the built-in ones that the headers fit, and no others."""
    options, unknown = [], []
    for name, path in list(scenes.items())[:2]:
        try:
            header = read_header(path)
        except SampleError:
            continue
        fitting = fitting_sensors(header)
        key = path.parent.name if name == "." else name
        place = f":{name}" if name == "." else ""
        if fitting:
            options.append(
                f"--sensor {key}={fitting[0]}{place}" + (f" (or {', '.join(fitting[1:])})" * (len(fitting) > 1))
            )
        else:
            unknown.append(
                f"{path.name} has {header.count} bands of {header.dtype}, as no built-in sensor; declare them"
            )
    how = f" For example: terrasieve index {folder} {' '.join(options)}." if options else ""
    how += f" {'; '.join(unknown)} in a YAML file." if unknown else ""
    return (
        f"{folder} holds GeoTIFF in {', '.join(scenes)}, but nothing says of which sensor. Name the sensors, on the "
        f"command line or in a YAML file with layout: scenes.{how} Built in: {', '.join(SENSORS)}."
    )


def _unopened(path: Path) -> str:
    """What to say of what cannot be opened; of one picture, how its sensor is named."""
    if path.suffix.lower() not in DRIVERS or not path.is_file():
        return f"{path} {'is not an archive' if path.exists() else 'does not exist'}. {_recognised()}"
    header = read_header(path)
    fitting = fitting_sensors(header)
    key, *others = fitting or [""]
    how = (
        f"For example: terrasieve index {path} --sensor {key.partition('-')[0]}={key}"
        + (f" (or {', '.join(others)})" if others else "")
        if fitting
        else f"It has {header.count} bands of {header.dtype}, as no built-in sensor; declare them in a YAML file"
    )
    return f"{path} is a picture, but nothing says of which sensor. {how}. Built in: {', '.join(SENSORS)}."


def _is_packed(folder: Path) -> bool:
    """Whether the folder's Zarr group has the attribute of a packed store; an unfinished store counts."""
    try:
        return KEY in parse_metadata((folder / GROUP).read_bytes(), folder / GROUP)["attributes"]
    except (OSError, TypeError, KeyError, SampleError):
        return False


def _recognised() -> str:
    """What can be opened, for errors."""
    return (
        "Recognised are: a YAML file with a layout, a catalogue .parquet, a plain table (.csv, .parquet), a packed "
        "store, a cube in NetCDF or Zarr, a folder of a known data set or of products, a folder of GeoTIFF scenes with "
        "its sensors named, and "
        f"simulated[:SEED[:SAMPLES]] or simulated-ocean[:SEED[:SAMPLES]]. Layouts are: {', '.join(LAYOUTS)}."
    )
