"""What an archive holds, as tables for the screen and as a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.text import Text

from terrasieve.archive.protocol import Archive, source_name
from terrasieve.archive.quicklook import pictures, shown_bands
from terrasieve.archive.statistics import measure
from terrasieve.files.writing import write_whole
from terrasieve.sensors import BandStatistics
from terrasieve.tables import Table, row_of

_MEASURED_SAMPLES = 256
"""Samples that statistics are taken from where no one has measured all."""
_PANEL_INCHES = 1.15
_SHEET_PANELS_ACROSS = 12
_BAR_WIDTH = 30


def describe(archive: Archive) -> RenderableType:
    """Tables to print: what the archive is, its sensors and bands, its labels.

    Statistics are the packed store's own where there are any, else those of at most 256 samples spread
    evenly over the archive.
    """
    table = archive.table()
    parts: list[RenderableType] = []
    if archive.source.get("simulated"):
        parts.append(Text("SIMULATED: no pixel of this archive was measured by a satellite.", style="bold yellow"))
    parts += [_facts(archive, table), _bands(archive)]
    if table["label"].null_count < len(table):
        parts.append(_labels(table))
    return Group(*parts)


def contact_sheet(archive: Archive, path: Path, samples: int = 24) -> Path:
    """Write a PNG of samples spread evenly over the archive, the sensors of each side by side.

    Optical bands B04, B03, B02 make a true-colour picture; of other sensors the first band is grey, and of a
    map every class has a colour. A sensor's pictures share one stretch, so that they can be compared.

    Args:
        archive: Pixels of the samples shown are read.
        path: The PNG to write.
        samples: Number of samples shown, where the archive has as many.

    Returns:
        ``path``.

    Raises:
        SampleError: A sample that is to be shown cannot be read.
    """
    figure = draw_samples(archive, spaced_evenly(len(archive), samples))
    with write_whole(path) as partial:
        figure.savefig(partial, format="png")
    return path


def draw_samples(archive: Archive, chosen: Sequence[int]) -> Figure:
    """Samples in panels, the sensors of each side by side, as :func:`contact_sheet` shows them.

    Args:
        archive: Pixels of the samples shown are read.
        chosen: Their indices, in the order of the panels; one or more.

    Raises:
        SampleError: A sample that is to be shown cannot be read.
    """
    columns = {
        key: pictures([archive.read(index, key, shown_bands(sensor)) for index in chosen], sensor)
        for key, sensor in archive.sensors.items()
    }
    across = max(1, min(len(chosen), _SHEET_PANELS_ACROSS // len(columns)))
    figure = _sheet(columns, [str(archive.ids[index]) for index in chosen], across)
    _headline(figure, archive, len(chosen))
    return figure


def spaced_evenly(total: int, wanted: int) -> list[int]:
    """At most ``wanted`` positions, evenly spread over ``total``, the first and last among them."""
    return sorted({int(i) for i in np.linspace(0, total - 1, min(total, wanted)).round()}) if total else []


def _facts(archive: Archive, table: pa.Table) -> Table:
    source = archive.source
    facts = {
        "samples": f"{len(archive):,}",
        "layout": f"{source.get('layout')}, {source.get('root') or 'no files'}",
        "sizes": _sizes(archive),
        "CRS": _list_counts(table["crs"]) or "unknown",
        "time": _time_span(table["time"]),
        "extent": _extent(table["geometry"]),
    }
    if table["split"].null_count < len(table):
        facts["splits"] = _list_counts(table["split"])
    if rejected := archive.rejected:
        facts["rejected"] = f"{sum(r.samples for r in rejected):,} samples; the first: {rejected[0].reason}"
    return Table("", ("", ""), tuple(row_of(*fact) for fact in facts.items()), align="ll")


def _sizes(archive: Archive) -> str:
    if not len(archive):
        return "none"
    return ", ".join(f"{key} {'x'.join(map(str, archive.shape(0, key)))} px" for key in archive.sensors)


def _list_counts(column: pa.ChunkedArray) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in _counts(column).items())


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value that is not null occurs, most frequent first."""
    pairs = pc.value_counts(column.drop_null()).to_pylist()
    return {pair["values"]: pair["counts"] for pair in sorted(pairs, key=lambda p: (-p["counts"], p["values"]))}


def _time_span(column: pa.ChunkedArray) -> str:
    span = pc.min_max(column).as_py()
    if span["min"] is None:
        return "unknown"
    return f"{span['min']:%Y-%m-%d} to {span['max']:%Y-%m-%d}"


