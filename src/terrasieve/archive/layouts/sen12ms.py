"""SEN12MS as it ships: Sentinel-1, Sentinel-2 and MODIS land cover of 252 scenes in four seasons, cut to 256x256 px.

Schmitt et al. 2019, "SEN12MS - A Curated Dataset of Georeferenced Multi-Spectral Sentinel-1/2 Imagery for Deep Learning
and Data Fusion", ISPRS Annals IV-2/W7. Lists of train and test patches, hold-out scenes and the simplified classes:
Schmitt and Wu 2021, "Remote Sensing Image Classification with the SEN12MS Dataset", ISPRS Annals V-2-2021.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.land_cover import CLASS_OF_IGBP, IGBP, MajorityLabels
from terrasieve.archive.patches.listing import Listing, PatchesArchive, read_split_lists
from terrasieve.archive.patches.sensor_folders import list_parts, parts_there, sample_name
from terrasieve.archive.quality.limits import Problem, Rejection
from terrasieve.archive.readers.patch_reader import PatchReader, StackReader
from terrasieve.errors import ArchiveError
from terrasieve.sensors import SENSORS, Band, Sensor

SIZE = (256, 256)
SEASONS = ("ROIs1158_spring", "ROIs1868_summer", "ROIs1970_fall", "ROIs2017_winter")
HOLD_OUT_SCENES = "SEN12MS_holdOutScenes.txt"
HELD_OUT_SHARE = 0.1
"""Share of the scenes that ``split_scene`` puts into val, and likewise into test."""

BROKEN: Mapping[str, str] = {
    "ROIs1868_summer_146_p202": "it holds NaN, and the publishers' own lists leave it out (Schmitt and Wu 2021)"
}
"""Patches whose Sentinel-1 file is broken as published, and why."""

LC_FILE = Sensor(
    name="modis-land-cover",
    kind="map",
    bands=tuple(
        Band(name=name, gsd=500, unit="class", valid_range=(0, 255))
        for name in ("IGBP", "LCCS_land_cover", "LCCS_land_use", "LCCS_surface_hydrology")
    ),
)
"""The four bands of a land-cover file: MODIS MCD12Q1 of 500 m, resampled to 10 m."""

SensorKey = Literal["s2", "s1", "lc"]
_SENSORS: Mapping[SensorKey, Sensor] = {
    "s2": SENSORS["s2-l1c"],
    "s1": SENSORS["s1"],
    "lc": LC_FILE.select("IGBP"),
}

_CITATION = """@inproceedings{schmitt2019sen12ms,
  author    = {Schmitt, Michael and Hughes, Lloyd Haydn and Qiu, Chunping and Zhu, Xiao Xiang},
  title     = {{SEN12MS} -- A Curated Dataset of Georeferenced Multi-Spectral {Sentinel-1/2} Imagery for Deep
               Learning and Data Fusion},
  booktitle = {ISPRS Annals, IV-2/W7},
  year      = {2019},
}"""


class Sen12MsSpec(ArchiveSpec):
    """A SEN12MS folder.

    Attributes:
        root: The folder that holds the folders of the seasons, all four or some.
        sensors: Which sensors to show; a sample must have all of them. Those that are there when None.
    """

    layout: Literal["sen12ms"] = "sen12ms"
    root: Path
    sensors: tuple[SensorKey, ...] | None = None

    data_set = DataSet(
        title="SEN12MS",
        sensors="Sentinel-1, Sentinel-2 L1C, land cover",
        labels="class, map",
        split="official lists, held-out scenes",
        page="sen12ms.md",
        citation=_CITATION,
    )

    def open(self) -> Sen12MsArchive:
        """The archive; see :class:`Sen12MsArchive`."""
        return Sen12MsArchive(self)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the folders of the seasons, with folders of scenes in them."""
        seasons = [name for name in SEASONS if parts_there(folder, [name], tuple(_SENSORS))]
        if not seasons:
            return None
        return Recognition(1.0, f"SEN12MS's {', '.join(seasons)} with folders of scenes", cls(root=folder))


