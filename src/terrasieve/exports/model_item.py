"""A STAC item for an exported model, after the Machine Learning Model extension.

https://github.com/stac-extensions/mlm, version 1.5.2. Nobody knows for what places and times a model is fit: the item
has no geometry, and its time is that of its making.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import torch

from terrasieve.archive.stac.publishing import STAC_VERSION
from terrasieve.exports.prepared import ChannelMeaning, ModelInterface

EXTENSION = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
FILE_EXTENSION = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
TASK = "similarity-search"
"""Of the tasks that the extension knows the one that features serve without further training."""
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]")
"""What the extension takes for a name."""
_UNITS = {"reflectance_e4": "reflectance * 10000", "db": "dB", "linear": "1", "reflectance": "1", "index": "1"}


def model_item(
    interface: ModelInterface, asset: Mapping[str, Any], made: datetime, licence: str = "other"
) -> dict[str, Any]:
    """The item as JSON values.

    Args:
        interface: What the model takes and gives.
        asset: Of the model's file: ``href`` relative to the item, ``type``, ``mlm:artifact_type``, ``file:size`` and
            ``file:checksum``.
        made: When the model was exported, with its time zone.
        licence: An SPDX identifier of the weights, or ``other``.
    """
    names = [band.name for band in interface.bands]
    size, channels = interface.size, len(names)
    cleaned = re.sub(r"[^a-zA-Z0-9_.\-]+", "-", interface.recipe).strip("_.-")
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [EXTENSION, FILE_EXTENSION],
        "id": f"{interface.recipe}-{(interface.weights_sha256 or 'unknown')[:12]}",
        "geometry": None,
        "properties": {
            "datetime": made.isoformat().replace("+00:00", "Z"),
            "description": f"Features of {interface.bands[0].sensor} images ({', '.join(names)}), learnt without "
            f"labels by {interface.method}.",
            "license": licence,
            # The extension looks for names here, STAC for what is said of bands at the asset.
            "bands": [{"name": name} for name in names],
            "mlm:name": cleaned if _NAME.fullmatch(cleaned) else f"encoder-{cleaned or 'unnamed'}",
            "mlm:architecture": interface.backbone,
            "mlm:tasks": [TASK],
            "mlm:framework": "pytorch",
            "mlm:framework_version": torch.__version__.partition("+")[0],
            "mlm:total_parameters": interface.parameters,
            "mlm:pretrained": True,
            "mlm:input": [
                {
                    "name": f"{interface.bands[0].sensor}: {', '.join(names)}",
                    "bands": names,
                    "input": {
                        "shape": [-1, channels, size, size],
                        "dim_order": ["batch", "bands", "height", "width"],
                        "data_type": "float32",
                    },
                    **_scaling(interface),
                }
            ],
            "mlm:output": [
                {
                    "name": "features",
                    "tasks": [TASK],
                    "result": {
                        "shape": [-1, interface.features],
                        "dim_order": ["batch", "embedding"],
                        "data_type": "float32",
                    },
                }
            ],
        },
        "links": [],
        "assets": {
            "model": {**asset, "roles": ["mlm:model"], "bands": [_band(band) for band in interface.bands]},
        },
    }


def _band(band: ChannelMeaning) -> dict[str, Any]:
    known = {"nodata": band.nodata, "unit": _UNITS.get(band.unit, band.unit)}
    return {
        "name": band.name,
        **{name: value for name, value in known.items() if value is not None},
        "statistics": {"mean": band.mean, "stddev": band.std},
    }


def _scaling(interface: ModelInterface) -> dict[str, Any]:
    """What the caller does to the values; where the model does it itself there is nothing to scale."""
    if interface.applied == "inside":
        return {}
    ranges = {"minimum": [band.low for band in interface.bands], "maximum": [band.high for band in interface.bands]}
    return {
        "pre_processing_function": {
            "format": "clip",
            "expression": ranges,
            "description": "Clip each band; missing pixels (NaN, infinite or nodata) become the mean of their band.",
        },
        "value_scaling": [{"type": "z-score", "mean": band.mean, "stddev": band.std} for band in interface.bands],
    }
