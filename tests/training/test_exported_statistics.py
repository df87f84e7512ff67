"""An exported encoder has the statistics of training crops, and training goes on as if it had not been exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

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


def test_a_card_of_before_says_nothing_of_it_and_loads(
    archive: Archive, small_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    job = make_job(small_config(), archive, tmp_path)
    job.export(job.method.exported, 3)
    values = json.loads((tmp_path / "encoder" / "encoder.json").read_text())
    del values["calibrated_on"]
    assert EncoderCard.model_validate(values).calibrated_on is None