class Sen12MsArchive(PatchesArchive):
    """Triplets of 256x256 px at 10 m; ``s2`` is L1C with B8A after B08, ``s1`` decibels, ``lc`` the IGBP map.

    A sample's id is its files' name without the sensor, such as ``ROIs1158_spring_8_p30``. Columns:

    - ``scene``: season and scene, such as ``ROIs1158_spring_8``.
    - ``split``: of ``train_list.txt`` and ``test_list.txt`` where they lie in the root, beside it, or in a folder
      ``splits`` there; what ``val_list.txt`` takes from train is val. Without them, the scenes in
      ``SEN12MS_holdOutScenes.txt`` are test and the others train. Null without any of these.
    - ``split_scene``: whole scenes, about a tenth each in val and test, drawn by a hash of the scene's name; what else
      is in the folder does not matter.
    - ``label``: where ``lc`` is shown, the simplified class that most of the map belongs to. All maps are read for it
      when the table is first asked for.

    Args:
        spec: Folder of the data set, and which sensors to show.

    Raises:
        ArchiveError: No season is there, no sample has all sensors, or the lists contradict each other.
    """

    def __init__(self, spec: Sen12MsSpec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        wanted = spec.sensors or parts_there(spec.root, SEASONS, tuple(_SENSORS))
        if not wanted:
            raise ArchiveError(
                f"{spec.root} holds no folder like {SEASONS[0]}/s2_1; name the folder that holds the seasons."
            )
        listing = list_parts(spec.root, SEASONS, wanted)
        readers: dict[str, PatchReader] = {
            key: StackReader(spec.root, _SENSORS[key], SIZE, _in_file(key)) for key in _SENSORS if key in wanted
        }
        listing = _without_broken(listing, spec.root) if "s1" in wanted else listing
        split_of, absent = _published(spec.root, listing.ids)
        columns: dict[str, Any] = {
            "scene": [scene_of(name) for name in listing.ids],
            "split": [split_of.get(name) for name in listing.ids],
            "split_scene": [scene_split(scene_of(name)) for name in listing.ids],
        }
        if "lc" in readers:
            columns["label"] = MajorityLabels(readers["lc"], listing.addresses["lc"], CLASS_OF_IGBP)
        facts = {"classes": ["unclassified", *IGBP], "listed_but_absent": absent}
        super().__init__(spec, replace(listing, columns=columns, facts=facts), readers)


def scene_of(sample: str) -> str:
    """Season and scene of a sample: ``ROIs1158_spring_8`` of ``ROIs1158_spring_8_p30``."""
    return sample.rpartition("_")[0]


def scene_split(scene: str) -> str:
    """The part that a scene is held out in, ``train``, ``val`` or ``test``, which depends on its name only."""
    # 64 bits of a hash as a number from 0 to 1, which is the same whatever other scenes the folder holds.
    draw = int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], "big") / 2**64
    if draw < HELD_OUT_SHARE:
        return "test"
    return "val" if draw < 2 * HELD_OUT_SHARE else "train"


def _in_file(key: SensorKey) -> Sensor | None:
    return LC_FILE if key == "lc" else None


def _without_broken(listing: Listing, root: Path) -> Listing:
    kept, lost = [], []
    for position, name in enumerate(listing.ids):
        if name not in BROKEN:
            kept.append(position)
            continue
        asset = str(root / listing.addresses["s1"][position])
        reason = f"{asset} is broken as published: {BROKEN[name]}. Leave s1 out of sensors to have the rest of it."
        lost.append(Rejection(name, "s1", asset, reason, Problem.NODATA))
    return replace(
        listing,
        ids=[listing.ids[position] for position in kept],
        addresses={key: [found[position] for position in kept] for key, found in listing.addresses.items()},
        rejected=(*listing.rejected, *lost),
    )


def _published(root: Path, names: Sequence[str]) -> tuple[dict[str, str], int]:
    """Split by sample, and how many samples the lists name that are not in the folder."""
    places = [folder / below for folder in (root, root.parent) for below in ("", "splits")]
    listed = _by_sample(read_split_lists(places, {"train": "train_list.txt", "test": "test_list.txt"}))
    held_back = _by_sample(read_split_lists(places, {"val": "val_list.txt"}))
    both = next((name for name in held_back if listed.get(name) == "test"), None)
    if both:
        raise ArchiveError(f"val_list.txt and test_list.txt both list {both}; correct the lists in {root}.")
    if listed:
        # The list for validation takes its patches from those for training, which lists them too.
        split_of = listed | held_back
        return split_of, len(set(split_of) - set(names))
    path = next((place / HOLD_OUT_SCENES for place in places if (place / HOLD_OUT_SCENES).is_file()), None)
    if path is None:
        return {}, 0
    # The list names the scenes of both sensors; samples are named by the season and the scene's number.
    scenes = {line.replace("/s1_", "_").replace("/s2_", "_") for line in path.read_text(encoding="utf-8").split()}
    return {name: "test" if scene_of(name) in scenes else "train" for name in names}, 0


def _by_sample(split_of: Mapping[str, str]) -> dict[str, str]:
    return {sample_name(stem) or stem: split for stem, split in split_of.items()}
