"""BigEarthNet-MM: Sentinel-2 and Sentinel-1 patches of 1.2 km with several labels each, version 2 and like version 1.

Clasen et al. 2024, "reBEN: Refined BigEarthNet Dataset for Remote Sensing Image Analysis"; Sumbul et al. 2021,
"BigEarthNet-MM". Version 2 says which files belong together, and how they are split, in ``metadata.parquet``; version 1
in a JSON file beside each patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from terrasieve.archive.folders import subfolders
from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.quality.limits import Problem, Rejection
from terrasieve.archive.readers.parquet import read_table
from terrasieve.archive.readers.patch_reader import BandsReader
from terrasieve.archive.scenes.acquisition_time import find_time
from terrasieve.console import track_many
from terrasieve.errors import ArchiveError
from terrasieve.schema import read_json
from terrasieve.sensors import SENSORS

SIZE = (120, 120)
S2, S1, METADATA = "BigEarthNet-S2", "BigEarthNet-S1", "metadata.parquet"
SPLITS = {"train": "train", "validation": "val", "test": "test"}
_PRODUCTS = {"s2": (S2, SENSORS["s2-l2a"]), "s1": (S1, SENSORS["s1"])}
_FOLDERS = {"s2": (S2, "BigEarthNet-v1.0", "BigEarthNet-S2-v1.0"), "s1": (S1, "BigEarthNet-S1-v1.0")}
"""Names of each sensor's folder: that of version 2, and those that version 1 is unpacked to."""
_COLUMNS = pa.schema(
    [("patch_id", pa.string()), ("s1_name", pa.string()), ("split", pa.string()), ("labels", pa.list_(pa.string()))]
)

CLASSES_19: Mapping[str, tuple[str, ...]] = {
    "Urban fabric": ("Continuous urban fabric", "Discontinuous urban fabric"),
    "Industrial or commercial units": (),
    "Arable land": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
    "Permanent crops": (
        "Vineyards",
        "Fruit trees and berry plantations",
        "Olive groves",
        "Annual crops associated with permanent crops",
    ),
    "Pastures": (),
    "Complex cultivation patterns": (),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (),
    "Agro-forestry areas": (),
    "Broad-leaved forest": (),
    "Coniferous forest": (),
    "Mixed forest": (),
    "Natural grassland and sparsely vegetated areas": ("Natural grassland", "Sparsely vegetated areas"),
    "Moors, heathland and sclerophyllous vegetation": ("Moors and heathland", "Sclerophyllous vegetation"),
    "Transitional woodland, shrub": ("Transitional woodland/shrub",),
    "Beaches, dunes, sands": (),
    "Inland wetlands": ("Inland marshes", "Peatbogs"),
    "Coastal wetlands": ("Salt marshes", "Salines"),
    "Inland waters": ("Water courses", "Water bodies"),
    "Marine waters": ("Coastal lagoons", "Estuaries", "Sea and ocean"),
}
"""The 19 classes, and the CORINE classes of version 1 that each gathers besides its own name; the rest are dropped."""

_NEW_NAME = {old: new for new, olds in CLASSES_19.items() for old in (new, *olds)}

_CITATION = """@article{clasen2024reben,
  author  = {Clasen, Kai Norman and Hackel, Leonard and others},
  title   = {{reBEN}: Refined {BigEarthNet} Dataset for Remote Sensing Image Analysis},
  journal = {arXiv:2407.03653},
  year    = {2024},
}"""


