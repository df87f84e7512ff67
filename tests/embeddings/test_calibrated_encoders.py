"""Each input is embedded by an encoder that is measured on its own pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from terrasieve.embeddings import EmbedSettings, EncoderInput
from terrasieve.embeddings.stream import calibrated_encoders, calibration_batch, embed_vectors
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.calibration import batch_norms
from terrasieve.views.render import Normaliser

FLOAT32 = EmbedSettings(precision="32", batch_size=4)
BANDS = [EncoderInput(sensor="s2", bands=(band,)) for band in ("B02", "B04")]
ROWS = np.arange(9)

MakeArchive = Callable[..., Any]


def test_vectors_of_each_input_are_those_of_its_own_encoder(
    make_archive: MakeArchive, normaliser: Normaliser, encoder: Encoder
) -> None:
    archive = make_archive(9)
    found = calibrated_encoders(encoder, archive, BANDS, normaliser, FLOAT32, ROWS, seed=0)
    together = embed_vectors(found, archive, BANDS, normaliser, FLOAT32, ROWS, "test")
    assert not np.allclose(batch_norms(found[0])[0].running_mean, batch_norms(found[1])[0].running_mean)
    for position, (band, one) in enumerate(zip(BANDS, found, strict=True)):
        alone = calibrated_encoders(encoder, archive, [band], normaliser, FLOAT32, ROWS, seed=0)[0]
        assert all(torch.equal(value, one.state_dict()[name]) for name, value in alone.state_dict().items())
        expected = embed_vectors(alone, archive, [band], normaliser, FLOAT32, ROWS, "test")[:, 0]
        np.testing.assert_allclose(together[:, position], expected, atol=1e-6)


def test_statistics_are_of_the_given_samples_whatever_the_batch_size(
    make_archive: MakeArchive, normaliser: Normaliser, encoder: Encoder
) -> None:
    archive = make_archive(9)
    one, other = (
        calibrated_encoders(
            encoder, archive, BANDS[:1], normaliser, EmbedSettings(precision="32", batch_size=size), ROWS[:5], seed=3
        )[0].state_dict()
        for size in (1, 256)
    )
    assert set(archive.reads) == set(range(5))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_nothing_is_read_for_a_network_without_batch_normalisation(
    make_archive: MakeArchive, normaliser: Normaliser
) -> None:
    archive, model = make_archive(9), build_encoder(BackboneSpec(name="test_vit", channels=1), seed=0)
    assert calibrated_encoders(model, archive, BANDS, normaliser, FLOAT32, ROWS, seed=0) == (model, model)
    assert not archive.reads


def test_calibration_batches_are_equal_and_leave_out_almost_nothing() -> None:
    assert [calibration_batch(samples) for samples in (1, 2, 250, 251, 999, 1000)] == [1, 2, 250, 125, 249, 250]
