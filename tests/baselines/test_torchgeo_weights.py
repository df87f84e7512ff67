"""torchgeo's weights: from a local file, and through a stand-in for the installed library."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from terrasieve.baselines.loading import load_baseline
from terrasieve.baselines.torchgeo_weights import _KNOWN, band_name, known_weights
from terrasieve.errors import CheckpointError, ConfigError
from terrasieve.models.backbone import COMMON, BackboneSpec, build_encoder
from terrasieve.sensors import SENSORS

NAME = "ResNet18_Weights.SENTINEL2_ALL_MOCO"


def _save(path: Path, channels: int) -> dict[str, torch.Tensor]:
    tensors = build_encoder(BackboneSpec(name="resnet18", channels=channels), seed=1).model.state_dict()
    torch.save(dict(tensors), path)
    return dict(tensors)


def test_thirteen_bands_in_order(tmp_path: Path) -> None:
    tensors = _save(tmp_path / "moco.pth", 13)
    baseline = load_baseline(f"torchgeo:{NAME}:{tmp_path / 'moco.pth'}")
    assert torch.equal(baseline.encoder.model.conv1.weight, tensors["conv1.weight"])
    assert baseline.bands is not None
    assert baseline.bands[7:11] == ("B08", "B8A", "B09", "B10")
    assert baseline.channels == len(baseline.bands) == 13


def test_weights_of_another_number_of_bands_are_refused(tmp_path: Path) -> None:
    _save(tmp_path / "moco.pth", 3)
    with pytest.raises(CheckpointError, match=r"takes 3 channel\(s\), but weights of that name take 13"):
        load_baseline(f"torchgeo:{NAME}:{tmp_path / 'moco.pth'}")


@pytest.mark.parametrize("name", sorted(_KNOWN))
def test_each_known_name_has_a_network_and_bands_of_a_sensor(name: str) -> None:
    network, facts = known_weights(name)
    assert network in (*COMMON, "vit_base_patch16_224")
    names = {n for s in ("s2-l1c", "s1") for n in SENSORS[s].names} | {"red", "green", "blue"}
    assert facts.bands is not None
    assert set(facts.bands) <= names


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'ResNet50_Weights\.SENTINEL2_ALL_MOCO'"):
        load_baseline("torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOKO:/nowhere.pth")


def test_without_torchgeo_a_file_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchgeo.models", None)
    with pytest.raises(ConfigError, match="Install torchgeo, or download the file"):
        load_baseline(f"torchgeo:{NAME}")


def _listing(monkeypatch: pytest.MonkeyPatch, url: str, meta: dict[str, object]) -> None:
    models = ModuleType("torchgeo.models")
    vars(models)["get_weight"] = {"ResNet18_Weights.NEW": SimpleNamespace(url=url, meta=meta)}.__getitem__
    monkeypatch.setitem(sys.modules, "torchgeo", ModuleType("torchgeo"))
    monkeypatch.setitem(sys.modules, "torchgeo.models", models)


@pytest.mark.slow
def test_the_installed_library_decides_for_names_that_are_new(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    tensors = _save(tmp_path / "store" / "new.pth", 2)
    meta = {"bands": ["B4", "B8a"], "ssl_method": "dino", "dataset": "SSL4EO-S12", "publication": "arXiv 1"}
    _listing(monkeypatch, (tmp_path / "store" / "new.pth").as_uri(), meta)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    baseline = load_baseline("torchgeo:ResNet18_Weights.NEW")
    assert torch.equal(baseline.encoder.model.bn1.weight, tensors["bn1.weight"])
    assert baseline.bands == ("B04", "B8A")
    assert baseline.facts.training == "dino on SSL4EO-S12"
    assert (tmp_path / "hub" / "checkpoints" / "new.pth").is_file()


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _listing(monkeypatch, (tmp_path / "absent.pth").as_uri(), {})
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(CheckpointError, match=r"Cannot download .*absent\.pth"):
        load_baseline("torchgeo:ResNet18_Weights.NEW")


@pytest.mark.parametrize(("theirs", "ours"), [("B4", "B04"), ("B8a", "B8A"), ("B12", "B12"), ("VV", "VV")])
def test_band_names(theirs: str, ours: str) -> None:
    assert band_name(theirs) == ours