def _extent(column: pa.ChunkedArray) -> str:
    outlines = shapely.from_wkb(column.drop_null().to_numpy(zero_copy_only=False))
    if not len(outlines):
        return "unknown"
    west, south, east, north = shapely.total_bounds(outlines)
    return f"longitude {west:.3f} to {east:.3f}, latitude {south:.3f} to {north:.3f}"


def _bands(archive: Archive) -> Table:
    statistics, measured = _statistics(archive)
    columns = ("sensor and band", "GSD m", "mean", "std", "min", "max")
    rows = []
    for key, sensor in archive.sensors.items():
        units = list(dict.fromkeys(band.unit for band in sensor.bands))
        rows.append(row_of(f"{key}: {sensor.name}, {', '.join(units)}", *[""] * (len(columns) - 1)))
        for band, numbers in zip(sensor.bands, statistics[key], strict=True):
            name = band.name if len(units) == 1 else f"{band.name} ({band.unit})"
            rows.append(row_of(f"  {name}", f"{band.gsd:g}", *_numbers(numbers, band.unit == "class")))
    return Table(f"Bands; statistics of {measured}", columns, tuple(rows))


def _numbers(statistics: BandStatistics, classes: bool) -> list[str]:
    """Mean, standard deviation, minimum and maximum; of class numbers the first two mean nothing."""
    if not statistics.count:
        return ["-"] * 4
    moments = ["-", "-"] if classes else [_short(statistics.mean), _short(statistics.std)]
    return [*moments, _short(statistics.minimum), _short(statistics.maximum)]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _statistics(archive: Archive) -> tuple[Mapping[str, Sequence[BandStatistics]], str]:
    if archive.statistics is not None:
        return archive.statistics, "all samples"
    chosen = spaced_evenly(len(archive), _MEASURED_SAMPLES)
    return measure(archive, indices=chosen), f"{len(chosen):,} samples"


def _labels(table: pa.Table) -> Table:
    counts = _counts(table["label"])
    most = max(counts.values())
    rows = (
        row_of(str(label), f"{count:,}", f"{count / len(table):.1%}", "\u2588" * round(_BAR_WIDTH * count / most))
        for label, count in counts.items()
    )
    return Table(f"Labels ({len(counts)})", ("label", "samples", "share", ""), tuple(rows), align="lrrl")


def _sheet(columns: Mapping[str, Sequence[Any]], names: Sequence[str], across: int) -> Figure:
    """Panels in rows of ``across`` samples, a gap between samples and none between a sample's sensors."""
    down = -(-len(names) // across)
    sensors = len(columns)
    figure = Figure(figsize=(_PANEL_INCHES * across * sensors + 0.4, (_PANEL_INCHES + 0.18) * down + 0.9))
    # Panels are placed by hand, and no engine is to move them.
    figure.set_layout_engine("none")
    outer = figure.add_gridspec(
        down,
        across,
        left=0.015,
        right=0.985,
        bottom=0.015,
        top=1 - 0.85 / figure.get_figheight(),
        wspace=0.04,
        hspace=0.17,
    )
    for number, name in enumerate(names):
        row, column = divmod(number, across)
        inner = outer[row, column].subgridspec(1, sensors, wspace=0.02)
        for place, (key, shown) in enumerate(columns.items()):
            axes = figure.add_subplot(inner[place])
            axes.imshow(shown[number], interpolation="nearest")
            axes.set_axis_off()
            if place == 0:
                axes.set_title(name, fontsize=5.5, loc="left", pad=2)
            if row == 0:
                axes.text(0.5, 1.16, key, transform=axes.transAxes, ha="center", fontsize=7, fontweight="bold")
    return figure


def _headline(figure: Figure, archive: Archive, shown: int) -> None:
    source = archive.source
    what = source_name(source)
    sensors = ", ".join(f"{key}: {sensor.name}" for key, sensor in archive.sensors.items())
    height = figure.get_figheight()
    figure.text(0.015, 1 - 0.2 / height, f"{what}: {shown} of {len(archive):,} samples", fontsize=10, va="center")
    figure.text(0.015, 1 - 0.42 / height, sensors, fontsize=7, color="0.35", va="center")
    if source.get("simulated"):
        figure.text(0.985, 1 - 0.2 / height, "SIMULATED", fontsize=10, color="#b35900", ha="right", va="center")
