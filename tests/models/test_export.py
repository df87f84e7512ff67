from __future__ import annotations

import json
import os
import pickle
from hashlib import sha256
from pathlib import Path
from typing import Any

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import pytest
import safetensors.torch
import timm
import torch

from terrasieve.errors import CheckpointError, WriteError
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.export import EncoderCard, load_encoder, save_encoder
from terrasieve.sensors import SENSORS, BandStatistics

RESNET = BackboneSpec(name="resnet18", channels=2)
VIT = BackboneSpec(name="vit_tiny_patch16_224", channels=3, image_size=32)
REGISTERS = BackboneSpec(name="vit_tiny_patch16_224", channels=1, image_size=32, patch_size=8, registers=4)


def _statistics(band: str) -> BandStatistics:
    return BandStatistics(band=band, count=7, mean=0.1, std=1 / 3, minimum=-1e-30, maximum=2e30)


def _card(backbone: BackboneSpec, **changes: Any) -> EncoderCard:
    facts = {
        "backbone": backbone,
        "method": "byol",
        "recipe": "rs-byol-1",
        "image_size": 32,
        "sensors": {"s2": SENSORS["s2-l2a"], "s1": SENSORS["s1"]},
        "view_bands": (("s2:B02", "s2:B03"), ("s1:VV", "s1:VH")),
        "statistics": {"s2": (_statistics("B02"), _statistics("B03")), "s1": (_statistics("VV"),)},
        "provenance": {"step": 12, "torch": torch.__version__, "data": {"layout": "simulated", "simulated": True}},
    }
    return EncoderCard.model_validate({**facts, **changes})


def _trained(spec: BackboneSpec) -> Encoder:
    """An encoder whose running statistics are no longer the initial ones, in the memory layout of training."""
    encoder = build_encoder(spec, seed=1).to(memory_format=torch.channels_last)
    encoder(torch.randn(8, spec.channels, 32, 32) * 2 + 1)
    return encoder


@pytest.mark.slow
@pytest.mark.parametrize("spec", [RESNET, VIT, REGISTERS], ids=["resnet", "vit", "registers"])
def test_plain_timm_gives_the_same_features(spec: BackboneSpec, tmp_path: Path) -> None:
    encoder = _trained(spec)
    save_encoder(tmp_path, encoder, _card(spec))
    backbone = json.loads((tmp_path / "encoder.json").read_text())["backbone"]
    plain = timm.create_model(
        backbone["name"],
        in_chans=backbone["channels"],
        num_classes=0,
        img_size=backbone["image_size"],
        patch_size=backbone["patch_size"],
        reg_tokens=backbone["registers"],
    )
    plain.load_state_dict(safetensors.torch.load_file(tmp_path / "encoder.safetensors"))
    pixels = torch.randn(4, spec.channels, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(pixels), encoder.eval()(pixels), rtol=1e-4, atol=1e-5)


WIDE = BackboneSpec(name="test_resnet", channels=13)
OWN_SIZE = BackboneSpec(name="test_vit", channels=2)


@pytest.mark.parametrize("spec", [WIDE, OWN_SIZE, REGISTERS], ids=["13 bands", "timm's size", "registers"])
def test_timm_loads_the_folder_by_name(spec: BackboneSpec, tmp_path: Path) -> None:
    encoder = _trained(spec)
    save_encoder(tmp_path, encoder, _card(spec))
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    # Another size than that of the weights' position embedding, too.
    for size in (32, 64):
        pixels = torch.randn(3, spec.channels, size, size)
        with torch.no_grad():
            torch.testing.assert_close(loaded(pixels), encoder.eval()(pixels), rtol=1e-4, atol=1e-5)
    with_head = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=7)
    assert with_head(pixels).shape == (3, 7)
    assert torch.equal(next(with_head.parameters()), next(loaded.parameters()))


