"""Patches that say in the middle of their name which sensor they are of, in a folder for each sensor of a scene.

``ROIs1158_spring/s1_8/ROIs1158_spring_s1_8_p30.tif`` and ``ROIs1158_spring/s2_8/ROIs1158_spring_s2_8_p30.tif`` are two
parts of the sample ``ROIs1158_spring_8_p30``. SEN12MS began it (Schmitt et al. 2019, section 3.4), DFC2020 follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from terrasieve.archive.folders import list_files, subfolders
from terrasieve.archive.patches.listing import Listing
from terrasieve.archive.quality.limits import Problem, Rejection
from terrasieve.console import track_many

_NAME = re.compile(r"(?P<region>ROIs\d+_[a-z]+)_(?P<part>s1|s2|lc|dfc)_(?P<rest>\w+_p\d+)")


def sample_name(stem: str) -> str | None:
    """The name that all parts of a sample share; None for a name of another form."""
    match = _NAME.fullmatch(stem)
    return f"{match['region']}_{match['rest']}" if match else None


def parts_there(root: Path, regions: Sequence[str], parts: Sequence[str]) -> tuple[str, ...]:
    """The parts that have a folder in any region, in the order given."""
    found = {folder.name.partition("_")[0] for folder in _folders(root, regions)}
    return tuple(part for part in parts if part in found)


def list_parts(root: Path, regions: Sequence[str], parts: Sequence[str]) -> Listing:
    """The samples that have all parts.

    Files of another name, and samples that lack a part, are rejected.

    Args:
        root: The folder of the regions.
        regions: Their folders, such as ``ROIs1158_spring``; those that are absent hold nothing.
        parts: The sensors, as names say them; also the keys of the addresses.
    """
    addresses: dict[str, dict[str, str]] = {part: {} for part in parts}
    rejected: list[Rejection] = []
    folders = [one for one in _folders(root, regions) if one.name.partition("_")[0] in addresses]
    for folder in track_many(folders, f"Folders of {root.name}"):
        part = folder.name.partition("_")[0]
        for path in list_files(folder, ".tif"):
            address = f"{folder.parent.name}/{folder.name}/{path.name}"
            match = _NAME.fullmatch(path.stem)
            if match is None or match["part"] != part or match["region"] != folder.parent.name:
                rejected.append(_misnamed(path, part))
            elif addresses[part].setdefault(f"{match['region']}_{match['rest']}", address) != address:
                reason = f"{path} is a second {part} file of a sample that another folder holds already; remove one."
                rejected.append(Rejection(path.stem, part, str(path), reason, Problem.PARTNER))
    names = sorted(set().union(*addresses.values()), key=_by_numbers)
    complete = [name for name in names if all(name in found for found in addresses.values())]
    rejected += [_without_partner(name, addresses) for name in sorted(set(names) - set(complete), key=_by_numbers)]
    return Listing(
        ids=complete,
        addresses={part: [found[name] for name in complete] for part, found in addresses.items()},
        rejected=tuple(rejected),
    )


def _folders(root: Path, regions: Sequence[str]) -> Iterator[Path]:
    for region in regions:
        yield from (root / region / name for name in subfolders(root / region))


def _by_numbers(name: str) -> list[str | int]:
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", name)]


def _misnamed(path: Path, part: str) -> Rejection:
    reason = (
        f"{path} is not named like {path.parent.parent.name}_{part}_..._p1.tif, as files in its folder are, so nothing "
        "says which sample it belongs to; rename or remove it."
    )
    return Rejection(path.stem, part, str(path), reason, Problem.PARTNER)


def _without_partner(name: str, addresses: Mapping[str, Mapping[str, str]]) -> Rejection:
    there = next(found[name] for found in addresses.values() if name in found)
    missing = [part for part, found in addresses.items() if name not in found]
    reason = f"{there} has no {' and no '.join(missing)} beside it; fetch it, or set sensors to those that are there."
    return Rejection(name, missing[0], "", reason, Problem.PARTNER)
