"""When a scene was taken, as its file name, its metadata or the cell of a table state it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from terrasieve.archive.readers.geotiff import Header

_COMPACT = re.compile(r"(?<!\d)((?:19|20)\d{6})(?:[Tt](\d{6}|\d{4}(?!\d))(?:\.?\d{1,9})?)?(?!\d)")
_WHOLE = re.compile(
    r"(?:(?P<year>\d{4})(?P<mark>[-/:])(?P<month>\d{1,2})(?P=mark)(?P<day>\d{1,2})"
    r"|(?P<year_>(?:19|20)\d{2})(?P<month_>\d{2})(?P<day_>\d{2})"
    r"|(?P<_day>\d{1,2})\.(?P<_month>\d{1,2})\.(?P<_year>\d{4}))"
    r"(?:(?:[Tt]|\s+|(?<=\d{8})(?=\d{6}$))"
    r"(?P<hour>\d{2})(?::?(?P<minute>\d{2})(?::?(?P<second>\d{2})(?:[.,](?P<fraction>\d+))?)?)?"
    r"\s*(?P<zone>[Zz]|UTC|GMT|(?P<sign>[+-])(?P<hours>\d{2})(?::?(?P<minutes>\d{2}))?)?)?"
)
"""Date, or date and time of day, with or without an offset from UTC. 09/10/2020, a day in two months, is left out."""
_TAGS = ("ACQUISITION_DATETIME", "SENSING_TIME", "DATETIME", "ACQUISITION_DATE", "PRODUCT", "PRODUCT_URI")
_SOFTWARE_TAGS = ("TIFFTAG_DATETIME",)


def acquisition_time(header: Header) -> datetime | None:
    """Acquisition time in UTC, or None where the file does not state it.

    Tried in this order: a date such as ``20200917T183541`` or ``20200917`` in the file's name, the product
    name and acquisition tags, the TIFF's own DateTime, which some software sets to the time of writing.
    A source that states a time of day is preferred to one that states the day only.
    """
    texts = [header.path.stem, *(header.tags.get(tag, "") for tag in _TAGS)]
    found = [time for text in texts if (time := find_time(text))]
    exact = [time for time in found if (time.hour, time.minute, time.second) != (0, 0, 0)]
    own = exact or found
    if own:
        return own[0]
    return next((time for tag in _SOFTWARE_TAGS if (time := find_time(header.tags.get(tag, "")))), None)


def find_time(text: str) -> datetime | None:
    """The time that a text states as a whole, else the first compact date within it; None where there is none.

    Args:
        text: A name such as ``s1a-wv1-slc-vv-20200917t183541-010``, or the value of a tag.

    Returns:
        The time in UTC, which is also assumed where no zone is stated.
    """
    whole = parse_time(text)
    if whole is not None:
        return whole
    for day, clock in _COMPACT.findall(text):
        try:
            return datetime.strptime(day + clock.ljust(6, "0"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            continue
    return None


def parse_time(text: str) -> datetime | None:
    """The time that a text states, read from its first to its last character, or not at all.

    Args:
        text: Date alone, or date and time of day: ISO 8601, with a blank for its ``T`` or without its signs, the form
            of TIFF (``2020:09:17 18:35:41``), or day.month.year. Digits beyond microseconds are cut off.

    Returns:
        The time in UTC, which is also assumed where no zone is stated; None where the text is no such time.
    """
    match = _WHOLE.fullmatch(text.strip())
    if match is None:
        return None
    part = match.groupdict()
    year, month, day = (int(part[name] or part[f"{name}_"] or part[f"_{name}"]) for name in ("year", "month", "day"))
    hour, minute, second = (int(part[name] or 0) for name in ("hour", "minute", "second"))
    micro = int((part["fraction"] or "").ljust(6, "0")[:6])
    try:
        offset = timedelta(hours=int(part["hours"] or 0), minutes=int(part["minutes"] or 0))
        zone = timezone(-offset if part["sign"] == "-" else offset)
        return datetime(year, month, day, hour, minute, second, micro, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
