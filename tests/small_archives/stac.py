"""Item collections with files beside them; that files may lie on a server changes nothing that an archive promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from small_archives.making import Bench, makes, write_tif
from terrasieve.archive.layouts.stac import StacSensor, StacSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive
from terrasieve.sensors import SENSORS


def noise(seed: int, bands: int = 1, side: int = 512) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(1, 10_000, (bands, side, side)).astype(np.uint16)


def asset(href: str, *names: str, **more: Any) -> dict[str, Any]:
    """A GeoTIFF with these bands."""
    return {
        "href": href,
        "type": "image/tiff",
        "roles": ["data"],
        "eo:bands": [{"name": name} for name in names],
        **more,
    }


def item(name: str, assets: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": None,
        "properties": {"datetime": "2020-06-01T10:00:00Z", **properties},
        "links": [],
        "assets": assets,
    }


def collection(path: Path, *items: dict[str, Any]) -> Path:
    """Write items as a saved search has them, and give the path."""
    path.write_text(json.dumps({"type": "FeatureCollection", "stac_version": "1.0.0", "features": list(items)}))
    return path


@makes("stac")
def stac(bench: Bench) -> Archive:
    """Two items of four tiles, with a band of 20 m."""
    sensor = SENSORS["s2-l2a"].select("B04", "B02", "B11")
    items = []
    for place, name in enumerate("ab"):
        assets = {}
        for number, band in enumerate(sensor.bands):
            file, step = f"{name}-{band.name}.tif", int(band.gsd) // 10
            pixels = noise(10 * place + number, side=128 // step)
            write_tif(bench.folder / file, pixels, resolution=band.gsd)
            assets[band.name.lower()] = asset(file, band.name)
        items.append(item(name, assets))
    path = collection(bench.folder / "items.json", *items)
    return open_archive(StacSpec(root=path, sensors={"s2": StacSensor(sensor=sensor)}, tile=64))
