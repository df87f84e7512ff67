"""Local state dicts of timm networks, and the wrappings that training leaves around them."""

from __future__ import annotations

from pathlib import Path

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from terrasieve.baselines.baseline import Baseline
from terrasieve.baselines.loading import load_baseline
from terrasieve.baselines.timm_files import published_weights
from terrasieve.baselines.weights import find_entry, own_keys
from terrasieve.errors import CheckpointError
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder

VIT = BackboneSpec(name="vit_tiny_patch16_224", channels=2, image_size=32)
OWN = {"conv1.weight": torch.zeros(1), "bn1.weight": torch.zeros(1)}


@pytest.fixture(scope="module")
def vit() -> Encoder:
    return build_encoder(VIT, seed=3).eval()


def _same(text: str, encoder: Encoder) -> Baseline:
    baseline = load_baseline(text)
    ours, theirs = encoder.model.state_dict(), baseline.encoder.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert baseline.bands is None
    return baseline


def test_bands_and_image_size_follow_from_the_weights(vit: Encoder, tmp_path: Path) -> None:
    save_file(vit.model.state_dict(), tmp_path / "vit.safetensors")
    baseline = _same(f"timm:{VIT.name}:{tmp_path / 'vit.safetensors'}", vit)
    assert baseline.notes == ()
    pixels = torch.randn(2, 2, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(baseline.encoder(pixels), vit(pixels))


def test_a_teacher_of_dino(vit: Encoder, tmp_path: Path) -> None:
    head = {"head.mlp.0.weight": torch.zeros(3), "head.last_layer.weight_g": torch.zeros(3)}
    teacher = {f"backbone.{key}": tensor for key, tensor in vit.model.state_dict().items()} | head
    student = {f"module.{key}": torch.full_like(tensor, 9) for key, tensor in teacher.items()}
    torch.save({"teacher": teacher, "student": student, "epoch": 3}, tmp_path / "dino.pth")
    notes = _same(f"timm:{VIT.name}:{tmp_path / 'dino.pth'}#teacher", vit).notes
    assert notes == (
        "state dict taken from the entry 'teacher'",
        "prefix 'backbone.' taken off",
        "left out: head.last_layer.weight_g, head.mlp.0.weight",
    )
    with pytest.raises(CheckpointError, match=r"Several entries may be meant: teacher, student"):
        load_baseline(f"timm:{VIT.name}:{tmp_path / 'dino.pth'}")


def test_a_wrapped_state_dict_with_a_classifier(vit: Encoder, tmp_path: Path) -> None:
    wrapped = {f"module.model.{key}": tensor for key, tensor in vit.model.state_dict().items()}
    wrapped |= {"module.model.head.weight": torch.zeros(4, 192), "module.model.head.bias": torch.zeros(4)}
    torch.save({"state_dict": wrapped, "epoch": 1}, tmp_path / "run.pth")
    notes = _same(f"timm:{VIT.name}:{tmp_path / 'run.pth'}", vit).notes
    assert notes[1:] == ("prefix 'module.model.' taken off", "left out: head.bias, head.weight")


@pytest.mark.slow
def test_the_wrong_architecture_is_refused(vit: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    save_file(vit.model.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"vit\.safetensors: .*no first convolution conv1\.weight"):
        load_baseline(f"timm:resnet18:{path}")
    with pytest.raises(CheckpointError, match=r"other shapes than vit_small_patch16_224"):
        load_baseline(f"timm:vit_small_patch16_224:{path}")


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_every_key_counts(vit: Encoder, change: str, tmp_path: Path) -> None:
    tensors = dict(vit.model.state_dict())
    if change == "missing":
        del tensors["blocks.3.norm1.bias"]
    else:
        tensors["blocks.3.norm9.bias"] = torch.zeros(1)
    save_file(tensors, tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError, match=r"missing blocks.3.norm1|superfluous blocks.3.norm9"):
        load_baseline(f"timm:{VIT.name}:{tmp_path / 'vit.safetensors'}")


@pytest.mark.parametrize(
    ("content", "entry", "message"),
    [
        ([OWN], None, "holds a list"),
        ({"weights": OWN, "epoch": 3}, None, "State dicts are in: weights"),
        ({"epoch": 3}, None, "No entry is a state dict"),
        ({"teacher": OWN}, "teachr", "Did you mean 'teacher'"),
        ({}, None, "No entry is a state dict"),
    ],
)
def test_a_state_dict_that_is_not_found_by_name_is_not_guessed(
    content: object, entry: str | None, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        find_entry(content, entry)


def test_a_named_entry_of_any_name_is_taken() -> None:
    assert find_entry({"weights": OWN, "teacher": {"x": torch.zeros(1)}}, "weights").tensors == OWN


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"decoder.weight": torch.zeros(1)}, "neither the network nor a head"),
        ({"module.conv1.weight": torch.zeros(1)}, "start with module. and backbone."),
    ],
)
def test_what_stands_beside_a_prefix_must_be_a_head(others: dict[str, Tensor], message: str) -> None:
    wrapped = {f"backbone.{key}": tensor for key, tensor in OWN.items()}
    with pytest.raises(CheckpointError, match=message):
        own_keys(wrapped | others, OWN)


def test_a_head_that_is_the_networks_own_stays() -> None:
    own = {**OWN, "head.weight": torch.ones(1)}
    assert own_keys(own, own) == (own, ())


def test_dinov3_is_timms_and_its_tag_says_how_it_was_trained(tmp_path: Path) -> None:
    """A small network of the family, whose keys are those of the large one for satellite images."""
    name = "vit_small_patch16_dinov3"
    theirs = timm.create_model(name, num_classes=0, img_size=64).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    save_file(theirs.state_dict(), tmp_path / "dinov3.safetensors")
    pixels = torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    baseline = load_baseline(f"timm:{name}:{tmp_path / 'dinov3.safetensors'}")
    with torch.no_grad():
        torch.testing.assert_close(baseline.encoder(pixels), theirs(pixels), rtol=0, atol=1e-6)
    published = published_weights("vit_large_patch16_dinov3.sat493m")
    large, small = (timm.create_model(one, num_classes=0, depth=1) for one in ("vit_large_patch16_dinov3", name))
    assert large.state_dict().keys() == small.state_dict().keys()
    assert published.training.startswith("DINOv3 on SAT-493M")
    assert (
        published.scaling
        == "mean (0.43, 0.411, 0.296) and standard deviation (0.213, 0.156, 0.143) of values from 0 to 1"
    )
    assert (published.repository, published.licence) == ("timm/vit_large_patch16_dinov3.sat493m", "dinov3-license")
    assert published_weights("resnet50.tv_in1k").training == "supervised on ImageNet"
    assert published_weights("vit_small_patch14_dinov2.lvd142m").training == "as timm's tag lvd142m says"
