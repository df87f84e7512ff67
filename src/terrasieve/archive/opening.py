"""One door to every archive."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from terrasieve.archive.catalogue import Catalogue, read_catalogue
from terrasieve.archive.derived.harmonised import HarmonisedSpec, harmonise, harmonise_as_listed
from terrasieve.archive.layout import Layout, Recognition
from terrasieve.archive.layouts import LAYOUTS
from terrasieve.archive.layouts.plain_table import PlainTableSpec, is_table
from terrasieve.archive.packed.manifest import GROUP, KEY
from terrasieve.archive.packed.reading import PackedArchive, PackedSpec
from terrasieve.archive.protocol import Archive
from terrasieve.archive.scenes.survey import Edge
from terrasieve.archive.scenes.tiled import ScenesArchive, ScenesSpec, SensorFolder
from terrasieve.errors import ArchiveError, ConfigError, nearest
from terrasieve.schema import Spec
from terrasieve.sensors import SENSORS
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec
from terrasieve.simulation.sea import SimulatedOceanArchive, SimulatedOceanSpec

_OWN: tuple[type[Spec], ...] = (ScenesSpec, PackedSpec, SimulatedSpec, SimulatedOceanSpec, HarmonisedSpec)
_SPECS: dict[str, type[Spec]] = {spec.model_fields["layout"].default: spec for spec in _OWN}
_SPECS |= {layout.name: layout.spec for layout in LAYOUTS}
_BY_NAME = {layout.name: layout for layout in LAYOUTS}
_SURE = 0.2
"""How much more confident the first recognition must be than the second to be taken without asking."""

_SIMULATED = re.compile(r"(?P<layout>simulated(?:-ocean)?)(?::(?P<seed>\d+))?(?::(?P<samples>\d+))?")
_RECOGNISED = (
    "Recognised are: a YAML file with a layout, a catalogue .parquet, a plain table (.csv, .parquet), a packed store, "
    "a folder of a known data set "
    f"({', '.join(_BY_NAME)}), a folder of GeoTIFF scenes with its sensors named, and simulated[:SEED[:SAMPLES]] or "
    "simulated-ocean[:SEED[:SAMPLES]]."
)


def open_archive(spec: str | Path | Spec, layout: str | None = None) -> Archive:
    """Open whatever a user may name.

    Args:
        spec: An archive spec; or the path of a YAML spec, a catalogue, a packed store or the folder of a data set;
            or the URL of a packed store; or ``simulated``, ``simulated:SEED``, ``simulated:SEED:SAMPLES``;
            or the same with ``simulated-ocean``.
        layout: Name of the folder's layout, where it is not to be recognised; ``LAYOUT:PATH`` says the same.

    Raises:
        ArchiveError: Nothing is there, or it is not recognised.
        ConfigError: A YAML spec is invalid, or there is no such layout.
    """
    if isinstance(spec, Spec):
        return _build(spec)
    if match := _SIMULATED.fullmatch(str(spec)):
        return _build(parse_spec({key: value for key, value in match.groupdict().items() if value}, str(spec)))
    if "://" in str(spec):
        return PackedArchive(str(spec))
    name, _, path_of_it = str(spec).partition(":")
    if layout is None and name in _BY_NAME and path_of_it and not Path(spec).exists():
        layout, spec = name, path_of_it
    path = Path(spec)
    if layout is not None:
        return _build(parse_spec({"layout": layout, "root": path}, str(path)))
    if path.is_dir():
        return _build(_recognise_one(path))
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return _build(load_spec(path))
    if is_table(path):
        return _build(PlainTableSpec(root=path))
    if path.suffix == ".parquet" and path.is_file():
        catalogue = read_catalogue(path)
        return catalogue.restrict(_build_listed(catalogue))
    raise ArchiveError(f"{path} {'is not an archive' if path.exists() else 'does not exist'}. {_RECOGNISED}")


def recognise(folder: Path) -> list[tuple[Layout, Recognition]]:
    """The layouts that a folder may have, the likeliest first; names are read, no pixels."""
    found = [(layout, seen) for layout in LAYOUTS if (seen := layout.recognise(folder)) is not None]
    return sorted(found, key=lambda one: -one[1].confidence)


def load_spec(path: Path) -> Spec:
    """An archive spec from a YAML file; paths in it are relative to the file's folder.

    Raises:
        ConfigError: The file is not YAML, or not an archive spec.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    return _anchored(parse_spec(values, str(path)), path.resolve().parent)


def parse_spec(values: Any, origin: str) -> Spec:
    """An archive spec from plain values.

    Args:
        values: As YAML gives them.
        origin: Where they stand, for messages.

    Raises:
        ConfigError: They are not an archive spec.
    """
    layout = values.get("layout") if isinstance(values, dict) else None
    if layout not in _SPECS:
        raise ConfigError(f"{origin} has layout {layout!r}.{nearest(str(layout), _SPECS)}")
    try:
        return _SPECS[layout].model_validate(values)
    except ValidationError as error:
        known = set(_SPECS[layout].model_fields) | set(SensorFolder.model_fields)
        problems = "; ".join(_explain(problem, known) for problem in error.errors())
        raise ConfigError(f"{origin} is not a valid {layout} archive: {problems}") from error


