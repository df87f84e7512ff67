"""Training on labels learns, repeats itself, and leaves the encoder that it starts from as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from terrasieve.embeddings import EmbedSettings, EncoderInput
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.probes import finetune
from terrasieve.probes.compare import ProbeTask, prepare
from terrasieve.probes.finetune import EndToEndSettings, laid_down, train_end_to_end
from terrasieve.probes.results import InputRow, Measured
from terrasieve.probes.splits import make_splits

RGB = InputRow((EncoderInput(sensor="s2", bands=("B04", "B03", "B02")),))
JOINED = InputRow(tuple(EncoderInput(sensor="s2", bands=(band,)) for band in ("B04", "B03")))
QUICK = EndToEndSettings(epochs=12, batch_size=16)


@pytest.fixture
def task(make_labelled: Callable[..., Any]) -> ProbeTask:
    archive = make_labelled()
    settings = EmbedSettings(precision="32", batch_size=32)
    return prepare(archive, make_splits(archive.table()), [RGB, JOINED], settings=settings)


def small(channels: int) -> Encoder:
    return build_encoder(BackboneSpec(name="test_resnet", channels=channels), seed=1)


def trained(task: ProbeTask, channels: int, row: InputRow, share: float = 1.0) -> Measured:
    return train_end_to_end("from scratch", small(channels), row, task, QUICK, share)


@pytest.mark.slow
def test_it_learns_what_labels_say_and_repeats_itself(task: ProbeTask) -> None:
    first, again = (trained(task, 3, RGB) for _ in range(2))
    assert first.row.metrics["accuracy"] > 0.8
    assert first.row.metrics == again.row.metrics
    assert np.array_equal(first.predicted, again.predicted)
    assert (first.row.probe, first.row.n_train, first.row.n_test) == ("end-to-end", 45, 30)
    assert first.row.protocol.startswith("end-to-end v1: ")
    assert np.sum(first.row.confusion) == 30


@pytest.mark.slow
def test_a_single_band_encoder_is_trained_through_every_band(task: ProbeTask) -> None:
    assert trained(task, 1, JOINED).row.inputs == "s2:B04+B03"


def test_fewer_labels_are_fewer_samples(task: ProbeTask) -> None:
    assert trained(task, 3, RGB, share=0.2).row.n_train == 9


def test_the_encoder_is_left_as_it_was(task: ProbeTask) -> None:
    encoder = small(3).eval()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    train_end_to_end("tuned", encoder, RGB, task, EndToEndSettings(epochs=1, batch_size=16))
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    assert not encoder.training


def test_the_best_epoch_on_validation_is_kept(task: ProbeTask) -> None:
    splits = task.splits
    train, val = (finetune._Part(part, splits.labels[part]) for part in (splits.train, splits.val))
    wild = EndToEndSettings(epochs=6, batch_size=16, learning_rate=0.05)
    trainer = finetune._Trainer(
        finetune._Joint(small(3), 1, 3, seed=0), RGB, task, wild, finetune._Scale("classification", 0.0, 1.0)
    )
    chosen = trainer.fit(train, val, "wild")
    assert chosen["epoch"] < 6
    assert float(np.mean(trainer.predict(val) == val.targets)) == chosen["validation_accuracy"]


def test_a_square_has_eight_ways_and_anything_else_four() -> None:
    for shape, ways in (((1, 1, 4, 4), 8), ((1, 1, 4, 6), 4)):
        pixels = torch.arange(float(np.prod(shape))).reshape(shape)
        laid = {tuple(laid_down(pixels, np.array([way])).flatten().tolist()) for way in range(8)}
        assert len(laid) == ways
        assert all(sorted(one) == sorted(pixels.flatten().tolist()) for one in laid)


def test_a_way_is_quarter_turns_and_then_a_mirror() -> None:
    pixels = torch.rand(8, 2, 5, 5)
    laid = laid_down(pixels, np.arange(8))
    for way, (found, one) in enumerate(zip(laid, pixels, strict=True)):
        expected = torch.rot90(one, way % 4, (1, 2))
        assert torch.equal(found, expected.flip(2) if way >= 4 else expected)