def test_timm_finds_the_weights_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = _trained(OWN_SIZE)
    save_encoder(tmp_path, encoder, _card(OWN_SIZE))
    asked = []

    def download(repo_id: str, filename: str, **_: Any) -> str:
        asked.append((repo_id, filename))
        return str(tmp_path / filename)

    monkeypatch.setattr(timm.models._hub, "hf_hub_download", download)
    loaded = timm.create_model("hf-hub:somebody/first", pretrained=True).eval()
    assert asked == [("somebody/first", "config.json"), ("somebody/first", "encoder.safetensors")]
    pixels = torch.randn(2, 2, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels), encoder.eval()(pixels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inside_run", [False, True], ids=["encoder folder", "run folder"])
def test_round_trip(inside_run: bool, tmp_path: Path) -> None:
    encoder = _trained(VIT)
    written = save_encoder(tmp_path / "encoder" if inside_run else tmp_path, encoder, _card(VIT))
    loaded, card = load_encoder(tmp_path)
    assert card == written
    assert card.model_copy(update={"weights_sha256": None}) == _card(VIT)
    assert not any(module.training for module in loaded.modules())
    ours, theirs = encoder.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_hash_is_that_of_the_file(tmp_path: Path) -> None:
    card = save_encoder(tmp_path, _trained(VIT), _card(VIT))
    assert card.weights_sha256 == sha256((tmp_path / "encoder.safetensors").read_bytes()).hexdigest()


def test_saving_leaves_the_encoder_as_it_was(tmp_path: Path) -> None:
    encoder = _trained(RESNET).train()
    save_encoder(tmp_path, encoder, _card(RESNET))
    assert encoder.training
    assert encoder.model.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_one_changed_bit_is_noticed(tmp_path: Path) -> None:
    save_encoder(tmp_path, _trained(VIT), _card(VIT))
    path = tmp_path / "encoder.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors has the hash"):
        load_encoder(tmp_path)


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("hash_matches", [False, True])
def test_a_pickle_in_disguise_is_refused_and_never_run(hash_matches: bool, tmp_path: Path) -> None:
    save_encoder(tmp_path, _trained(VIT), _card(VIT))
    payload = pickle.dumps(_Bomb(tmp_path / "exploded"))
    (tmp_path / "encoder.safetensors").write_bytes(payload)
    if hash_matches:
        forged = _card(VIT, weights_sha256=sha256(payload).hexdigest())
        (tmp_path / "encoder.json").write_text(forged.model_dump_json())
    with pytest.raises(CheckpointError, match="cannot be read as safetensors" if hash_matches else "has the hash"):
        load_encoder(tmp_path)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(payload)
    assert (tmp_path / "exploded").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_encoder(tmp_path, _trained(VIT), _card(BackboneSpec(name="resnet18", channels=3)))
    with pytest.raises(CheckpointError, match="does not hold the weights of resnet18"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("encoder.json", b"{", "not an encoder card"),
        ("encoder.json", b'{"backbone": {"name": "resnet18", "depth": 3}}', "not an encoder card"),
        ("encoder.json", None, "No encoder in"),
        ("encoder.safetensors", None, "cannot be read"),
        ("encoder.safetensors", b"", "has the hash"),
    ],
)
def test_damage_is_named(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    save_encoder(tmp_path, _trained(VIT), _card(VIT))
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_encoder(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_failed_write_leaves_the_old_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_encoder(tmp_path, _trained(VIT), _card(VIT))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match="No space left"):
            save_encoder(tmp_path, build_encoder(VIT, seed=9), _card(VIT, recipe="other"))
    assert load_encoder(tmp_path)[1].recipe == "rs-byol-1"
    assert sorted(os.listdir(tmp_path)) == ["config.json", "encoder.json", "encoder.safetensors"]


def test_the_card_takes_its_place_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed = []
    real = os.replace

    def record(source: Path, target: Path) -> None:
        assert source.parent == target.parent
        placed.append(target.name)
        real(source, target)

    monkeypatch.setattr(os, "replace", record)
    save_encoder(tmp_path, _trained(VIT), _card(VIT))
    assert placed == ["encoder.safetensors", "config.json", "encoder.json"]
