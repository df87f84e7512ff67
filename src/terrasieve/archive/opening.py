"""Opening an archive from whatever a user may name: a folder, a file, a URL, a few words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any, Literal

import yaml

from terrasieve.archive.catalogue import read_catalogue
from terrasieve.archive.cubes.guarded_opening import is_netcdf
from terrasieve.archive.folders import kind_of
from terrasieve.archive.layout import LAYOUTS, ArchiveSpec, Recognition, parse_spec
from terrasieve.archive.layouts.plain_table import PlainTableSpec, is_table
from terrasieve.archive.named.refusals import refusal_of
from terrasieve.archive.packed.chunk_cache import ChunkCache
from terrasieve.archive.packed.reading import PackedArchive, PackedSpec
from terrasieve.archive.packed.store import is_packed_store
from terrasieve.archive.protocol import Archive
from terrasieve.archive.scenes.band_files import find_band_files
from terrasieve.archive.scenes.survey import Edge, ScenesSpec, SensorFolder
from terrasieve.archive.stac.items import unsigned
from terrasieve.errors import ArchiveError, ConfigError
from terrasieve.files.local_paths import find_address
from terrasieve.schema import parse_yaml

_SURE = 0.2
"""How much more confident the first recognition must be than the second to be taken without asking."""

_SIMULATED = re.compile(r"(?P<layout>simulated(?:-ocean)?)(?::(?P<seed>\d+))?(?::(?P<samples>\d+))?")


def open_archive(spec: str | Path | ArchiveSpec, layout: str | None = None, cache: ChunkCache | None = None) -> Archive:
    """Open whatever a user may name.

    Args:
        spec: An archive spec; or the path of a YAML spec, a catalogue, a packed store or the folder of a data set;
            or the URL of a packed store; or ``simulated``, ``simulated:SEED``, ``simulated:SEED:SAMPLES``;
            or the same with ``simulated-ocean``.
        layout: Name of the folder's layout, where it is not to be recognised; ``LAYOUT:PATH`` says the same.
        cache: Where the chunks of a packed store at a URL are kept on this machine; they are not when None.

    Raises:
        ArchiveError: Nothing is there, or it is not recognised.
        ConfigError: A YAML spec is invalid or, as a catalogue may, names an address on the net; or there is no such
            layout, or a cache for what is no URL.
    """
    if not isinstance(spec, ArchiveSpec) and "://" in str(spec):
        return PackedArchive(str(spec), cache)
    if cache is not None:
        raise ConfigError("The archive is on this machine, and a cache is for stores that are not; leave --cache out.")
    if isinstance(spec, ArchiveSpec):
        return spec.open()
    if (found := find_spec(spec, layout)) is not None:
        return found.open()
    catalogue = read_catalogue(Path(spec))
    return catalogue.open(_parse_local(catalogue.spec, Path(spec)))


def find_spec(name: str | Path, layout: str | None = None) -> ArchiveSpec | None:
    """How what a user names is opened; None of a catalogue and of a URL, which say themselves what their samples are.

    Args:
        name: As for :func:`open_archive`.
        layout: Likewise.

    Raises:
        ArchiveError: Nothing is there, or it is not recognised.
        ConfigError: A YAML spec is invalid, or there is no such layout.
    """
    if match := _SIMULATED.fullmatch(str(name)):
        return parse_spec({key: value for key, value in match.groupdict().items() if value}, str(name))
    if "://" in str(name):
        return None
    # ``LAYOUT:PATH``, unless a file of just that name is there.
    prefix, _, path_of_it = str(name).partition(":")
    if layout is None and prefix in LAYOUTS and path_of_it and not Path(name).exists():
        layout, name = prefix, path_of_it
    path = Path(name)
    if layout is not None:
        # What the layout makes out by itself, such as the level of a product, it makes out here, too.
        seen = LAYOUTS[layout].recognise(path) if layout in LAYOUTS and path.exists() else None
        return parse_spec({"layout": layout, "root": path}, str(path)) if seen is None else seen.spec
    if path.is_dir() or is_netcdf(path) or (kind_of(path.name) in (".zip", ".safe.zip") and path.is_file()):
        return _recognise_one(path)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return load_spec(path)
    if is_table(path):
        return PlainTableSpec(root=path)
    if path.suffix == ".parquet" and path.is_file():
        return None
    raise refusal_of(path)


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
        patterns: ``key=glob`` each, which files a sensor's are; with ``{band}`` in it, one file a band, of the
            sensor's bands that have any.

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
        folders[key] = _with_pattern(root, folders[key], pattern)
    if root.is_file():
        if len(folders) > 1 or patterns:
            raise ConfigError(f"{root} is one file, of one --sensor and without --pattern; name its folder for more.")
        only = {"folder": Path(), "pattern": escape(root.name)}
        folders = {key: one.model_copy(update=only) for key, one in folders.items()}
        root = root.parent
    return ScenesSpec(root=root, sensors=folders, tile=tile, stride=stride, match=match, edge=edge, max_days=max_days)


def _with_pattern(root: Path, folder: SensorFolder, pattern: str) -> SensorFolder:
    if "{band}" not in pattern:
        return folder.model_copy(update={"pattern": pattern})
    files = {name: pattern.replace("{band}", name) for name in folder.load().names}
    # A band that has no file in any scene is none of this archive; one that only some scenes lack is their flaw.
    top = root / folder.folder
    found = {name: one for name, one in files.items() if top.is_dir() and find_band_files(top, {name: one}).files}
    return folder.model_copy(update={"files": found or files})


def _recognise_one(folder: Path) -> ArchiveSpec:
    if is_packed_store(folder):
        return PackedSpec(root=folder)
    seen = recognise(folder)
    if len(seen) > 1 and seen[0].confidence - seen[1].confidence < _SURE:
        either = " or ".join(f"{one.spec.layout} ({one.evidence})" for one in seen[:2])
        name = seen[0].spec.layout
        raise ArchiveError(
            f"{folder} could be {either}. Say which with --layout, for example: "
            f"{shlex.join(['terrasieve', 'index', str(folder), '--layout', name])}"
        )
    if seen:
        return seen[0].spec
    raise refusal_of(folder)
