"""Kernels of a pretrained first layer, given to other bands."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.first_layer import (
    average_channels,
    first_layer_keys,
    keep_channels,
    match_bands,
    move_kernels,
)
from terrasieve.sensors import SENSORS, Band


def bands(*names: str) -> tuple[Band, ...]:
    return SENSORS["s2-l1c"].select(*names).bands


def picture(*colours: str) -> tuple[Band, ...]:
    return tuple(band for colour in colours for band in SENSORS["rgb8"].bands if band.common_name == colour)


def kernels(channels: int) -> Tensor:
    return torch.randn(5, channels, 3, 3, generator=torch.Generator().manual_seed(channels))


def test_kernels_follow_their_bands_by_common_name() -> None:
    found = match_bands(picture("red", "green", "blue"), bands("B02", "B03", "B04"))
    assert found.taken == (2, 1, 0)
    assert found.said == "by name: B02 from blue, B03 from green, B04 from red"
    old = kernels(3)
    assert torch.equal(move_kernels(old, found.taken), old.flip(1))


def test_bands_of_one_common_name_are_told_apart_by_their_own() -> None:
    found = match_bands(bands("B05", "B06", "B07"), bands("B07", "B05"))
    assert found.taken == (2, 0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # Blue of Sentinel-2 is not the infrared of a camera that calls it B02.
        (bands("B02"), (bands("B08")[0].model_copy(update={"name": "B02"}),)),
        # Which of the three red edges would it be?
        (bands("B05", "B06", "B07"), (bands("B05")[0].model_copy(update={"name": "edge"}),)),
        (bands("B05"), tuple(bands("B05")[0].model_copy(update={"name": name}) for name in ("edge1", "edge2"))),
        (picture("red", "green", "blue"), SENSORS["s1"].bands),
        (bands("B04"), (bands("B04")[0].model_copy(update={"name": "1", "common_name": None}),)),
    ],
)
def test_a_band_that_is_not_surely_the_same_takes_the_mean(old: Sequence[Band], new: Sequence[Band]) -> None:
    found = match_bands(old, new)
    assert found == average_channels(len(old), len(new))
    assert found.taken == (None,) * len(new)


def test_a_band_without_kernels_takes_the_mean_and_is_named() -> None:
    found = match_bands(picture("red", "green", "blue"), bands("B04", "B08", "B03", "B02"))
    assert found.taken == (0, None, 1, 2)
    assert found.said == "by name: B04 from red, B03 from green, B02 from blue; B08 averaged over 3 bands"
    old = kernels(3)
    new = move_kernels(old, found.taken)
    torch.testing.assert_close(new[:, 1], old.mean(1) * 3 / 4)
    torch.testing.assert_close(new[:, [0, 2, 3]], old * 3 / 4)


@given(old=st.integers(1, 13), new=st.integers(1, 13))
def test_an_image_whose_bands_are_alike_gets_the_same_response(old: int, new: int) -> None:
    image = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = kernels(old).double()
    after = move_kernels(before, average_channels(old, new).taken)
    assert after.shape == (5, new, 3, 3)
    torch.testing.assert_close(
        functional.conv2d(image.expand(-1, new, -1, -1), after),
        functional.conv2d(image.expand(-1, old, -1, -1), before),
    )


def test_one_channel_is_the_sum_of_all_kernels() -> None:
    old = kernels(3)
    torch.testing.assert_close(move_kernels(old, average_channels(3, 1).taken), old.sum(1, keepdim=True))
    assert average_channels(3, 1).said == "averaged over 3 bands"
    assert average_channels(1, 2).said == "that of one band, shared by all channels"


def test_what_is_kept_is_the_same_to_the_bit() -> None:
    old = kernels(4)
    assert torch.equal(move_kernels(old, keep_channels(4, "because").taken), old)


@pytest.mark.parametrize("name", ["test_resnet", "resnet18", "test_vit"])
def test_the_first_layer_is_the_one_that_meets_the_bands(name: str) -> None:
    one, three = (build_encoder(BackboneSpec(name=name, channels=c), 0).model.state_dict() for c in (1, 3))
    differing = [key for key in one if one[key].shape != three[key].shape]
    assert differing == first_layer_keys(build_encoder(BackboneSpec(name=name), 0).model)
