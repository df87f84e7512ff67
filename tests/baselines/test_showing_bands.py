"""A band shown to a model of several channels."""

from __future__ import annotations

import copy

import pytest
import torch

from terrasieve.baselines.baseline import Repeated
from terrasieve.errors import BandError
from terrasieve.models.backbone import BackboneSpec, build_encoder

ENCODER = build_encoder(BackboneSpec(name="resnet18", channels=3), seed=2).eval()


def test_a_repeated_band_is_the_band_copied() -> None:
    pixels = torch.randn(2, 1, 48, 48)
    shown = Repeated(ENCODER, 3)
    with torch.no_grad():
        torch.testing.assert_close(shown(pixels), ENCODER(pixels.repeat(1, 3, 1, 1)))
    assert (shown.channels, shown.features) == (1, 512)


def test_repeated_behaves_like_a_module() -> None:
    shown = Repeated(ENCODER, 3)
    copied = copy.deepcopy(shown).eval().requires_grad_(False).to(torch.float64)
    assert next(shown.parameters()).dtype == torch.float32
    assert {p.dtype for p in copied.parameters()} == {torch.float64}
    pixels = torch.randn(2, 1, 48, 48).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(copied(pixels.double()).float(), shown(pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("copies", [1, 4])
def test_the_number_of_copies_must_fill_the_encoder(copies: int) -> None:
    with pytest.raises(BandError, match="copy the band 3 times"):
        Repeated(ENCODER, copies)


def test_only_one_band_is_copied() -> None:
    with pytest.raises(BandError, match="3 were given"):
        Repeated(ENCODER, 3)(torch.zeros(1, 3, 48, 48))
