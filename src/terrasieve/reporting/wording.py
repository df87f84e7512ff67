"""Numbers, lists and dates as the page writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

_SHOWN_NAMES = 4


def listed(names: Sequence[str], most: int = _SHOWN_NAMES) -> str:
    """``a, b and c``; beyond ``most`` names, the first ones and how many more."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def percent(share: float, digits: int = 0) -> str:
    """A share from 0 to 1 in per cent, which no line break parts from its sign."""
    return f"{100 * share:z.{digits}f}\u00a0%"


def number(value: float, digits: int = 4) -> str:
    """A measured value with so many significant digits; ``NaN`` in words."""
    if not math.isfinite(value):
        return "not a number"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:z.{digits}g}"


def file_size(count: int) -> str:
    """A number of bytes in decimal units."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def duration(seconds: float) -> str:
    """Seconds in the two largest units that fit."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def day(timestamp: float) -> str:
    """The UTC day of a POSIX timestamp, for example ``21 November 2025``."""
    moment = datetime.fromtimestamp(timestamp, UTC)
    return f"{moment.day} {moment:%B %Y}"
