"""SSL4EO-S12 as it first shipped: for each location up to four seasons of Sentinel-1, Sentinel-2 L1C and L2A.

Wang et al. 2023, "SSL4EO-S12: A Large-Scale Multimodal, Multitemporal Dataset for Self-Supervised Learning in Earth
Observation", GRSM 11(3). A folder for each location below ``s1``, ``s2c`` and ``s2a``, in it one for each scene, in it
a GeoTIFF for each band at its own resolution. Version 1.1 is packed otherwise: see ``ssl4eo_s12_v11``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Literal

from terrasieve.archive.derived.seasons import Seasons, seasons_as
from terrasieve.archive.folders import subfolders
from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.limits import Problem, Rejection
from terrasieve.archive.readers.patch_reader import BandsReader
from terrasieve.archive.scenes.acquisition_time import find_time
from terrasieve.console import track_many
from terrasieve.errors import ArchiveError
from terrasieve.sensors import SENSORS, Sensor

SIZE = (264, 264)
Product = Literal["s1", "s2c", "s2a"]
PRODUCTS: Mapping[str, Sensor] = {"s1": SENSORS["s1"], "s2c": SENSORS["s2-l1c"], "s2a": SENSORS["s2-l2a"]}
_LOCATION = re.compile(r"\d{7}")
_LOOKED_AT = 5
"""Folders of locations by which the layout is recognised; there may be a quarter of a million."""

_CITATION = """@article{wang2023ssl4eo,
  author  = {Wang, Yi and Braham, Nassim Ait Ali and Xiong, Zhitong and Liu, Chenying and Albrecht, Conrad M. and
             Zhu, Xiao Xiang},
  title   = {{SSL4EO-S12}: A Large-Scale Multimodal, Multitemporal Dataset for Self-Supervised Learning in {Earth}
             Observation},
  journal = {IEEE Geoscience and Remote Sensing Magazine},
  year    = {2023},
}"""


class Ssl4eoS12Spec(ArchiveSpec):
    """An SSL4EO-S12 folder, version 1.0.

    Attributes:
        root: The folder that holds ``s1``, ``s2c`` and ``s2a``, or some of them.
        sensors: Which to show; a sample must have all of them. Those that are there when None.
        seasons: Whether each season of a location is a sample, or a location is, whose seasons are further views; see
            :class:`terrasieve.archive.derived.seasons.SeasonViews`.
    """

    layout: Literal["ssl4eo-s12"] = "ssl4eo-s12"
    root: Path
    sensors: tuple[Product, ...] | None = None
    seasons: Seasons = "samples"

    data_set = DataSet(
        title="SSL4EO-S12 v1.0",
        sensors="Sentinel-1, Sentinel-2 L1C and L2A, four seasons",
        page="ssl4eo-s12.md",
        citation=_CITATION,
    )

    def open(self) -> Archive:
        """The archive, with the seasons as the spec says."""
        return seasons_as(Ssl4eoS12Archive(self), self.seasons)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the folders of locations with seven digits below those of the sensors."""
        found = [key for key in PRODUCTS if any(map(_LOCATION.fullmatch, islice(subfolders(folder / key), _LOOKED_AT)))]
        if not found:
            return None
        return Recognition(0.95, f"locations of seven digits in {', '.join(found)}", cls(root=folder))


@dataclass(frozen=True)
class _Season:
    """One season of a location: the folder of each sensor's scene."""

    location: str
    number: int
    scenes: Mapping[str, str]
    time: datetime

    @property
    def name(self) -> str:
        return f"{self.location}/{self.number}"


class Ssl4eoS12Archive(PatchesArchive):
    """Patches of 264x264 px, one sample for each location and season; bands on the grid of those of 10 m.

    Which scenes of the sensors belong together is not published. Each sensor's scenes of a location are put in order of
    their date, and the first belongs to the first, and so on; a location whose sensors have different numbers of scenes
    is rejected. A sample's id is ``<location>/<season>``, the season counted from 0; the columns ``location`` and
    ``season`` say the same. ``time`` is that of the first sensor shown. Sentinel-1 is in decibels; Sentinel-2 has no
    offset of processing baseline 04.00. There are no labels and no split.

    Args:
        spec: Folder of the data set, which sensors to show, and whether seasons are samples.

    Raises:
        ArchiveError: None of the folders is there, or no location is complete.
    """

    def __init__(self, spec: Ssl4eoS12Spec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        there = tuple(key for key in PRODUCTS if (spec.root / key).is_dir())
        wanted: tuple[str, ...] = spec.sensors or there
        if not wanted:
            raise ArchiveError(f"{spec.root} holds none of {', '.join(PRODUCTS)}; name the folder that holds them.")
        seasons, rejected = _scan(spec.root, wanted)
        super().__init__(
            spec,
            Listing(
                ids=[season.name for season in seasons],
                addresses={key: [f"{key}/{one.location}/{one.scenes[key]}" for one in seasons] for key in wanted},
                columns={
                    "time": [season.time for season in seasons],
                    "location": [season.location for season in seasons],
                    "season": [season.number for season in seasons],
                },
                rejected=rejected,
                facts={"seasons_matched": "by order of date"},
            ),
            {key: BandsReader(spec.root, PRODUCTS[key], _file, SIZE) for key in wanted},
        )


def _file(address: str, band: str) -> str:
    """The data set says ``B1`` where the product says ``B01``."""
    return f"{address}/{re.sub(r'^B0', 'B', band)}.tif"


def _scan(root: Path, wanted: Sequence[str]) -> tuple[list[_Season], tuple[Rejection, ...]]:
    locations = sorted({name for key in wanted for name in subfolders(root / key) if _LOCATION.fullmatch(name)})
    seasons: list[_Season] = []
    rejected: list[Rejection] = []
    for location in track_many(locations, f"Locations of {root.name}"):
        found: dict[str, dict[str, datetime | None]] = {}
        for key in wanted:
            dated = [(find_time(scene), scene) for scene in subfolders(root / key / location)]
            # In order, those without a date first, as nothing compares with None.
            dated.sort(key=lambda one: (one[0] is not None, str(one[0]), one[1]))
            found[key] = {scene: time for time, scene in dated}
        if problem := _why_not(location, found):
            rejected.append(problem)
        else:
            seasons += _seasons(location, found)
    return seasons, tuple(rejected)


def _why_not(location: str, found: Mapping[str, Mapping[str, datetime | None]]) -> Rejection | None:
    """Why the scenes of a location cannot be matched; None where they can."""
    counts = {key: len(scenes) for key, scenes in found.items()}
    # A location whose folders are all empty still counts as one sample that was lost.
    samples = max(*counts.values(), 1)
    for key, scenes in found.items():
        if undated := [scene for scene, time in scenes.items() if time is None]:
            reason = f"{key}/{location}/{undated[0]} states no date, by which seasons are matched. Fetch it again."
            return Rejection(location, key, "", reason, Problem.PARTNER, samples)
    if len(set(counts.values())) == 1 and samples == max(counts.values()):
        return None
    fewest = min(counts, key=lambda key: counts[key])
    have = ", ".join(f"{count} of {key}" for key, count in counts.items())
    reason = f"Location {location} has {have}: which belong together cannot be told. Fetch the missing scenes."
    return Rejection(location, fewest, "", reason, Problem.PARTNER, samples)


def _seasons(location: str, found: Mapping[str, Mapping[str, datetime | None]]) -> list[_Season]:
    scenes = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
    times = next(iter(found.values())).values()
    return [
        _Season(location, number, row, time)
        for number, (row, time) in enumerate(zip(scenes, times, strict=True))
        if time is not None
    ]
