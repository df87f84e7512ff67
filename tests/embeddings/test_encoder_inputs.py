"""Inputs are named in text, resolved by the archive's sensors, and never guessed."""

from __future__ import annotations

import pytest

from terrasieve.embeddings.inputs import EncoderInput, bands_by_sensor, resolve_inputs, views_as_inputs
from terrasieve.errors import BandError, ConfigError
from terrasieve.sensors import SENSORS
from terrasieve.views.recipe import BandPick, OneOf, ViewRecipe, ViewSpec

ARCHIVE = {"s2": SENSORS["s2-l2a"], "s1": SENSORS["s1"]}


@pytest.mark.parametrize("text", ["s2:B04,B03,B02", "s1:VH", "optical:rgb"])
def test_text_form_survives_a_round_trip(text: str) -> None:
    assert str(EncoderInput.parse(text)) == text


@pytest.mark.parametrize("text", ["", "s2", "s2:", ":B04", "s2:B04,,B03"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write sensor:band"):
        EncoderInput.parse(text)


def test_kind_name_and_set_become_key_and_bands() -> None:
    expected = EncoderInput(sensor="s2", bands=("B04", "B03", "B02"))
    for text in ("s2:rgb", "s2-l2a:rgb", "optical:B04,B03,B02"):
        assert EncoderInput.parse(text).resolve(ARCHIVE) == expected
    assert EncoderInput.parse("s1:all").resolve(ARCHIVE).bands == ("VV", "VH")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("s2:B4", "has no band"), ("s3:B04", "no sensor 's3'"), ("s2:B04,B04", "named twice"), ("s2:B04", "takes 3")],
)
def test_wrong_missing_or_too_few_bands_are_an_error(text: str, reason: str) -> None:
    with pytest.raises(BandError, match=reason):
        resolve_inputs([EncoderInput.parse(text)], ARCHIVE, channels=3)


def test_each_band_is_needed_once() -> None:
    inputs = [EncoderInput.parse(text) for text in ("s2:B04,B03", "s1:VV", "s2:B03,B02")]
    assert bands_by_sensor(inputs) == {"s2": ("B04", "B03", "B02"), "s1": ("VV",)}


def test_every_sensor_that_a_view_may_show_alone_is_an_input() -> None:
    optical, radar = BandPick(sensor="optical", bands="rgb", count=2), BandPick(sensor="radar", count=2)
    either = OneOf(one_of=(radar, optical))

    def shown(*picks: BandPick | OneOf) -> list[str]:
        return [
            str(one) for one in views_as_inputs(ViewRecipe(branches=[ViewSpec(name="v", picks=picks, size=8)]), ARCHIVE)
        ]

    assert shown(either) == ["s1:VV,VH", "s2:B04,B03"]
    assert shown(optical) == ["s2:B04,B03"]
    with pytest.raises(ConfigError, match="no obvious input"):
        shown(either, optical)
