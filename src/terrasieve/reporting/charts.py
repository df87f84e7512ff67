"""Charts as plain Plotly JSON whose colours are names of the page's CSS variables.

The page's script puts the variables' values in place, so that one figure serves light, dark and paper.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Trace = Mapping[str, Any]
Colour = str

ACCENT: Colour = "var(--accent)"
MUTED: Colour = "var(--muted)"
FAINT: Colour = "var(--faint)"
INK: Colour = "var(--ink)"
HEAT = tuple([position / 4, f"var(--heat-{position})"] for position in range(5))
CLASS_COLOURS = 10
"""Colours that stand for classes of samples, and for nothing else."""
OTHER_COLOURS = 5
"""Colours that stand for models other than the trained one and its floors."""
RUN_COLOURS = 6
"""Colours that stand for runs that are drawn over one another."""
KEPT: Colour = "var(--kept)"
DROPPED: Colour = "var(--dropped)"
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "pentagon", "cross", "hexagon")
_DIGITS = 6
_STRONG = 0.72
"""Share of the strongest colour from which texts on it change theirs."""


@dataclass(frozen=True)
class Chart:
    """A figure with what it says in words.

    Attributes:
        id: Identifier of the chart, unique on the page.
        title: Heading of the chart.
        alt: What the chart shows, in words, for those who do not see it.
        traces: Plotly traces, drawn in this order.
        layout: Plotly layout, which goes before the page's defaults.
        height: Height of the chart in pixels.
        group: What a list of choices says before the title; empty where the title says all.
        width: Least width in pixels; a narrower page scrolls the chart in its own box. 0 sets no limit.
        samples: Id, label and picture of the sample behind each point, which the page shows beside the chart.
    """

    id: str
    title: str
    alt: str
    traces: tuple[Trace, ...]
    layout: Mapping[str, Any]
    height: int = 320
    group: str = ""
    width: int = 0
    samples: tuple[tuple[str, str, str], ...] = ()

    @property
    def figure(self) -> dict[str, Any]:
        """What the page's script draws."""
        return {"data": list(self.traces), "layout": {**self.layout, "height": self.height}}


@dataclass(frozen=True)
class Choice:
    """Charts of which the page shows one at a time.

    Attributes:
        id: Identifier of the choice, unique on the page.
        label: What kind of thing is chosen, such as ``Round``.
        charts: At least one chart; the page shows the first until another is chosen.
    """

    id: str
    label: str
    charts: tuple[Chart, ...]


def plain(text: str) -> str:
    """Text that Plotly must show as it is: it reads markup in labels."""
    return html.escape(text, quote=False)


def finite(values: Iterable[float | None]) -> list[float | None]:
    """Values fit for JSON, in as many digits as a screen can show; None where there is nothing to draw."""
    return [None if value is None or not math.isfinite(value) else float(f"{value:z.{_DIGITS}g}") for value in values]


def class_marker(label: str, classes: Sequence[str], size: int = 7) -> dict[str, Any]:
    """Colour and symbol of a class, the same in every chart of a run; two classes of one colour differ in symbol.

    Args:
        label: Name of the class; one that is not of the run's classes is grey.
        classes: The run's classes in a fixed order.
        size: Size of the marker in pixels.
    """
    if label not in classes:
        return {"color": FAINT, "symbol": "circle", "size": size}
    position = classes.index(label)
    turn = position // CLASS_COLOURS
    symbol = _SYMBOLS[(position + turn) % len(_SYMBOLS)]
    return {"color": f"var(--class-{position % CLASS_COLOURS})", "symbol": symbol, "size": size}


def axis(title: str = "") -> dict[str, Any]:
    """An axis in the page's style."""
    return {
        "title": {"text": plain(title), "standoff": 8},
        "gridcolor": "var(--grid)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "automargin": True,
    }


def chance_mark(at: float, name: str, upright: bool) -> dict[str, Any]:
    """A dotted line across the chart where chance would be, with its name in the legend.

    Args:
        at: Place of the line on its axis.
        name: What the legend calls it.
        upright: Whether it stands on the horizontal axis; else it lies at a height of the vertical one.
    """
    along, across = ("x", "y") if upright else ("y", "x")
    return {
        "type": "line",
        f"{along}ref": along,
        f"{across}ref": "paper",
        f"{along}0": at,
        f"{along}1": at,
        f"{across}0": 0,
        f"{across}1": 1,
        "line": {"color": "var(--chance)", "width": 1.5, "dash": "dot"},
        "name": name,
        "showlegend": True,
    }


def heatmap(
    values: Sequence[Sequence[float | None]],
    columns: Sequence[str],
    rows: Sequence[str],
    texts: Sequence[Sequence[str]],
    hover: str,
    largest: float,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Traces of coloured cells and of the numbers in them.

    Args:
        values: Number behind the colour of each cell, shape ``(rows, columns)``; None leaves a cell blank.
        columns: Names of the columns, left to right.
        rows: Names of the rows, top to bottom.
        texts: Text in each cell, shape ``(rows, columns)``; an empty one writes nothing.
        hover: Plotly template of the text that is shown where the pointer is.
        largest: Value of the strongest colour, above 0; 0 has the weakest.
    """
    cells = {
        "type": "heatmap",
        "z": [finite(row) for row in values],
        "x": [plain(name) for name in columns],
        "y": [plain(name) for name in rows],
        "hovertemplate": hover,
        "zmin": 0,
        "zmax": largest,
        "colorscale": [list(stop) for stop in HEAT],
        "xgap": 1,
        "ygap": 1,
        "showscale": False,
    }
    return cells, _cell_texts(values, columns, rows, texts, largest)


def _cell_texts(
    values: Sequence[Sequence[float | None]],
    columns: Sequence[str],
    rows: Sequence[str],
    texts: Sequence[Sequence[str]],
    largest: float,
) -> dict[str, Any]:
    # Plotly's own texts of a heatmap take colours that do not stand out from their cells.
    places = [(i, j) for i in range(len(rows)) for j in range(len(columns)) if texts[i][j]]
    strong = [(values[i][j] or 0) > _STRONG * largest for i, j in places]
    return {
        "type": "scatter",
        "mode": "text",
        "x": [plain(columns[j]) for _, j in places],
        "y": [plain(rows[i]) for i, _ in places],
        "text": [texts[i][j] for i, j in places],
        "textfont": {"color": ["var(--on-heat)" if one else INK for one in strong], "size": 11},
        "hoverinfo": "skip",
        "showlegend": False,
    }
