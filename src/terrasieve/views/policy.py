"""Which bands each view of each sample shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrasieve.errors import BandError
from terrasieve.sensors import Sensor, find_sensor
from terrasieve.views.recipe import BandPick, Channel, ViewRecipe, ViewSpec


@dataclass(frozen=True)
class _Slot:
    """One pick of one rendered view, resolved against the archive.

    Attributes:
        view: Position of the rendered view that it belongs to, from 0.
        name: The view's name, for messages.
        columns: The channels of the view that it fills.
        pool: The bands that it draws from, each once.
        count: How many distinct members it draws; the rest of its columns are copies.
    """

    view: int
    name: str
    columns: slice
    pool: tuple[Channel, ...]
    count: int

    @property
    def copies(self) -> int:
        """Number of columns that repeat a member."""
        return int(self.columns.stop - self.columns.start) - self.count


class BandPolicy:
    """Draws the bands of all views of a batch.

    Within a view no band appears twice, except as a copy that ``fill`` asked for. With ``distinct_bands`` the
    same holds over all views of a sample.

    Args:
        recipe: Which bands each view picks from, and whether the views of a sample share any.
        sensors: The archive's sensors by their key in the archive.

    Attributes:
        channels: For each rendered view, every band that it may show.
        names: Every band that any view may show, each once.

    Raises:
        BandError: The archive lacks a sensor or band, or a pick cannot be met for every sample.
    """

    def __init__(self, recipe: ViewRecipe, sensors: Mapping[str, Sensor]) -> None:
        views = recipe.views
        slots = [slot for i, view in enumerate(views) for slot in _slots(i, view, sensors)]
        self.channels: tuple[tuple[Channel, ...], ...] = tuple(
            tuple(dict.fromkeys(channel for slot in slots if slot.view == i for channel in slot.pool))
            for i in range(len(views))
        )
        self.names: tuple[Channel, ...] = tuple(dict.fromkeys(channel for view in self.channels for channel in view))
        self._widths = [view.channels for view in views]
        self._distinct = recipe.distinct_bands
        # Those with the least choice draw first, so that others do not take what they cannot do without.
        self._slots = sorted(slots, key=lambda slot: len(slot.pool) - slot.count)
        self._check()

    def draw(self, rng: np.random.Generator, samples: int) -> tuple[NDArray[np.int64], ...]:
        """Bands of every view.

        Args:
            rng: Draws every slot of all samples in turn, so that a sample's bands depend on how many there are.
            samples: Samples of the batch, over all processes.

        Returns:
            For each rendered view an array ``(samples, channels)`` of positions in ``self.channels[view]``.
        """
        drawn = [np.zeros((samples, width), dtype=np.int64) for width in self._widths]
        taken = [np.zeros((samples, len(self.names)), dtype=bool) for _ in self._widths]
        for slot in self._slots:
            used = taken[0 if self._distinct else slot.view]
            everywhere = _positions(slot.pool, self.names)
            members = _draw_members(rng, used[:, everywhere], slot.count)
            np.put_along_axis(used, everywhere[members], values=True, axis=1)
            copied = rng.integers(0, slot.count, (samples, slot.copies))
            members = np.concatenate([members, np.take_along_axis(members, copied, axis=1)], axis=1)
            drawn[slot.view][:, slot.columns] = _positions(slot.pool, self.channels[slot.view])[members]
        return tuple(drawn)

    def _check(self) -> None:
        for i, slot in enumerate(self._slots):
            rivals = [rival for rival in self._slots[:i] if self._distinct or rival.view == slot.view]
            left = len(slot.pool) - sum(min(rival.count, len({*rival.pool} & {*slot.pool})) for rival in rivals)
            if left < slot.count:
                raise BandError(
                    f"View {slot.name!r} wants {slot.count} of {_listed(slot.pool)}, but the other picks "
                    f"{'and views ' if self._distinct else ''}may leave only {max(left, 0)}. "
                    f"Lower a count{', set distinct_bands to false' if self._distinct else ''} or widen bands."
                )


def _slots(index: int, view: ViewSpec, sensors: Mapping[str, Sensor]) -> Iterator[_Slot]:
    start = 0
    for pick in view.picks:
        pool = _resolve(pick, view.name, sensors)
        yield _Slot(index, view.name, slice(start, start + pick.count), pool, min(pick.count, len(pool)))
        start += pick.count


def _resolve(pick: BandPick, view: str, sensors: Mapping[str, Sensor]) -> tuple[Channel, ...]:
    key = find_sensor(sensors, pick.sensor)
    pool = tuple((key, band) for band in sensors[key].resolve(pick.bands))
    if not pool:
        raise BandError(f"View {view!r} picks from an empty list of bands of {key!r}; name at least one, or 'all'.")
    if pick.count > len(pool) and not pick.fill:
        raise BandError(
            f"View {view!r} wants {pick.count} distinct bands of {_listed(pool)}, which are only {len(pool)}. "
            "Lower count, widen bands, or set fill to true to repeat some at random."
        )
    return pool


def _listed(pool: Sequence[Channel]) -> str:
    return ", ".join(f"{key}:{band}" for key, band in pool)


def _positions(pool: Sequence[Channel], table: Sequence[Channel]) -> NDArray[np.int64]:
    return np.array([table.index(channel) for channel in pool], dtype=np.int64)


def _draw_members(rng: np.random.Generator, taken: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Positions ``(n, count)`` of distinct members not ``taken`` ``(n, pool)``; every such draw is as likely."""
    samples, size = taken.shape
    # Members go by random keys below 1; those taken already have a higher one and come last.
    keys = np.where(taken, 2.0, rng.random((samples, size)))
    if count == size:
        return np.tile(np.arange(size), (samples, 1))
    return np.argsort(keys, axis=1)[:, :count]
