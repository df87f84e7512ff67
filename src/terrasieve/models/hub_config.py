"""The ``config.json`` by which timm finds an encoder in a folder, or in a repository of Hugging Face's hub.

The two calls::

    model = timm.create_model("local-dir:FOLDER", pretrained=True)
    model = timm.create_model("hf-hub:OWNER/NAME", pretrained=True)

timm 1.0.16 or later reads folders; any reads the hub.
"""

from __future__ import annotations

import json
from typing import Any

from terrasieve.models.backbone import BackboneSpec, Encoder
from terrasieve.runs import WEIGHTS

CONFIG = "config.json"
"""Its name in a folder or repository."""
_STANDARDISED = "Takes pixels that are standardised band by band, as encoder.json and README.md say."


def hub_config(encoder: Encoder, spec: BackboneSpec, image_size: int) -> bytes:
    """The file's content: the architecture, the arguments that build it, and where its weights are.

    Args:
        encoder: The encoder that ``spec`` describes.
        spec: Architecture and number of bands.
        image_size: Height and width, in pixels, of the views that it was trained on.
    """
    published: Any = getattr(encoder.model, "pretrained_cfg", None) or {}
    sized = published.get("fixed_input_size", False)
    # What the position embedding is laid out for, where there is one; timm's own size is not the same in all networks.
    size = spec.image_size or (published["input_size"][-1] if sized else None)
    arguments = {
        "in_chans": spec.channels,
        "img_size": size,
        "patch_size": spec.patch_size,
        "reg_tokens": spec.registers,
        "dynamic_img_size": True if sized else None,
    }
    config = {
        "architecture": spec.name,
        "num_classes": 0,
        "num_features": encoder.features,
        "model_args": {name: value for name, value in arguments.items() if value is not None},
        "pretrained_cfg": {
            "tag": "terrasieve",
            "hf_hub_filename": WEIGHTS,
            "custom_load": False,
            "input_size": [spec.channels, size or image_size, size or image_size],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": [0.0] * spec.channels,
            "std": [1.0] * spec.channels,
            "num_classes": 0,
            # With its name older versions of timm would take the first layer for one of three bands, and not load it.
            "first_conv": None,
            "classifier": published.get("classifier"),
            "description": _STANDARDISED,
        },
    }
    return json.dumps(config, indent=1).encode()