def scenes_spec_from_options(
    root: Path,
    sensors: Sequence[str],
    tile: int = 64,
    stride: int | None = None,
    match: Literal["stem", "geometry"] = "stem",
    edge: Edge = "drop",
) -> ScenesSpec:
    """A scenes spec from what fits on a command line.

    Args:
        root: The folder of scenes.
        sensors: ``key=sensor`` or ``key=sensor:folder`` each; the folder is the key when it is left out.
        tile: Rows and columns of a sample.
        stride: Pixels from one sample to the next; ``tile`` when None.
        match: How files of several sensors find each other.
        edge: What becomes of the remainder at the far edges.

    Raises:
        ConfigError: An entry is malformed, or a key is used twice.
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
    return ScenesSpec(root=root, sensors=folders, tile=tile, stride=stride, match=match, edge=edge)


def _build(spec: Spec) -> Archive:
    match spec:
        case ScenesSpec():
            return ScenesArchive(spec)
        case PackedSpec():
            return PackedArchive(spec.root)
        case SimulatedSpec():
            return SimulatedArchive(spec)
        case SimulatedOceanSpec():
            return SimulatedOceanArchive(spec)
        case HarmonisedSpec():
            return harmonise(_build(parse_spec(spec.archive, "archive")))
    layout = _BY_NAME.get(getattr(spec, "layout", ""))
    if layout is None:
        raise ArchiveError(f"{type(spec).__name__} does not describe an archive. {_RECOGNISED}")
    return layout.build(spec)


def _build_listed(catalogue: Catalogue) -> Archive:
    """The archive of a catalogue; from which samples the offset is to be subtracted, its rows say."""
    spec = parse_spec(catalogue.spec, str(catalogue.path))
    if isinstance(spec, HarmonisedSpec):
        return harmonise_as_listed(_build(parse_spec(spec.archive, str(catalogue.path))), catalogue.table)
    return _build(spec)


def _recognise_one(folder: Path) -> Spec:
    if _is_packed(folder):
        return PackedSpec(root=folder)
    seen = recognise(folder)
    if len(seen) > 1 and seen[0][1].confidence - seen[1][1].confidence < _SURE:
        either = " or ".join(f"{layout.name} ({found.evidence})" for layout, found in seen[:2])
        raise ArchiveError(f"{folder} could be {either}. Say which with --layout {seen[0][0].name}, for example.")
    if seen:
        return seen[0][1].spec
    scenes = _folders_with_scenes(folder)
    if scenes:
        example = " ".join(f"--sensor {name}={'s1' if 's1' in name.lower() else 's2-l2a'}" for name in scenes[:2])
        raise ArchiveError(
            f"{folder} holds GeoTIFF in {', '.join(scenes)}, but nothing says of which sensor. Name the sensors, "
            f"for example {example}, or in a YAML file with layout: scenes. Built in: {', '.join(SENSORS)}."
        )
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
    raise ArchiveError(f"{folder} is no archive that is recognised; it holds {found}. {_RECOGNISED}")


def _is_packed(folder: Path) -> bool:
    try:
        return KEY in json.loads((folder / GROUP).read_text(encoding="utf-8"))["attributes"]
    except (OSError, ValueError, KeyError):
        return False


def _folders_with_scenes(folder: Path) -> list[str]:
    """Names of the folders directly below that hold GeoTIFF at any depth; ``.`` for the folder itself."""
    below = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and _has_any(path.rglob("*.tif*"))]
    return below + (["."] if _has_any(folder.glob("*.tif*")) else [])


def _has_any(paths: Iterable[Path]) -> bool:
    return next(iter(paths), None) is not None


def _anchored(spec: Spec, folder: Path) -> Spec:
    """The spec with its relative paths taken from a folder."""
    if isinstance(spec, SimulatedSpec | SimulatedOceanSpec):
        return spec
    if isinstance(spec, HarmonisedSpec):
        return HarmonisedSpec(archive=_anchored(parse_spec(spec.archive, "archive"), folder).model_dump(mode="json"))
    update: dict[str, Any] = {"root": folder / Path(spec.root)}  # type: ignore[attr-defined]  # all others have one
    if isinstance(spec, ScenesSpec):
        update["sensors"] = {key: _anchor_sensor(each, folder) for key, each in spec.sensors.items()}
    return spec.model_copy(update=update)


def _anchor_sensor(each: SensorFolder, folder: Path) -> SensorFolder:
    if isinstance(each.sensor, str) and each.sensor not in SENSORS and (folder / each.sensor).is_file():
        return each.model_copy(update={"sensor": str(folder / each.sensor)})
    return each


def _explain(problem: Any, known: Iterable[str]) -> str:
    where = [str(part) for part in problem["loc"]]
    hint = nearest(where[-1], known) if where and problem["type"] == "extra_forbidden" else ""
    return f"{'.'.join(where) or 'value'}: {problem['msg']}{hint}"
