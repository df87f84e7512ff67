"""The text forms of baselines, and baselines that need no file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from terrasieve.baselines import loading
from terrasieve.baselines.baseline import FORMS, BaselineSpec, parse_baseline
from terrasieve.baselines.loading import load_baseline
from terrasieve.baselines.timm_files import published_weights
from terrasieve.errors import CheckpointError, ConfigError
from terrasieve.models.backbone import BackboneSpec, build_encoder


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("imagenet:resnet50", BaselineSpec(source="imagenet", name="resnet50")),
        ("imagenet:resnet50:/a/b.pth", BaselineSpec(source="imagenet", name="resnet50", file=Path("/a/b.pth"))),
        ("seco:/a/b:c.ckpt", BaselineSpec(source="seco", file=Path("/a/b:c.ckpt"))),
        ("torchgeo:A_Weights.B", BaselineSpec(source="torchgeo", name="A_Weights.B")),
        ("torchgeo:A.B@s1:/a.pth", BaselineSpec(source="torchgeo", name="A.B", file=Path("/a.pth"), bands="s1")),
        ("torchgeo:A.B@B04,B03", BaselineSpec(source="torchgeo", name="A.B", bands="B04,B03")),
        ("timm:vit:/a.pth#teacher", BaselineSpec(source="timm", name="vit", file=Path("/a.pth"), entry="teacher")),
        ("random:resnet18", BaselineSpec(source="random", name="resnet18", channels=3)),
        ("random:resnet18:1", BaselineSpec(source="random", name="resnet18", channels=1)),
        ("oceansar-1:folder", BaselineSpec(source="oceansar-1", file=Path("folder"))),
    ],
)
def test_text_forms(text: str, spec: BaselineSpec) -> None:
    assert parse_baseline(text) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sec0:/a", "Did you mean 'seco'"),
        ("", "There is no baseline"),
        ("seco", "write seco:<file>"),
        ("seco:", "write seco:<file>"),
        ("random:resnet18:many", "'many' in"),
        ("random:resnet18:0", "'0' in"),
        ("random:resnet18:²", "'²' in"),
    ],
)
def test_what_is_meant_is_asked(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_baseline(text)


@pytest.mark.parametrize("source", ["byol-imagenet", "seco", "coco-deeplabv3", "oceansar-1", "timm"])
def test_a_file_is_needed(source: str) -> None:
    spec = BaselineSpec.model_validate({"source": source, "name": "resnet18"})
    with pytest.raises(ConfigError, match="needs a local file; write"):
        load_baseline(spec)


@pytest.mark.parametrize("source", ["imagenet", "torchgeo", "timm", "random"])
def test_a_name_is_needed(source: str) -> None:
    with pytest.raises(ConfigError, match="needs a name; write"):
        load_baseline(BaselineSpec.model_validate({"source": source, "file": "x"}))


def test_every_source_has_a_form_and_a_loader() -> None:
    assert set(FORMS) == set(loading._LOADERS)


@pytest.mark.parametrize("seed", [0, 4])
def test_random_weights_are_those_of_the_seed(seed: int) -> None:
    baseline = load_baseline(BaselineSpec(source="random", name="resnet18", channels=2, seed=seed))
    expected = build_encoder(BackboneSpec(name="resnet18", channels=2), seed=seed)
    assert torch.equal(baseline.encoder.model.layer4[0].conv1.weight, expected.model.layer4[0].conv1.weight)
    assert (baseline.name, baseline.channels, baseline.bands, baseline.sha256) == (
        "random init resnet18",
        2,
        None,
        None,
    )


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ConfigError, match="resnet5O"):
        load_baseline("random:resnet5O")


def test_loading_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    load_baseline("random:resnet18")
    torch.save({"backbone.conv1.weight": torch.zeros(1)}, tmp_path / "deeplab.pth")
    with pytest.raises(CheckpointError):
        load_baseline(f"coco-deeplabv3:{tmp_path / 'deeplab.pth'}")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_a_description_says_what_a_reader_needs(tmp_path: Path) -> None:
    encoder = build_encoder(BackboneSpec(name="resnet18", channels=3), seed=1)
    torch.save({"state_dict": dict(encoder.model.state_dict())}, tmp_path / "mine.pth")
    baseline = load_baseline(f"timm:resnet18:{tmp_path / 'mine.pth'}")
    text = baseline.describe()
    for part in (
        "timm resnet18 mine",
        "512 features",
        "unknown",
        baseline.sha256,
        "the entry 'state_dict'",
        "mine.pth",
    ):
        assert part is not None
        assert part in text


def test_published_weights_of_timm() -> None:
    assert published_weights("resnet50.tv_in1k").repository == "timm/resnet50.tv_in1k"
    assert published_weights("resnet50.tv_in1k").licence == "bsd-3-clause"
    default = published_weights("resnet50")
    assert default.network == "resnet50"
    assert default.name.startswith("resnet50.")


def test_imagenet_weights_are_downloaded_when_no_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked = []

    def offline(repository: str, file: str) -> str:
        asked.append((repository, file))
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(CheckpointError, match=r"name it: imagenet:resnet18\.\w+:<file>"):
        load_baseline("imagenet:resnet18")
    assert asked == [(published_weights("resnet18").repository, "model.safetensors")]


def test_weights_that_timm_does_not_publish() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'resnet50\.tv_in1k'"):
        load_baseline("imagenet:resnet50.tv_in1")
    with pytest.raises(CheckpointError, match="publishes no weights of no_such_network"):
        load_baseline("imagenet:no_such_network")
