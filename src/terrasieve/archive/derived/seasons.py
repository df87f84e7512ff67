"""Seasons of a place as further views of it: one sample a location, each season a sensor of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from terrasieve.archive.patches.listing import PatchesArchive
from terrasieve.archive.protocol import Archive, Window
from terrasieve.archive.quality.limits import Problem, Rejection
from terrasieve.errors import ArchiveError, BandError, nearest
from terrasieve.schema import Spec
from terrasieve.sensors import Sensor

Seasons = Literal["samples", "views"]
"""``samples``: each season of a location is a sample. ``views``: a location is, with the sensors of every season."""


class SeasonViews:
    """Locations of an archive whose samples are seasons of them; an ``Archive``.

    Sensors are called ``<key>-<season>``, for example ``s2c-0`` to ``s2c-3``, so that a recipe can take one view from
    one season and another from another. A location that lacks a season is rejected.

    Args:
        archive: Has the columns ``location`` and ``season``, the latter counted from 0.

    Raises:
        ArchiveError: No location has all seasons.
    """

    def __init__(self, archive: PatchesArchive) -> None:
        self.archive = archive
        self._positions, rejected = _by_location(archive)
        self.rejected = (*archive.rejected, *rejected)
        self._parts = {
            f"{key}-{season}": (key, season) for key in archive.sensors for season in range(self._positions.shape[1])
        }

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "ids"}

    @property
    def spec(self) -> Spec:
        """How it is opened again."""
        return self.archive.spec

    @property
    def sensors(self) -> Mapping[str, Sensor]:
        """Each sensor once a season."""
        return {name: self.archive.sensors[key] for name, (key, _) in self._parts.items()}

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """Names of the locations."""
        locations = self.archive.column("location")
        return np.array([str(locations[position]) for position in self._positions[:, 0].tolist()])

    @property
    def source(self) -> Mapping[str, Any]:
        """Provenance of the archive of seasons, with the fingerprint of the locations."""
        digest = hashlib.sha256(f"views {self.archive.source['fingerprint']}".encode()).hexdigest()
        return {**self.archive.source, "rejected": len(self.rejected), "fingerprint": digest}

    def __len__(self) -> int:
        return len(self._positions)

    def shape(self, index: int, sensor: str) -> tuple[int, int]:
        """Height and width of a location's pixels for one sensor and season."""
        position, key = self._part(index, sensor)
        return self.archive.shape(position, key)

    def read(
        self, index: int, sensor: str, bands: Sequence[str] | None = None, window: Window | None = None
    ) -> NDArray[Any]:
        """Pixels of one season of a location; see ``Archive.read``."""
        position, key = self._part(index, sensor)
        return self.archive.read(position, key, bands, window)

    def table(self) -> pa.Table:
        """The rows of each location's first season, with the files and the time of every season."""
        rows = self.archive.table()
        first = rows.take(pa.array(self._positions[:, 0]))
        kept = [name for name in first.column_names if name != "season" and not name.startswith("asset:")]
        columns = {name: first[name] for name in kept} | {"id": pa.array(self.ids.tolist(), pa.string())}
        for name, (key, season) in self._parts.items():
            part = pa.array(self._positions[:, season])
            columns[f"asset:{name}"] = rows[f"asset:{key}"].take(part)
            columns[f"time:{name}"] = rows["time"].take(part)
        return pa.table(columns)

    def _part(self, index: int, sensor: str) -> tuple[int, str]:
        if sensor not in self._parts:
            raise BandError(f"{self.archive.source['root']} has no sensor {sensor!r}.{nearest(sensor, self._parts)}")
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of an archive of {len(self)} samples")
        key, season = self._parts[sensor]
        return int(self._positions[index, season]), key


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
