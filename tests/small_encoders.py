"""Small encoders with the statistics of pixels, and cards that say what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from terrasieve.archive.in_memory import ArrayArchive
from terrasieve.embeddings import EmbeddingTable, EmbedSettings, EncoderInput, embed
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.export import EncoderCard, load_encoder, save_encoder
from terrasieve.sensors import SENSORS, BandStatistics
from terrasieve.views.render import Normaliser

SENSOR = SENSORS["s2-l2a"]
VIT = BackboneSpec(name="test_vit", channels=3, image_size=32, patch_size=8)


def card_of(spec: BackboneSpec) -> EncoderCard:
    entries = tuple(
        BandStatistics(band=band, count=9, mean=900 + 10 * i, std=250 + i, minimum=0, maximum=9000)
        for i, band in enumerate(SENSOR.names)
    )
    return EncoderCard(
        backbone=spec,
        method="byol",
        recipe="small one",
        image_size=32,
        sensors={"s2": SENSOR},
        view_bands=(),
        statistics={"s2": entries},
        provenance={
            "data": {"layout": "packed", "root": "/home/me/secret/b.zarr"},
            "config": {"paths": ["/home/me/x"]},
        },
    )


def trained(spec: BackboneSpec) -> Encoder:
    """An encoder whose batch norms have seen pixels."""
    encoder = build_encoder(spec, seed=1).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder(torch.randn(4, spec.channels, 64, 64))
    return encoder.eval()


def embedded_pictures(run: Path, pixels: np.ndarray) -> EmbeddingTable:
    """Pictures of 8 bits as vectors of the encoder of a run, which is made.

    Args:
        run: Folder that the encoder is written into.
        pixels: Uint8, shape ``(n, 3, height, width)``.
    """
    sensor = SENSORS["rgb8"]
    spec = BackboneSpec(name="resnet18", channels=3)
    seen = {
        "rgb": tuple(
            BandStatistics(band=band, count=9, mean=120, std=60, minimum=0, maximum=255) for band in sensor.names
        )
    }
    card = card_of(spec).model_copy(update={"sensors": {"rgb": sensor}, "statistics": seen})
    save_encoder(run / "encoder", trained(spec), card)
    encoder, card = load_encoder(run)
    archive = ArrayArchive({"rgb": pixels}, {"rgb": sensor})
    settings = EmbedSettings(precision="32", batch_size=8)
    return embed(encoder, card, archive, [EncoderInput.parse("rgb:all")], Normaliser(archive.sensors, seen), settings)
