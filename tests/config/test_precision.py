"""Precision is written in one way, whatever is computed in it, and older spellings are read."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from terrasieve import device
from terrasieve.curation.balanced import BalancedClusters
from terrasieve.device import resolve_precision
from terrasieve.embeddings.stream import EmbedSettings
from terrasieve.schema import Spec
from terrasieve.training.spec import TrainSpec


@pytest.mark.parametrize("spec", [TrainSpec, EmbedSettings, BalancedClusters])
def test_numbers_and_older_names_of_float32_are_read(spec: type[Spec]) -> None:
    for written in (32, "32", "float32"):
        assert spec.model_validate({"precision": written}).model_dump()["precision"] == "32"
    for written in ("float64", 8, None):
        with pytest.raises(ValidationError, match="precision"):
            spec.model_validate({"precision": written})


def test_only_training_scales_gradients_of_float16() -> None:
    assert TrainSpec.model_validate({"precision": 16}).precision == "16"
    for spec in (EmbedSettings, BalancedClusters):
        with pytest.raises(ValidationError, match="'auto', '32' or 'bf16'"):
            spec.model_validate({"precision": "16"})


@pytest.mark.parametrize(("fast", "expected"), [(True, "bf16"), (False, "32")])
def test_automatic_precision_is_that_of_the_device(fast: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "bf16_is_fast", lambda chosen: fast)
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu) == expected
    assert [resolve_precision(stated, cpu) for stated in ("32", "bf16", "16")] == ["32", "bf16", "16"]
