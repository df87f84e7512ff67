"""Whose statistics standardise an archive that is embedded."""

from __future__ import annotations

import pytest
import torch

from terrasieve.archive.statistics import measure
from terrasieve.embeddings import EncoderInput, normaliser_for
from terrasieve.errors import BandError
from terrasieve.models.backbone import BackboneSpec
from terrasieve.models.export import EncoderCard
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

ARCHIVE = SimulatedArchive(SimulatedSpec(samples=4, size=32))
GREEN = EncoderInput(sensor="s2", bands=("B03",))


def card(sensor: str) -> EncoderCard:
    """Trained on simulated samples of another seed, whose optical product is called ``sensor``."""
    trained = SimulatedArchive(SimulatedSpec(samples=4, size=32, seed=9))
    renamed = trained.sensors["s2"].model_copy(update={"name": sensor})
    return EncoderCard(
        backbone=BackboneSpec(name="resnet18"),
        method="byol",
        recipe="rs-byol-1",
        image_size=32,
        sensors={"s2": renamed},
        view_bands=(("s2:B03",),),
        statistics=measure(trained, sensors=["s2"]),
    )


def test_one_value_is_one_vector_whatever_archive_it_comes_from() -> None:
    trained = card("s2-l2a")
    pixels = torch.full((1, 1, 2, 2), 1234.0)
    (green,) = (entry for entry in trained.statistics["s2"] if entry.band == "B03")
    by_encoder = normaliser_for("encoder", trained, ARCHIVE, [GREEN])(pixels, [("s2", "B03")])
    torch.testing.assert_close(by_encoder, (pixels - green.mean) / green.std, rtol=1e-4, atol=1e-5)
    by_archive = normaliser_for("archive", trained, ARCHIVE, [GREEN])(pixels, [("s2", "B03")])
    assert not torch.allclose(by_archive, by_encoder)


def test_another_product_is_refused_unless_its_own_statistics_are_asked_for() -> None:
    with pytest.raises(BandError, match=r"s2:B03 of s2-l2a.*trained on s2 \(s2-l1c.*--statistics archive"):
        normaliser_for("encoder", card("s2-l1c"), ARCHIVE, [GREEN])
    normaliser_for("archive", card("s2-l1c"), ARCHIVE, [GREEN])


def test_a_sensor_that_the_encoder_never_saw_is_refused() -> None:
    with pytest.raises(BandError, match="no statistics for s1:VV of s1"):
        normaliser_for("encoder", card("s2-l2a"), ARCHIVE, [EncoderInput(sensor="s1", bands=("VV",))])
