"""An exported encoder has the statistics of training crops, and training goes on as if it had not been exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from terrasieve import device
from terrasieve.archive.protocol import Archive
from terrasieve.config import RunConfig
from terrasieve.models.calibration import batch_norms
from terrasieve.models.export import EncoderCard, load_encoder
from terrasieve.pretraining import make_job


def test_weights_are_the_trained_ones_and_statistics_are_measured(
    archive: Archive, small_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    job = make_job(small_config(), archive, tmp_path)
    trained = job.method.exported
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    job.export(trained, 3)
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    found, card = load_encoder(tmp_path)
    assert card.calibrated_on == "training crops"
    assert all(torch.equal(value, before[name]) for name, value in found.named_parameters())
    # Untrained, whose running means are 0 as they come.
    assert all(norm.running_mean is not None and norm.running_mean.abs().max() > 0 for norm in batch_norms(found))


@pytest.mark.parametrize("used", ["bf16", "32"])
def test_the_card_holds_the_precision_that_auto_meant(
    archive: Archive, small_config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: str
) -> None:
    monkeypatch.setattr(device, "bf16_is_fast", lambda _: used == "bf16")
    config = small_config()
    job = make_job(
        config.model_copy(update={"train": config.train.model_copy(update={"precision": "auto"})}), archive, tmp_path
    )
    job.export(job.method.exported, 3)
    assert json.loads((tmp_path / "encoder" / "encoder.json").read_text())["provenance"]["precision"] == used


def test_a_card_of_before_says_nothing_of_it_and_loads(
    archive: Archive, small_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    job = make_job(small_config(), archive, tmp_path)
    job.export(job.method.exported, 3)
    values = json.loads((tmp_path / "encoder" / "encoder.json").read_text())
    del values["calibrated_on"]
    assert EncoderCard.model_validate(values).calibrated_on is None
