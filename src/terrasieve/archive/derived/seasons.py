"""Seasons of a place as further views of it: one sample a location, each season a sensor of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.derived.wrapper import WrapperArchive
from terrasieve.archive.patches.listing import PatchesArchive
from terrasieve.archive.protocol import Archive
from terrasieve.archive.quality.limits import Problem, Rejection
from terrasieve.errors import ArchiveError
from terrasieve.sensors import Sensor

Seasons = Literal["samples", "views"]
"""``samples``: each season of a location is a sample. ``views``: a location is, with the sensors of every season."""


class SeasonViews(WrapperArchive):
    """Locations of an archive whose samples are seasons of them.

    Sensors are called ``<key>-<season>``, for example ``s2c-0`` to ``s2c-3``, so that a recipe can take one view from
    one season and another from another. A location that lacks a season is rejected.

    Args:
        archive: Has the columns ``location`` and ``season``, the latter counted from 0.

    Raises:
        ArchiveError: No location has all seasons.
    """

    def __init__(self, archive: PatchesArchive) -> None:
        super().__init__(archive)
        self._seasons, rejected = _by_location(archive)
        self._locations = archive.column("location")
        self.rejected = (*archive.rejected, *rejected)
        self._parts = {
            f"{key}-{season}": (key, season) for key in archive.sensors for season in range(self._seasons.shape[1])
        }

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """Each sensor once a season."""
        return {name: self.archive.sensors[key] for name, (key, _) in self._parts.items()}

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """Names of the locations."""
        return np.array([str(self._locations[position]) for position in self._seasons[:, 0].tolist()])

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance of the archive of seasons, with the fingerprint of the locations."""
        digest = hashlib.sha256(f"views {self.archive.source['fingerprint']}".encode()).hexdigest()
        return {**self.archive.source, "rejected": len(self.rejected), "fingerprint": digest}

    def __len__(self) -> int:
        return len(self._seasons)

    def files(self, indices: NDArray[np.int64]) -> Iterable[str]:
        """Those of every season of the locations."""
        return self.archive.files(self._seasons[indices].ravel())

    def table(self) -> pa.Table:
        """The rows of each location's first season, with the files and the time of every season."""
        rows = self.archive.table()
        first = rows.take(pa.array(self._seasons[:, 0]))
        kept = [name for name in first.column_names if name != "season" and not name.startswith("asset:")]
        columns = {name: first[name] for name in kept} | {"id": pa.array(self.ids.tolist(), pa.string())}
        for name, (key, season) in self._parts.items():
            part = pa.array(self._seasons[:, season])
            columns[f"asset:{name}"] = rows[f"asset:{key}"].take(part)
            columns[f"time:{name}"] = rows["time"].take(part)
        return pa.table(columns)

    def _locate(self, index: int, sensor: str) -> tuple[int, str]:
        key, season = self._parts[sensor]
        return int(self._seasons[index, season]), key


def seasons_as(archive: PatchesArchive, how: Seasons) -> Archive:
    """An archive whose samples are seasons, as it is or with the seasons as views."""
    return SeasonViews(archive) if how == "views" else archive


def _by_location(archive: PatchesArchive) -> tuple[NDArray[np.int64], list[Rejection]]:
    """Positions of each whole location's seasons, shape ``(locations, seasons)``, and the locations that are not."""
    locations, seasons = archive.column("location"), archive.column("season")
    found: dict[str, dict[int, int]] = {}
    for position, (location, season) in enumerate(zip(locations, seasons, strict=True)):
        found.setdefault(str(location), {})[int(season)] = position
    count = 1 + max(max(known) for known in found.values())
    whole = [[known[season] for season in range(count)] for known in found.values() if len(known) == count]
    if not whole:
        raise ArchiveError(f"{archive.source['root']} holds no location with all of its {count} seasons.")
    key = next(iter(archive.sensors))
    rejected = [
        Rejection(
            name, key, "", f"Location {name} has {len(known)} of {count} seasons. Fetch the rest.", Problem.PARTNER
        )
        for name, known in found.items()
        if len(known) != count
    ]
    return np.array(whole, dtype=np.int64), rejected
