"""SSL4EO-S12 v1.1: the locations of SSL4EO-S12 fetched anew, 64 of them with four seasons in each zipped Zarr store.

Blumenstiel et al. 2025, "SSL4EO-S12 v1.1: A Multimodal, Multiseasonal Dataset for Pretraining", arXiv 2503.00168, and
the description of its repository, DLR-MF-DAS/SSL4EO-S12-v1.1. This is the version in Zarr stores of 64 locations; the
later one in tar files, whose Sentinel-2 bands have no offset, is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from terrasieve.archive.derived.seasons import Seasons, seasons_as
from terrasieve.archive.folders import list_files
from terrasieve.archive.layout import ArchiveSpec, DataSet, Recognition
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.limits import FlawError, Problem, Rejection
from terrasieve.archive.readers.patch_reader import item_address
from terrasieve.archive.readers.zarr import StoredSamples, ZippedZarrReader, read_samples
from terrasieve.console import track_many
from terrasieve.errors import ArchiveError
from terrasieve.sensors import SENSORS, Sensor

SIZE = (264, 264)
SPLITS = ("train", "val")
SEASONS = 4
PER_STORE = 64 * SEASONS
"""Samples of a whole store, by which the loss of one is counted."""

OFFSETS = {"s2c": 1000, "s2a": 1000}
"""What processing baseline 04.00 adds to reflectance: v1.1 keeps it, in L1C and L2A alike, for scenes of every date."""

Product = Literal["s1", "s2c", "s2a", "s2rgb"]
FOLDERS: Mapping[str, tuple[str, Sensor]] = {
    "s1": ("S1GRD", SENSORS["s1"]),
    "s2c": ("S2L1C", SENSORS["s2-l1c"]),
    "s2a": ("S2L2A", SENSORS["s2-l2a"]),
    "s2rgb": ("S2RGB", SENSORS["s2-rgb8"]),
}
_NAME = re.compile(r"ssl4eos12_(train|val)_seasonal_data_\d+\.zarr\.zip")

_CITATION = """@article{blumenstiel2025ssl4eo,
  author  = {Blumenstiel, Benedikt and others},
  title   = {{SSL4EO-S12} v1.1: A Multimodal, Multiseasonal Dataset for Pretraining},
  journal = {arXiv:2503.00168},
  year    = {2025},
}"""


class Ssl4eoS12V11Spec(ArchiveSpec):
    """An SSL4EO-S12 folder, version 1.1.

    Attributes:
        root: The folder that holds ``train`` and ``val``, or one of them.
        sensors: Which to show; a sample must have all of them. Those that are there, less ``s2rgb``, which is drawn
            from them, when None.
        seasons: Whether each season of a location is a sample, or a location is, whose seasons are further views; see
            :class:`terrasieve.archive.derived.seasons.SeasonViews`.
    """

    layout: Literal["ssl4eo-s12-v1.1"] = "ssl4eo-s12-v1.1"
    root: Path
    sensors: tuple[Product, ...] | None = None
    seasons: Seasons = "samples"

    data_set = DataSet(
        title="SSL4EO-S12 v1.1",
        sensors="Sentinel-1, Sentinel-2 L1C and L2A, four seasons",
        split="official",
        page="ssl4eo-s12.md",
        citation=_CITATION,
    )

    def open(self) -> Archive:
        """The archive, with the seasons as the spec says."""
        return seasons_as(Ssl4eoS12V11Archive(self), self.seasons)

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """By the stores' names."""
        for split in SPLITS:
            for name, _ in FOLDERS.values():
                if any(_NAME.fullmatch(path.name) for path in list_files(folder / split / name, ".zarr.zip")):
                    return Recognition(1.0, f"stores of SSL4EO-S12 v1.1 in {split}/{name}", cls(root=folder))
        return None


@dataclass(frozen=True, slots=True)
class _Sample:
    """One season of a location."""

    location: str
    season: int
    split: str
    time: datetime | None
    addresses: tuple[str, ...]


