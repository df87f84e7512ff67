"""What the two papers printed, to stand beside what is measured here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedLine:
    """One line of a published table.

    Attributes:
        source: The paper and the table that the line is from.
        dataset: Name of the data set that was measured on.
        layout: Name of the archive layout that holds this data set; empty where none does.
        bands: What was shown to the models, as the paper calls it.
        names: The names of the same bands in this library.
        metric: A name of :data:`terrasieve.probes.metrics.METRIC_INFO`.
        values: Value of each model by its name, from 0 to 1 or in the unit of the target.
    """

    source: str
    dataset: str
    layout: str
    bands: str
    names: frozenset[str]
    metric: str
    values: Mapping[str, float]


RS_BYOL_TABLE_2 = "Jain et al. 2022, Table II"
_MODELS = ("scratch", "random", "ImageNet", "BYOL-ImageNet", "SeCo", "RS-BYOL-3 RGB-S1S2", "RS-BYOL-3 S1S2")
_RGB, _RED_EDGE, _SAR = frozenset({"B04", "B03", "B02"}), frozenset({"B05", "B06", "B07"}), frozenset({"VV", "VH"})
_F1 = (
    ("EuroSAT7K", "eurosat", "RGB", _RGB, (0.80, 0.46, 0.88, 0.88, 0.90, 0.84, 0.88)),
    ("EuroSAT7K", "eurosat", "RE5-6-7", _RED_EDGE, (0.86, 0.44, 0.87, 0.83, 0.85, 0.80, 0.88)),
    ("EuroSAT", "eurosat", "RGB", _RGB, (0.92, 0.50, 0.91, 0.89, 0.92, 0.86, 0.90)),
    ("EuroSAT", "eurosat", "RE5-6-7", _RED_EDGE, (0.91, 0.45, 0.88, 0.87, 0.88, 0.81, 0.90)),
    ("SEN12MS 5K", "sen12ms", "RGB", _RGB, (0.66, 0.40, 0.77, 0.78, 0.81, 0.65, 0.82)),
    ("SEN12MS 5K", "sen12ms", "RE5-6-7", _RED_EDGE, (0.69, 0.49, 0.77, 0.78, 0.80, 0.62, 0.81)),
    ("SEN12MS 5K", "sen12ms", "SAR", _SAR, (0.52, 0.27, 0.64, 0.66, 0.68, 0.53, 0.83)),
    ("RESISC45", "resisc45", "RGB", _RGB, (0.91, 0.36, 0.90, 0.90, 0.88, 0.68, 0.86)),
)
RS_BYOL = tuple(
    PublishedLine(RS_BYOL_TABLE_2, dataset, layout, bands, names, "macro_f1", dict(zip(_MODELS, values, strict=True)))
    for dataset, layout, bands, names, values in _F1
)
"""F1 of the MLP probe on frozen ResNet50 features; ``scratch`` is trained end to end. The paper does not say which kind
of F1; beside it stands macro-F1."""

OCEANSAR_TABLE = "Kerdreux et al. 2025; it does not say whether kNN or linear"
_OCEANSAR = {
    "OceanSAR-1 ViT-B/8": (0.836, 0.63, 1.37),
    "OceanSAR-1 ViT-S/8": (0.821, 0.64, 1.38),
    "OceanSAR-1 ResNet50": (0.755, 0.75, 1.62),
    "SoftCon ViT-B/14": (0.748, 1.01, 2.08),
    "CROMA": (0.654, 0.78, 1.95),
    "DOFA": (0.634, 0.95, 2.43),
    "MoCo ResNet50": (0.609, 0.83, 1.98),
}
_TARGETS = (("TenGeoP-SARwv", "accuracy"), ("significant wave height, m", "rmse"), ("wind speed, m/s", "rmse"))
OCEANSAR = tuple(
    PublishedLine(
        OCEANSAR_TABLE,
        dataset,
        "",
        "VV",
        frozenset({"VV"}),
        metric,
        {model: values[column] for model, values in _OCEANSAR.items()},
    )
    for column, (dataset, metric) in enumerate(_TARGETS)
)


def lines_for(layout: str, bands: Collection[str]) -> tuple[PublishedLine, ...]:
    """The lines of RS-BYOL's Table II on the data set of a layout with just these bands."""
    return tuple(line for line in RS_BYOL if line.layout == layout and line.names == frozenset(bands))
