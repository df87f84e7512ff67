"""Recipes for DINO, and what their views have to be."""

from __future__ import annotations

import json
from pathlib import Path

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import pytest
import timm
import torch
from safetensors.torch import load_file

from terrasieve.archive.opening import open_archive
from terrasieve.config import load_config
from terrasieve.errors import ConfigError
from terrasieve.methods.dino import Dino, DinoSpec
from terrasieve.methods.dinov2 import DinoV2Spec
from terrasieve.models.backbone import build_encoder, check_sizes
from terrasieve.pretraining import make_job, pretrain
from terrasieve.training.loop import make_fabric
from terrasieve.training.spec import AdamW, Sgd

OCEANSAR = {
    "oceansar-1-resnet50": ("resnet50", Sgd, 2048),
    "oceansar-1-vits16": ("vit_small_patch16_224", AdamW, 384),
    "oceansar-1-vits8": ("vit_small_patch8_224", AdamW, 384),
    "oceansar-1-vitb8": ("vit_base_patch8_224", AdamW, 768),
}
TINY = ("model.name=test_resnet", "method.hidden=8", "method.bottleneck=4", "method.prototypes=16")


@pytest.mark.parametrize("name", OCEANSAR)
def test_oceansar_recipes_state_what_is_published_and_that_the_rest_is_not(name: str) -> None:
    config = load_config(name)
    backbone, optimiser, _ = OCEANSAR[name]
    assert (config.model.name, config.model.channels) == (backbone, 1)
    assert isinstance(config.method, DinoSpec)
    assert isinstance(config.train.optimiser, optimiser)
    assert [pick.bands for branch in config.views.branches for pick in branch.picks] == [("VV",)] * 2
    assert config.views.branches[0].size == 256
    assert [branch.count for branch in config.views.branches] == [2, 8]
    assert "Not published, our defaults: everything else" in config.source


@pytest.mark.parametrize("name", ["oceansar-1-resnet50", "oceansar-1-vits16", "oceansar-1-vits8"])
def test_their_backbones_take_views_of_both_sizes(name: str) -> None:
    config = load_config(name)
    encoder = build_encoder(config.model, seed=0).eval()
    sizes = {branch.name: branch.size for branch in config.views.branches}
    check_sizes(encoder, sizes)
    assert encoder.features == OCEANSAR[name][2]
    with torch.inference_mode():
        assert encoder(torch.zeros(1, 1, sizes["local"], sizes["local"])).shape == (1, encoder.features)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["oceansar-1-vits16", "dino-small"])
def test_a_job_has_the_views_of_its_recipe(name: str, tmp_path: Path) -> None:
    config = load_config(name, [*TINY, "model.image_size=null"])
    method = make_job(config, open_archive("simulated:0:4"), tmp_path).method
    assert isinstance(method, Dino)
    assert (method.global_views, method.view_count) == (2, len(config.views.views))
    # Whose momentum is lowered where the run is short.
    assert method.spec.model_copy(update={"momentum": config.method.momentum}) == config.method


def test_oceansar_2_states_what_is_published_and_that_the_rest_is_not() -> None:
    config = load_config("oceansar-2-vits16")
    assert isinstance(config.method, DinoV2Spec)
    assert (config.model.name, config.model.channels, config.model.registers) == ("vit_small_patch16_224", 1, 4)
    assert config.method == DinoV2Spec(), "as the code of DINOv2 has it"
    assert "Not published, our defaults: everything else" in config.source
    encoder = build_encoder(config.model, seed=0)
    check_sizes(encoder, {branch.name: branch.size for branch in config.views.branches})


@pytest.mark.slow
def test_the_small_recipe_of_oceansar_2_trains_and_its_encoder_loads_in_plain_timm(tmp_path: Path) -> None:
    settings = ["train.steps=2", "train.batch_size=4", "train.schedule.warmup_steps=1", "model.name=test_vit"]
    config = load_config("oceansar-2-small", settings, "none")
    pretrain(config, open_archive("simulated-ocean:0:8"), tmp_path, make_fabric(config.train, "cpu"))
    card = json.loads((tmp_path / "encoder" / "encoder.json").read_text())
    backbone = card["backbone"]
    plain = timm.create_model(
        backbone["name"],
        in_chans=backbone["channels"],
        num_classes=0,
        img_size=backbone["image_size"],
        patch_size=backbone["patch_size"],
        reg_tokens=backbone["registers"],
    )
    plain.load_state_dict(load_file(tmp_path / "encoder" / "encoder.safetensors"))
    assert (card["method"], backbone["patch_size"], backbone["registers"]) == ("dinov2", 8, 1)
    assert plain.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 64)


def test_views_made_for_another_method_are_refused_with_the_remedy(tmp_path: Path) -> None:
    archive = open_archive("simulated:0:4")
    config = load_config("rs-byol-1-small", ["method=dino", *TINY])
    with pytest.raises(ConfigError, match=r"two or more global views .* given 1\..*set views\.branches\.0\.count=2"):
        make_job(config, archive, tmp_path)
    mended = load_config("rs-byol-1-small", ["method=dino", *TINY, "views.branches.0.count=2"])
    assert make_job(mended, archive, tmp_path).method.view_count == 3


def test_crops_that_are_not_whole_patches_are_refused_with_the_remedy(tmp_path: Path) -> None:
    config = load_config("dino-small", [*TINY, "model.name=test_vit", "views.branches.local.size=20"])
    with pytest.raises(ConfigError, match=r"'local' is 20 pixels wide.*Set views\.branches\.local\.size=16"):
        make_job(config, open_archive("simulated:0:4"), tmp_path)
