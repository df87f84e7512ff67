"""When a scene was taken, as its file name or metadata state it."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from terrasieve.archive.readers.geotiff import Header

_COMPACT = re.compile(r"(?<!\d)((?:19|20)\d{6})(?:T(\d{6}))?(?!\d)")
_TAGS = ("ACQUISITION_DATETIME", "SENSING_TIME", "DATETIME", "ACQUISITION_DATE", "PRODUCT", "PRODUCT_URI")
_SOFTWARE_TAGS = ("TIFFTAG_DATETIME",)
_FORMATS = ("%Y:%m:%d %H:%M:%S", "%d.%m.%Y", "%Y/%m/%d")


def acquisition_time(header: Header) -> datetime | None:
    """Acquisition time in UTC, or None where the file does not state it.

    Tried in this order: a date such as ``20200917T183541`` or ``20200917`` in the file's name, the product
    name and acquisition tags, the TIFF's own DateTime, which some software sets to the time of writing.
    A source that states a time of day is preferred to one that states the day only.
    """
    texts = [header.path.stem, *(header.tags.get(tag, "") for tag in _TAGS)]
    found = [time for text in texts if (time := parse_time(text))]
    exact = [time for time in found if (time.hour, time.minute, time.second) != (0, 0, 0)]
    own = exact or found
    if own:
        return own[0]
    return next((time for tag in _SOFTWARE_TAGS if (time := parse_time(header.tags.get(tag, "")))), None)


def parse_time(text: str) -> datetime | None:
    """The first date in a text: compact, ISO 8601, TIFF's form or day.month.year; None where there is none."""
    if not text:
        return None
    for day, clock in _COMPACT.findall(text):
        try:
            return datetime.strptime(day + (clock or "000000"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            continue
    return _parse_whole(text.strip())


def _parse_whole(text: str) -> datetime | None:
    for form in _FORMATS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
