"""Small encoders with the statistics of pixels, and cards that say what they are."""

from __future__ import annotations

import torch

from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.export import EncoderCard
from terrasieve.sensors import SENSORS, BandStatistics

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
