"""Exports are reloaded in a fresh process without terrasieve, and give the same features."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from exports import WANTED, differences
from terrasieve.models.backbone import BackboneSpec


@pytest.mark.slow
def test_exports_give_the_same_features_without_terrasieve(tmp_path: Path) -> None:
    for package in ("onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    # What transformers loads is compared in tests/exporting; of all networks this one is recorded fastest.
    formats = ("timm", "torch", "onnx")
    found = differences(BackboneSpec(name="test_resnet", channels=3), tmp_path, formats)
    assert tuple(found) == formats
    assert all(value <= WANTED for value in found.values()), found
