"""What to say of something that cannot be opened as it was named: what is there, and a command that opens it."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

from terrasieve.archive.folders import find_files, kind_of
from terrasieve.archive.layout import LAYOUTS
from terrasieve.archive.named.proposals import Proposal, UnnamedSensorError, propose
from terrasieve.errors import ArchiveError, SampleError, nearest
from terrasieve.sensors import SENSORS

_ARRAYS = (".npy", ".npz")
_PACKED = (".zip", ".safe.zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".gz", ".7z", ".rar")


def refusal_of(path: Path) -> ArchiveError:
    """The error, which ends with the command that opens it where there is one.

    Args:
        path: A file or folder that no layout recognises, or nothing.
    """
    missed = (
        next((said for spec in LAYOUTS.values() if (said := spec.near_miss(path))), None) if path.is_dir() else None
    )
    if missed is not None:
        return ArchiveError(f"{path} is no archive that is recognised. {missed}")
    if not path.exists():
        near = nearest(path.name, _siblings(path))
        return ArchiveError(f"{path} does not exist.{near if 'Did you mean' in near else ''} {_recognised()}")
    try:
        proposal = propose(path)
    except SampleError as error:
        return ArchiveError(f"{path} holds nothing that can be read. {error}")
    if proposal is None:
        return ArchiveError(_without_pixels(path))
    said = f"{path} holds {proposal.what}, but nothing says of which sensor. {_explain(proposal, path)}"
    return UnnamedSensorError(said, proposal)


def _explain(proposal: Proposal, path: Path) -> str:
    """What the headers fit, and the command to try."""
    reasons = "; ".join(proposal.reasons)
    built_in = f"Built in: {', '.join(SENSORS)}."
    if proposal.sensors:
        pictures = "If these are pictures: " if "=" not in proposal.sensors[0] else "A guess, to be confirmed: "
        return f"{reasons}. {built_in} {pictures}{shlex.join(['terrasieve', 'index', str(path), *proposal.words()])}"
    sensor = proposal.declaration
    assert sensor is not None, "a proposal has a sensor, or declares one"
    said: dict[str, Any] = sensor.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    key = f"{sensor.name}={sensor.name}.yaml{'' if path.is_file() else ':.'}"
    command = shlex.join(["terrasieve", "index", str(path), "--sensor", key, *proposal.words()])
    return (
        f"{reasons}. {built_in} Declare your own in a YAML file, with names and units of your bands, for example: "
        f"echo {shlex.quote(json.dumps(said))} > {sensor.name}.yaml && {command}"
    )


def _without_pixels(path: Path) -> str:
    if path.is_file():
        kind = kind_of(path.name)
        if kind in _ARRAYS:
            return f"{path} is an array, which is opened in Python: {_in_python(path)}"
        if kind in _PACKED:
            return f"{path} is no product that is recognised; unpack it and name its folder. {_recognised()}"
        return f"{path} is not an archive: of a {kind or 'nameless'} file nothing can be read. {_recognised()}"
    files = find_files(path, "**/*").files
    if not files:
        return f"{path} holds nothing that can be read: there is no file in it. {_recognised()}"
    arrays = [file for file in files if kind_of(file.name) in _ARRAYS]
    if arrays:
        kinds = ", ".join(sorted({kind_of(file.name) for file in arrays}))
        return f"{path} holds {len(arrays):,} {kinds}, arrays that are opened in Python: {_in_python(arrays[0])}"
    counted = Counter(kind_of(file.name) or "nameless" for file in files)
    held = ", ".join(f"{count:,} {kind}" for kind, count in counted.most_common(5))
    return f"{path} holds nothing that can be read as pixels: it holds {held}. {_recognised()}"


def _in_python(path: Path) -> str:
    """A command that opens the array of a file; bands get numbers until somebody names them."""
    load = f"numpy.load({str(path)!r})" + ("" if kind_of(path.name) == ".npy" else "['arr_0']")
    return shlex.join(["python", "-c", f"import numpy, terrasieve; print(terrasieve.open({load}))"])


def _siblings(path: Path) -> list[str]:
    try:
        return [other.name for other in path.parent.iterdir()]
    except OSError:
        return []


def _recognised() -> str:
    """What can be opened, for errors."""
    return (
        "Recognised are: a YAML file with a layout, a catalogue .parquet, a plain table (.csv, .parquet), a packed "
        "store, a cube in NetCDF or Zarr, a folder of a known data set or of products, a folder of GeoTIFF scenes or "
        "of pictures with its sensors named, and "
        f"simulated[:SEED[:SAMPLES]] or simulated-ocean[:SEED[:SAMPLES]]. Layouts are: {', '.join(LAYOUTS)}."
    )
