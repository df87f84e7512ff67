"""A comparison of two models in words, and as JSON can hold it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from terrasieve.errors import ArchiveError
from terrasieve.files.writing import write_text
from terrasieve.probes.significance import ALPHA, Comparison, PairedTest
from terrasieve.schema import read_json

NOTE = (
    "Bands of the same test samples are not independent, nor are seeds tested on the same samples: p values over them "
    "tend to be too small and intervals too narrow. Each interval is of its comparison alone; only p values are "
    "corrected for the number of comparisons."
)
"""What a table of comparisons says once."""


def sentence(comparison: Comparison) -> str:
    """The comparison in words, the better model first.

    Two models are called different only where the (corrected) p value of the paired t-test is below 0.05.
    """
    c = _better_first(comparison)
    conditions = f"{c.n} {c.over}"
    if c.t is None and c.wilcoxon is None:
        return f"{_lead(c)}, n = {conditions}: too few for a test."
    if not c.nonzero:
        return f"{c.name_a} and {c.name_b} are equal in each of {conditions}, p = 1."
    if c.t is None:
        assert c.wilcoxon is not None
        return (
            f"{_lead(c)} in each of {conditions}: every difference is equal, so a t-test does not apply; "
            f"{_p_of(c.wilcoxon, 'Wilcoxon signed-rank')}{_wilcoxon_limit(c)}."
        )
    finding = f"{_lead(c)}, {_p_of(c.t, 'paired t')}"
    if c.significant:
        return f"{finding}, n = {conditions}{_wilcoxon_limit(c) or _disagreement(c)}."
    told = f"{c.name_a} and {c.name_b} cannot be told apart over {conditions}: "
    return f"{told}{finding}{_wilcoxon_limit(c) or _disagreement(c)}."


def as_record(comparison: Comparison) -> dict[str, object]:
    """Everything about a comparison as JSON can hold it, with ``significant`` and the ``sentence``."""
    return {**asdict(comparison), "significant": comparison.significant, "sentence": sentence(comparison)}


def write_comparisons(found: Sequence[Comparison], path: Path) -> None:
    """Write every number of every comparison as a JSON list."""
    write_text(path, json.dumps([as_record(one) for one in found], indent=1) + "\n")


def read_comparisons(path: Path) -> tuple[Comparison, ...]:
    """The comparisons that :func:`write_comparisons` wrote.

    Raises:
        ArchiveError: The file is not there, damaged, or of a version with other fields.
    """
    found = []
    try:
        for record in read_json(path):
            values = {one.name: record[one.name] for one in fields(Comparison)}
            tests = {name: values[name] and PairedTest(**values[name]) for name in ("t", "wilcoxon")}
            found.append(Comparison(**{**values, **tests}))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArchiveError(
            f"{path} holds no comparisons of this version: {error!r}. Run the benchmark again."
        ) from error
    return tuple(found)


def _better_first(c: Comparison) -> Comparison:
    """The same comparison for words: the difference is scaled and counts how much better the first model is."""
    factor = c.scale if c.higher_is_better else -c.scale
    names = (c.name_a, c.name_b)
    if c.difference * factor < 0:
        factor, names = -factor, names[::-1]
    ends = sorted(end * factor for end in (c.low, c.high) if end is not None)
    low, high = ends or (None, None)
    return replace(c, name_a=names[0], name_b=names[1], difference=c.difference * factor, low=low, high=high)


def _lead(c: Comparison) -> str:
    """``A is above B by 2.1 points (95 % interval 0.9 to 3.3)`` of a comparison with the better model first."""
    remarks = [] if c.higher_is_better else ["lower is better"]
    decimals = _decimals(c.difference)
    if c.low is not None and c.high is not None:
        decimals = _decimals((c.high - c.low) / 2)
        remarks.append(f"95 % interval {_number(c.low, decimals)} to {_number(c.high, decimals)}")
    remark = f" ({'; '.join(remarks)})" if remarks else ""
    size = _number(c.difference, decimals)
    if not float(size):
        return f"{c.name_a} and {c.name_b} have {'nearly ' if c.difference else ''}the same mean{remark}"
    side = "above" if c.higher_is_better else "below"
    return f"{c.name_a} is {side} {c.name_b} by {f'{size} {c.unit}'.rstrip()}{remark}"


def _decimals(size: float) -> int:
    """Decimals that show two significant digits, the usual precision of an uncertainty."""
    return max(0, 1 - math.floor(math.log10(size))) if size else 0


def _number(value: float, decimals: int) -> str:
    return f"{value:z.{decimals}f}"


def _p_of(test: PairedTest, name: str) -> str:
    family = f", Holm-corrected over {test.family} comparisons" if test.family > 1 else ""
    return f"{_p_text(test.adjusted)} ({name}{family})"


def _p_text(p: float) -> str:
    if p < 0.001:
        return "p < 0.001"
    texts = (f"{p:.{decimals}f}" for decimals in range(2 if p >= 0.1 else 3, 18))
    # 0.04996 is not written as 0.050, on the other side of the level
    return "p = " + next(text for text in texts if (float(text) < ALPHA) == (p < ALPHA))


def _wilcoxon_limit(c: Comparison) -> str:
    needed = 1 + math.ceil(-math.log2(ALPHA))
    if c.nonzero >= needed:
        return ""
    return f"; the Wilcoxon test needs {needed} differences other than zero to reach {ALPHA} and has {c.nonzero}"


def _disagreement(c: Comparison) -> str:
    assert c.wilcoxon is not None
    if (c.wilcoxon.adjusted < ALPHA) == c.significant:
        return ""
    return f"; the Wilcoxon test disagrees, {_p_text(c.wilcoxon.adjusted)}"
