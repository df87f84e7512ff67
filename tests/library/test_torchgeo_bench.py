"""An encoder of ours as torchgeo-bench calls it, against a stand-in for the benchmark's base class."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from terrasieve.errors import BandError, ConfigError
from terrasieve.library.torchgeo_bench import bench_model
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.export import EncoderCard, save_encoder
from terrasieve.sensors import SENSORS

RGB = ("s2:B04", "s2:B03", "s2:B02")


@dataclass(frozen=True)
class BandSpec:
    """The fields of the benchmark's, with made statistics."""

    sensor: str
    name: str
    mean: float = 1000.0
    std: float = 500.0


class BenchModel(nn.Module):
    """As the benchmark's: standardises in a method that is not overridden, and calls the subclass with the result."""

    def __init__(self, bands: list[BandSpec], normalization: str) -> None:
        super().__init__()
        self.bands, self.num_channels = list(bands), len(bands)
        assert normalization == "bandspec_zscore"

    def normalize_inputs(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor([getattr(one, what) for one in self.bands]) for what in ("mean", "std"))
        return (images - mean[:, None, None]) / std[:, None, None]

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self._forward_patch_features(self.normalize_inputs(images))
        return features


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    interface = ModuleType("torchgeo_bench.models.interface")
    interface.BenchModel = BenchModel  # type: ignore[attr-defined]
    for name in ("torchgeo_bench", "torchgeo_bench.models"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)


def exported(folder: Path, channels: int, views: tuple[tuple[str, ...], ...]) -> Encoder:
    spec = BackboneSpec(name="test_resnet", channels=channels)
    encoder = build_encoder(spec, seed=3).eval()
    card = EncoderCard(
        backbone=spec,
        method="byol",
        recipe="mine",
        image_size=32,
        sensors={"s2": SENSORS["s2-l2a"], "s1": SENSORS["s1"]},
        view_bands=views,
        statistics={},
    )
    save_encoder(folder, encoder, card)
    return encoder


def bands(sensor: str, *names: str) -> list[BandSpec]:
    return [BandSpec(sensor, name, 1000.0 + 7 * place, 500.0 + place) for place, name in enumerate(names)]


def images(count: int) -> Tensor:
    return 1000 + 500 * torch.randn((2, count, 32, 32), generator=torch.Generator().manual_seed(0))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("there", "places"),
    [
        (bands("s2", "b01", "b02", "b03", "b04", "b05"), [3, 2, 1]),
        (bands("aerial", "nir", "green", "blue", "red"), [3, 1, 2]),
    ],
)
def test_it_is_shown_the_bands_that_it_was_trained_on(tmp_path: Path, there: list[Any], places: list[int]) -> None:
    encoder = exported(tmp_path, 3, (("s1:VV", "s1:VH"), RGB))
    # A name and settings of the benchmark's own come with the folder.
    model = bench_model(there, encoder=str(tmp_path), name="mine", image_size=None, eval={"segmentation": {}})
    assert isinstance(model, BenchModel)
    assert not model.training
    shown = model.normalize_inputs(images(len(there)))[:, places]
    with torch.no_grad():
        assert torch.equal(model(images(len(there))), encoder(shown))


@pytest.mark.usefixtures("installed")
def test_an_encoder_of_one_band_sees_each_and_its_vectors_are_joined(tmp_path: Path) -> None:
    encoder = exported(tmp_path, 1, (("s2:B02", "s2:B03", "s2:B04"),))
    model = bench_model(bands("s1", "vv", "vh"), encoder=str(tmp_path))
    shown = model.normalize_inputs(images(2))
    with torch.no_grad():
        found = model(images(2))
        assert torch.equal(found, torch.cat([encoder(shown[:, :1]), encoder(shown[:, 1:])], dim=1))
    assert found.shape == (2, 2 * encoder.features)


@pytest.mark.usefixtures("installed")
def test_bands_that_are_missing_are_named_and_never_guessed(tmp_path: Path) -> None:
    exported(tmp_path, 3, (RGB,))
    with pytest.raises(BandError, match=r"takes 3 bands \(s2:B04, s2:B03, s2:B02\), but the data set has vv, vh, dem"):
        bench_model(bands("s1", "vv", "vh", "dem"), encoder=str(tmp_path))


@pytest.mark.usefixtures("installed")
def test_channels_that_stand_for_no_band_take_as_many_as_there_are(tmp_path: Path) -> None:
    encoder = exported(tmp_path, 2, (("s2:B02", "s2:B03", "s2:B04"),))
    model = bench_model(bands("s2", "b11", "b12"), encoder=str(tmp_path))
    with torch.no_grad():
        assert torch.equal(model(images(2)), encoder(model.normalize_inputs(images(2))))
    with pytest.raises(BandError, match="any 2 bands"):
        bench_model(bands("s2", "b11", "b12", "b04"), encoder=str(tmp_path))


def test_without_the_benchmark_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchgeo_bench", None)
    with pytest.raises(ConfigError, match="torchgeo-bench is not installed"):
        bench_model(bands("s2", "b04"), encoder=str(tmp_path))
