"""Recipes for DINO, and what their views have to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from terrasieve.archive.opening import open_archive
from terrasieve.config import load_config
from terrasieve.errors import ConfigError
from terrasieve.methods.dino import Dino, DinoSpec
from terrasieve.models.backbone import build_encoder, check_sizes
from terrasieve.pretrain import make_job
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
    assert method.spec == config.method


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