class Ssl4eoS12V11Archive(PatchesArchive):
    """Patches of 264x264 px, one sample for each location and season.

    A sample's id is that of the data set, ``<location>_<season>``, the season counted from 0 in order of date; the
    columns ``location`` and ``season`` say the same. ``time`` is that of the first sensor shown. Sentinel-1 is float16
    in decibels. Sentinel-2 is int16 with the offset of processing baseline 04.00, which ``source`` states. Where stores
    keep many locations in a chunk, as they ship, all samples of a season come one after the other, so that a pass in
    order decodes each chunk once; to read at random, pack the archive first.

    Args:
        spec: Folder of the data set, which sensors to show, and whether seasons are samples.

    Raises:
        ArchiveError: No store is there, or no sample has all sensors.
    """

    def __init__(self, spec: Ssl4eoS12V11Spec) -> None:
        spec = spec.model_copy(update={"root": spec.root.resolve()})
        there = tuple(
            key for key, (name, _) in FOLDERS.items() if any((spec.root / split / name).is_dir() for split in SPLITS)
        )
        # Pictures are drawn from another product, and are shown unasked only where they are all there is.
        wanted: tuple[str, ...] = spec.sensors or tuple(key for key in there if key != "s2rgb") or there
        if not wanted:
            names = ", ".join(folder for folder, _ in FOLDERS.values())
            raise ArchiveError(f"{spec.root} holds no train or val with any of {names}; name the folder that does.")
        samples, rejected = _scan(spec.root, wanted)
        super().__init__(
            spec,
            Listing(
                ids=[f"{sample.location}_{sample.season}" for sample in samples],
                addresses={key: [one.addresses[place] for one in samples] for place, key in enumerate(wanted)},
                columns={
                    "split": [sample.split for sample in samples],
                    "time": [sample.time for sample in samples],
                    "location": [sample.location for sample in samples],
                    "season": [sample.season for sample in samples],
                },
                rejected=rejected,
                facts={"offset": {key: offset for key, offset in OFFSETS.items() if key in wanted}},
            ),
            {key: ZippedZarrReader(spec.root, FOLDERS[key][1], SIZE) for key in wanted},
        )


def _scan(root: Path, wanted: Sequence[str]) -> tuple[list[_Sample], tuple[Rejection, ...]]:
    stores: list[tuple[str, str]] = []
    for split in SPLITS:
        # A store that any of the sensors has: one that others lack is missed, and noted, further down.
        files = (path for key in wanted for path in list_files(root / split / FOLDERS[key][0], ".zarr.zip"))
        stores += [(split, name) for name in sorted({path.name for path in files if _NAME.fullmatch(path.name)})]
    samples: list[_Sample] = []
    rejected: list[Rejection] = []
    for split, name in track_many(stores, f"Stores of {root.name}"):
        paths = {key: f"{split}/{FOLDERS[key][0]}/{name}" for key in wanted}
        found = _read_all(root, paths, rejected)
        if found is not None:
            samples += _match(found, paths, split, rejected)
    return samples, tuple(rejected)


def _read_all(root: Path, paths: Mapping[str, str], rejected: list[Rejection]) -> dict[str, StoredSamples] | None:
    """What each sensor's store holds; None where one is absent or cannot be read, which is noted."""
    found: dict[str, StoredSamples] = {}
    for key, path in paths.items():
        if not (root / path).is_file():
            reason = f"{root / path} is absent, while other sensors have a store of this name. Fetch it."
            rejected.append(Rejection(path, key, "", reason, Problem.PARTNER, PER_STORE))
            return None
        try:
            found[key] = read_samples(root / path)
        except FlawError as error:
            rejected.append(Rejection(path, key, str(root / path), str(error), error.problem, PER_STORE))
            return None
    return found


def _match(
    found: Mapping[str, StoredSamples], paths: Mapping[str, str], split: str, rejected: list[Rejection]
) -> Iterator[_Sample]:
    """Samples that every sensor has, by name and not by place; the others are noted."""
    first = next(iter(found.values()))
    places = {key: {name: place for place, name in enumerate(one.names)} for key, one in found.items()}
    for name in sorted(set().union(*places.values())):
        if lacking := [key for key, known in places.items() if name not in known]:
            reason = f"{paths[lacking[0]]} has no location {name}, which another sensor's store has. Fetch it again."
            rejected.append(Rejection(name, lacking[0], "", reason, Problem.PARTNER, SEASONS))
    shared = [name for name in first.names if all(name in known for known in places.values())]
    seasons = min(len(one.times[0]) for one in found.values()) if shared else 0
    # Season by season, as a chunk holds one season of many locations: a pass in order decodes each chunk once.
    for season in range(seasons):
        for name in shared:
            addresses = tuple(item_address(paths[key], places[key][name], season) for key in found)
            yield _Sample(name, season, split, first.times[places[next(iter(found))][name]][season], addresses)
