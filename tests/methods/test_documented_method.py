"""The method that the page on methods shows works as it stands there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import terrasieve._torchvision  # noqa: F401  (must come first: lightly imports torchvision)

import pytest
import torch
import yaml
from lightly.loss import BarlowTwinsLoss

from terrasieve.methods.base import MethodSpec
from terrasieve.models.backbone import BackboneSpec, build_encoder

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "add-a-method.md").read_text(encoding="utf-8")


def added(path: str) -> str:
    """What the page's diff adds to a file."""
    found = re.search(rf"\n\+\+\+ b/{re.escape(path)}\n@@.*\n((?:\+.*\n)+)", PAGE)
    assert found is not None, path
    return "".join(f"{line[1:]}\n" for line in found[1].splitlines())


@pytest.fixture
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "documented_method.py").write_text(added("src/terrasieve/methods/barlow_twins.py"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("documented_method")


def test_its_loss_equals_lightlys(documented: ModuleType) -> None:
    encoder = build_encoder(BackboneSpec(name="test_resnet"), seed=0)
    spec = documented.BarlowTwinsSpec(hidden=16, output=8)
    assert isinstance(spec, MethodSpec)
    method = spec.build(encoder, (1, 1), seed=0)
    views = [torch.randn(16, 1, 32, 32), torch.randn(16, 1, 32, 32)]
    projections = [method.projector(method.encoder(view)) for view in views]
    expected = BarlowTwinsLoss(lambda_param=spec.off_diagonal)(*projections)
    torch.testing.assert_close(method(views).loss, expected, rtol=1e-3, atol=1e-3)


def test_its_recipe_names_it(documented: ModuleType) -> None:
    recipe = yaml.safe_load(added("src/terrasieve/recipes/barlow-twins-small.yaml"))
    assert recipe["method"] == {"name": documented.BarlowTwinsSpec().name}