class BigEarthNetSpec(ArchiveSpec):
    """A BigEarthNet folder.

    Attributes:
        root: The folder that holds ``BigEarthNet-S2`` and ``BigEarthNet-S1``, or one of them; of version 1
            ``BigEarthNet-v1.0`` and ``BigEarthNet-S1-v1.0``.
        sensors: Which sensors to show; a sample must have all of them. Those that are there when None.
    """

    layout: Literal["bigearthnet"] = "bigearthnet"
    root: Path
    sensors: tuple[Literal["s2", "s1"], ...] | None = None

    data_set = DataSet(
        title="BigEarthNet",
        sensors="Sentinel-2 L2A, Sentinel-1",
        labels="several classes",
        split="official",
        page="bigearthnet.md",
        versions="v2, v1-like",
        citation=_CITATION,
    )

    def open(self) -> BigEarthNetArchive:
        """The archive; see :class:`BigEarthNetArchive`."""
        return BigEarthNetArchive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the names of its two folders."""
        found = list(_there(folder).values())
        if not found:
            return None
        return Recognition(1.0, f"folder{'s' if len(found) > 1 else ''} {' and '.join(found)}", cls(root=folder))

    @classmethod
    def near_miss(cls, folder: Path) -> str | None:
        """The folder of one sensor, where that above it is wanted."""
        if not any(folder.resolve().name in names for names in _FOLDERS.values()):
            return None
        return f"It is BigEarthNet's folder of one sensor; name the folder above it, {folder.resolve().parent}."


@dataclass(frozen=True)
class _Patch:
    """One place: name of each sensor's folder, as far as it is stated, and what is known of it."""

    names: Mapping[str, str]
    labels: tuple[str, ...] | None
    split: str | None = None

    def name(self, wanted: Sequence[str]) -> str:
        return self.names[wanted[0]]


