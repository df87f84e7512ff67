"""Which bands each view of each sample shows: a recipe's picks, drawn for a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrasieve.errors import BandError
from terrasieve.sensors import Sensor, find_sensor
from terrasieve.views.recipe import BandPick, ViewRecipe, ViewSpec

Channel = tuple[str, str]
"""A sensor's key in the archive, and the name of one of its bands."""


@dataclass(frozen=True)
class _Drawn:
    """Bands of one sensor that may fill the channels of a pick.

    Attributes:
        pool: The bands that it draws from, each once.
        count: How many distinct members it draws.
        copies: How many channels repeat one of these.
    """

    pool: tuple[Channel, ...]
    count: int
    copies: int

    @property
    def spare(self) -> int:
        """Number of members that are left over."""
        return len(self.pool) - self.count

    def takes(self, pool: Sequence[Channel]) -> int:
        """How many members of another pool it takes at most."""
        return min(self.count, len({*self.pool} & {*pool}))


@dataclass(frozen=True)
class _Slot:
    """One pick of one rendered view, resolved against the archive.

    Attributes:
        view: Position of the rendered view that it belongs to, from 0.
        name: The view's name, for messages.
        columns: The channels of the view that it fills.
        choices: What fills them, of which each sample shows one.
        shares: How often each choice is drawn, as shares that sum to 1.
    """

    view: int
    name: str
    columns: slice
    choices: tuple[_Drawn, ...]
    shares: tuple[float, ...]


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
            tuple(dict.fromkeys(band for slot in slots if slot.view == i for one in slot.choices for band in one.pool))
            for i in range(len(views))
        )
        self.names: tuple[Channel, ...] = tuple(dict.fromkeys(channel for view in self.channels for channel in view))
        self._widths = [view.channels for view in views]
        self._distinct = recipe.distinct_bands
        # Those with the least choice draw first, so that others do not take what they cannot do without.
        self._slots = sorted(slots, key=lambda slot: min(choice.spare for choice in slot.choices))
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
        # What each view of each sample shows already; with distinct bands all views share the first table.
        taken = [np.zeros((samples, len(self.names)), dtype=bool) for _ in self._widths]
        for slot in self._slots:
            used = taken[0 if self._distinct else slot.view]
            table = self.channels[slot.view]
            shown = _draw_choices(rng, slot.shares, samples)
            for i, choice in enumerate(slot.choices):
                everywhere = _positions(choice.pool, self.names)
                # Drawn for all samples, so that what others show does not depend on who shows this choice.
                members = _draw_members(rng, used[:, everywhere], choice.count)
                copied = rng.integers(0, choice.count, (samples, choice.copies))
                columns = np.concatenate([members, np.take_along_axis(members, copied, axis=1)], axis=1)
                rows = np.flatnonzero(shown == i)
                used[rows[:, None], everywhere[members[rows]]] = True
                drawn[slot.view][rows, slot.columns] = _positions(choice.pool, table)[columns[rows]]
        return tuple(drawn)

    def _check(self) -> None:
        for i, slot in enumerate(self._slots):
            # The worst case: those that draw before take all that they can of this pool.
            rivals = [rival for rival in self._slots[:i] if self._distinct or rival.view == slot.view]
            for choice in slot.choices:
                taken = sum(max(other.takes(choice.pool) for other in rival.choices) for rival in rivals)
                left = len(choice.pool) - taken
                if left < choice.count:
                    raise BandError(
                        f"View {slot.name!r} wants {choice.count} of {_listed(choice.pool)}, but the other picks "
                        f"{'and views ' if self._distinct else ''}may leave only {max(left, 0)}. "
                        f"Lower a count{', set distinct_bands to false' if self._distinct else ''} or widen bands."
                    )


def _slots(index: int, view: ViewSpec, sensors: Mapping[str, Sensor]) -> Iterator[_Slot]:
    start = 0
    for pick in view.picks:
        choices = tuple(_resolve(one, view.name, sensors) for one in pick.alternatives)
        yield _Slot(index, view.name, slice(start, start + pick.count), choices, pick.shares)
        start += pick.count


def _resolve(pick: BandPick, view: str, sensors: Mapping[str, Sensor]) -> _Drawn:
    key = find_sensor(sensors, pick.sensor)
    pool = tuple((key, band) for band in sensors[key].resolve(pick.bands))
    if not pool:
        raise BandError(f"View {view!r} picks from an empty list of bands of {key!r}; name at least one, or 'all'.")
    if pick.count > len(pool) and not pick.fill:
        raise BandError(
            f"View {view!r} wants {pick.count} distinct bands of {_listed(pool)}, which are only {len(pool)}. "
            "Lower count, widen bands, or set fill to true to repeat some at random."
        )
    count = min(pick.count, len(pool))
    return _Drawn(pool, count, pick.count - count)


def _listed(pool: Sequence[Channel]) -> str:
    return ", ".join(f"{key}:{band}" for key, band in pool)


def _positions(pool: Sequence[Channel], table: Sequence[Channel]) -> NDArray[np.int64]:
    return np.array([table.index(channel) for channel in pool], dtype=np.int64)


def _draw_choices(rng: np.random.Generator, shares: Sequence[float], samples: int) -> NDArray[np.int64]:
    """Position ``(n,)`` of the choice that each sample shows; where there is one alone, nothing is drawn."""
    if len(shares) == 1:
        return np.zeros(samples, dtype=np.int64)
    # The last share is left out: it ends at 1, but for rounding.
    return np.searchsorted(np.cumsum(shares[:-1]), rng.random(samples), side="right")


def _draw_members(rng: np.random.Generator, taken: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Positions ``(n, count)`` of distinct members not ``taken`` ``(n, pool)``; every such draw is as likely."""
    samples, size = taken.shape
    # Members go by random keys below 1; those taken already have a higher one and come last.
    keys = np.where(taken, 2.0, rng.random((samples, size)))
    # All of them, in the order given. The keys are drawn all the same, so that later draws do not depend on this.
    if count == size:
        return np.tile(np.arange(size), (samples, 1))
    return np.argsort(keys, axis=1)[:, :count]
