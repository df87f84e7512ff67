"""Segmentation: one class a pixel, from the maps of a frozen encoder."""

from __future__ import annotations

from terrasieve.probes.segmentation.deeplab import DeepLabProbe
from terrasieve.probes.segmentation.folds import hold_out, make_folds
from terrasieve.probes.segmentation.map_probe import PixelValues
from terrasieve.probes.segmentation.patch import PatchLinear
from terrasieve.probes.segmentation.segment import (
    evaluate_segmentation,
    segment,
    segmentation_probes_named,
    with_pixel_floor,
)
from terrasieve.probes.segmentation.task import prepare_segmentation, read_labels

__all__ = [
    "DeepLabProbe",
    "PatchLinear",
    "PixelValues",
    "evaluate_segmentation",
    "hold_out",
    "make_folds",
    "prepare_segmentation",
    "read_labels",
    "segment",
    "segmentation_probes_named",
    "with_pixel_floor",
]