class BigEarthNetArchive(PatchesArchive):
    """Patches of 120x120 px; all bands on the grid of those of 10 m, Sentinel-1 in decibels as float32.

    A sample's id is its Sentinel-2 name, or that of Sentinel-1 where only this is shown. The column ``labels`` lists
    the sample's classes among 19; ``split`` is there where ``metadata.parquet`` is. Patches without a partner are
    counted under ``unpaired`` in ``source``, patches that the metadata lists and the folder lacks under
    ``listed_but_absent``, and those that are there and not listed, as version 2 does with clouded ones, under
    ``unlisted``.

    Args:
        spec: Folder of the data set, and which sensors to show.

    Raises:
        ArchiveError: Neither folder is there, metadata is damaged, or no sample has all sensors.
    """

    def __init__(self, spec: BigEarthNetSpec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        there = _there(spec.root)
        wanted: tuple[str, ...] = spec.sensors or tuple(there)
        if not wanted:
            raise ArchiveError(f"{spec.root} holds neither {S2} nor {S1}; name the folder that holds them.")
        names = {key: there.get(key, name) for key, (name, _) in _PRODUCTS.items()}
        paths = {key: _folders(spec.root / name) for key, name in names.items()}
        listed = (spec.root / METADATA).is_file()
        patches = _from_metadata(spec.root) if listed else _from_folders(spec.root, names, paths)
        kept, lost, facts = _present(patches, wanted, paths)
        facts["unlisted"] = sum(len(set(paths[key]) - {patch.names.get(key) for patch in patches}) for key in wanted)
        ids = [patch.name(wanted) for patch in kept]
        super().__init__(
            spec,
            Listing(
                ids=ids,
                addresses={key: [paths[key][patch.names[key]] for patch in kept] for key in wanted},
                columns={
                    "split": [patch.split for patch in kept],
                    "time": [find_time(name) for name in ids],
                    "labels": pa.array([patch.labels for patch in kept], pa.list_(pa.string())),
                },
                rejected=lost,
                facts=facts,
            ),
            {key: BandsReader(spec.root, _PRODUCTS[key][1], partial(_band_file, names[key]), SIZE) for key in wanted},
        )


def _band_file(folder: str, address: str, band: str) -> str:
    return f"{folder}/{address}/{address.rpartition('/')[2]}_{band}.tif"


# ------------------------------------------------------- what belongs together


def _from_metadata(root: Path) -> list[_Patch]:
    path = root / METADATA
    try:
        rows = read_table(path, _COLUMNS.names).select(_COLUMNS.names).cast(_COLUMNS).to_pylist()
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise ArchiveError(f"{path} is not BigEarthNet's metadata: {error}. Fetch it again.") from error
    if unknown := {row["split"] for row in rows} - set(SPLITS):
        raise ArchiveError(f"{path} has the split {unknown.pop()!r}, not {', '.join(SPLITS)}. Fetch it again.")
    return [
        _Patch({"s2": row["patch_id"], "s1": row["s1_name"]}, tuple(row["labels"] or ()), SPLITS[row["split"]])
        for row in rows
    ]


def _from_folders(root: Path, folders: Mapping[str, str], paths: Mapping[str, Mapping[str, str]]) -> list[_Patch]:
    """Patches as the JSON files beside them say; one without such a file has no labels."""
    # Partners are named by the Sentinel-1 side only; what it names may not be there.
    notes_s2, notes_s1 = (_notes(root / folders[key], paths[key]) for key in ("s2", "s1"))
    partner = {str(note.get("corresponding_s2_patch")): name for name, note in notes_s1.items()}
    pairs = {name: {"s2": name} | ({"s1": partner[name]} if name in partner else {}) for name in notes_s2}
    patches = [_Patch(names, _labels(notes_s2[name])) for name, names in pairs.items()]
    alone = [name for name, note in notes_s1.items() if note.get("corresponding_s2_patch") not in notes_s2]
    return patches + [_Patch({"s1": name}, _labels(notes_s1[name])) for name in alone]


def _notes(folder: Path, paths: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    files = track_many(list(paths.items()), f"Labels of {folder.name}")
    return {name: _note(folder / path / f"{name}_labels_metadata.json") for name, path in files}


def _note(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = read_json(path)
    except (OSError, ValueError) as error:
        raise ArchiveError(f"{path} is damaged: {error}. Fetch the file again, or remove the patch.") from error
    if not isinstance(values, dict):
        raise ArchiveError(f"{path} is damaged: it holds no mapping. Fetch the file again, or remove the patch.")
    return values


def _labels(note: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The 19 classes of a patch of version 1, None where nothing is said."""
    said = note.get("labels")
    if not isinstance(said, list):
        return None
    return tuple(sorted({_NEW_NAME[name] for name in said if name in _NEW_NAME}))


# --------------------------------------------------------------- what is there


def _there(root: Path) -> dict[str, str]:
    """The name of each sensor's folder that is there."""
    found = ((key, next((name for name in names if (root / name).is_dir()), None)) for key, names in _FOLDERS.items())
    return {key: name for key, name in found if name is not None}


def _folders(root: Path) -> dict[str, str]:
    """Path below the root of each patch's folder, by its name: directly below, or below a folder of its tile."""
    found: dict[str, str] = {}
    # Version 2 has a folder for each tile around those of its patches, version 1 has not.
    for folder in track_many(subfolders(root), f"Folders of {root.name}"):
        below = subfolders(root / folder)
        found |= {name: f"{folder}/{name}" for name in below} if below else {folder: folder}
    return found


def _present(
    patches: Sequence[_Patch], wanted: Sequence[str], paths: Mapping[str, Mapping[str, str]]
) -> tuple[list[_Patch], tuple[Rejection, ...], dict[str, int]]:
    """Patches whose folders are there, those that lack a folder which is stated, and how many are no matter here."""
    kept, lost, unpaired, absent = [], [], 0, 0
    for patch in patches:
        there = [key for key in wanted if patch.names.get(key) in paths[key]]
        missing = [key for key in wanted if key not in there]
        if not missing:
            kept.append(patch)
        elif missing[0] not in patch.names:
            unpaired += 1
        elif not there:
            # A part of the data set was fetched: that all of a patch is absent is no damage.
            absent += 1
        else:
            reason = (
                f"{patch.names[missing[0]]} belongs to {patch.names[there[0]]}, and its folder is absent. Fetch it."
            )
            lost.append(Rejection(patch.names[there[0]], missing[0], "", reason, Problem.PARTNER))
    return kept, tuple(lost), {"unpaired": unpaired, "listed_but_absent": absent}
