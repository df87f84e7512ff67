"""Vectors to look at: in the plane, and where on the Earth their samples lie."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray

from terrasieve.embeddings.tsne import describe_tsne, tsne
from terrasieve.errors import ConfigError
from terrasieve.pictures import Picture
from terrasieve.streams import Stream, generator

if TYPE_CHECKING:
    import folium

_CLASSES = 20
"""Distinct values up to which each has a colour of its own; more are drawn on a scale."""
_DOT = 9.0


def draw_plane(vectors: NDArray[np.float32], values: NDArray[Any], samples: int, seed: int) -> Picture:
    """A scatter plot of vectors by t-SNE.

    Args:
        vectors: Shape ``(n, features)``.
        values: What each dot's colour tells, ``(n,)``: texts or whole numbers for classes, else numbers or times.
        samples: How many are drawn at most, at random.
        seed: Of the draw and of t-SNE.

    Raises:
        ConfigError: There are fewer than five vectors, or all point the same way.
    """
    chosen = _drawn(len(vectors), samples, seed)
    places = tsne(vectors[chosen], seed)
    figure = Figure(figsize=(7.5, 6))
    axes = figure.add_subplot()
    for name, colour, mask in _groups(values[chosen]):
        axes.scatter(places[mask, 0], places[mask, 1], s=_DOT, color=colour, label=name, linewidths=0)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    axes.set_axis_off()
    axes.set_title(f"{len(chosen):,} of {len(vectors):,} samples", fontsize=10, loc="left")
    figure.text(0.01, 0.01, describe_tsne(len(chosen), seed), fontsize=5, color="0.4")
    figure.tight_layout()
    return Picture(figure, f"{len(chosen):,} samples by t-SNE")


def draw_map(frame: gpd.GeoDataFrame, values: NDArray[Any], samples: int, seed: int) -> folium.Map:
    """A map on which every sample is a dot.

    Args:
        frame: Samples with ``id`` and outlines in longitude and latitude, some of which may be missing.
        values: What each dot's colour tells, as in :func:`draw_plane`, ``(n,)``.
        samples: How many are drawn at most, at random.
        seed: Of the draw.

    Raises:
        ConfigError: No sample says where it lies, or folium is not installed.
    """
    if find_spec("folium") is None:
        raise ConfigError("A map needs folium: pip install 'terrasieve[maps]'.")
    import folium

    placed = np.flatnonzero(frame.geometry.notna().to_numpy())
    if not len(placed):
        raise ConfigError("No sample says where it lies, so there is nothing to put on a map; plot() needs no places.")
    chosen = placed[_drawn(len(placed), samples, seed)]
    bounds = frame.geometry.iloc[chosen].bounds
    # Latitude first. The middle of an outline in degrees is all the centre that a dot needs.
    points = np.stack([bounds[["miny", "maxy"]].mean(axis=1), bounds[["minx", "maxx"]].mean(axis=1)])
    drawn = folium.Map(tiles="OpenStreetMap", prefer_canvas=True)
    for name, colour, mask in _groups(values[chosen]):
        for place, sample in zip(points.T[mask].tolist(), frame["id"].iloc[chosen[mask]], strict=True):
            folium.CircleMarker(
                place, radius=4, weight=0, fill=True, fill_opacity=0.8, fill_color=colour, tooltip=f"{sample}: {name}"
            ).add_to(drawn)
    (south, west), (north, east) = points.min(axis=1).tolist(), points.max(axis=1).tolist()
    drawn.fit_bounds([(south, west), (north, east)])
    return drawn


def _drawn(count: int, samples: int, seed: int) -> NDArray[np.int64]:
    """Positions of at most so many, in order."""
    if count <= samples:
        return np.arange(count)
    return np.sort(generator(Stream.DRAWN_SAMPLES, seed).permutation(count)[:samples])


def _groups(values: NDArray[Any]) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Name, colour and members of what is drawn in one colour."""
    known = pd.Series(values)
    ordered = pd.api.types.is_numeric_dtype(known) or pd.api.types.is_datetime64_any_dtype(known)
    return _steps(known) if ordered and known.nunique() > _CLASSES else _classes(known.astype("string"))


def _steps(known: pd.Series[Any]) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Numbers or times in ten steps of equal length."""
    cut = pd.cut(known, bins=10)
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 1, len(cut.cat.categories)))
    steps = [
        (str(step), to_hex(shade), (cut == step).to_numpy())
        for step, shade in zip(cut.cat.categories, shades, strict=True)
    ]
    return [step for step in steps if step[2].any()]


def _classes(names: pd.Series[str]) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Classes in the order of their names; all but the most frequent share one grey."""
    names = names.fillna("unknown")
    counted = names.value_counts()
    shown = sorted(counted.index[:_CLASSES])
    palette = matplotlib.colormaps["tab20"](np.arange(_CLASSES))
    groups = [(name, to_hex(palette[place]), (names == name).to_numpy()) for place, name in enumerate(shown)]
    rest = ~names.isin(shown).to_numpy()
    return [*groups, (f"{len(counted) - len(shown)} others", "#bbbbbb", rest)] if rest.any() else groups
