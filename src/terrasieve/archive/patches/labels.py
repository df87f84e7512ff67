"""Which texts name a class: all but those that stand for a value that is not there."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_NO_CLASS = ("", "nan", "nat", "<na>")
"""Small letters of what stands in a text where nothing was known, such as a NaN that was written as text."""


def is_class(text: str | None) -> bool:
    """Whether a text names a class: it is neither absent nor blank, and no NaN in writing."""
    return text is not None and text.strip().casefold() not in _NO_CLASS


def class_names(values: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Names of classes without blanks around them, null where a text names none.

    Args:
        values: Texts, or numbers that stand for classes.

    Returns:
        As many strings.
    """
    numbered = pa.types.is_floating(values.type)
    if numbered:
        values = pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type))
    texts = pc.utf8_trim_whitespace(values.cast(pa.string()))
    absent = pc.is_in(pc.utf8_lower(texts), value_set=pa.array(_NO_CLASS))
    return pc.if_else(absent, pa.scalar(None, pa.string()), texts)
