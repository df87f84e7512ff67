"""Pretrained weights that a run starts from: found by what a user writes, and made to fit by stated rules."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from terrasieve.baselines.starting import start_from
from terrasieve.baselines.torchgeo_weights import known_weights
from terrasieve.errors import CheckpointError, ConfigError, TerrasieveError
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.export import EncoderCard, save_encoder
from terrasieve.models.first_layer import first_layer_keys
from terrasieve.runs import Provenance, StartingWeights
from terrasieve.sensors import SENSORS
from terrasieve.views.plan import ViewPlanner
from terrasieve.views.recipe import ViewRecipe

SENSORS_HERE = {"s2": SENSORS["s2-l2a"], "s1": SENSORS["s1"]}
RGB = ("s2:B04", "s2:B03", "s2:B02")
BY_KIND = {"name": "all", "picks": [{"sensor": "optical", "bands": ["B02", "B04", "B03"], "count": 3}], "size": 32}
ANY = ("s2:B02", "s2:B03", "s2:B04", "s2:B08")


def card(
    *views: Sequence[str], name: str = "test_resnet", channels: int = 3, size: int | None = None, shuffled: bool = False
) -> EncoderCard:
    """The card of a run whose views pick from the bands named, in any order where they are ``shuffled``."""
    branches = [{"name": str(i), "picks": picks(view, channels, shuffled), "size": 32} for i, view in enumerate(views)]
    recipe = ViewRecipe.model_validate({"branches": branches})
    return EncoderCard(
        backbone=BackboneSpec(name=name, channels=channels, image_size=size),
        method="byol",
        recipe="small",
        image_size=32,
        sensors=SENSORS_HERE,
        view_bands=tuple(
            tuple(f"{key}:{band}" for key, band in view) for view in ViewPlanner(recipe, SENSORS_HERE, 0).channels
        ),
        statistics={},
        provenance=Provenance(terrasieve="1.0", step=12, config={"views": recipe.model_dump(mode="json")}),
    )


def picks(view: Sequence[str], channels: int, shuffled: bool) -> list[dict[str, object]]:
    named = [label.split(":") for label in view]
    if shuffled:
        key = named[0][0]
        return [{"sensor": key, "bands": [band for _, band in named], "count": 1}] * channels
    if len(view) == channels:
        return [{"sensor": key, "bands": band} for key, band in named]
    return [{"sensor": named[0][0], "bands": [band for _, band in named], "count": channels}]


def shaken(name: str, channels: int, size: int | None = None) -> Encoder:
    """An encoder whose every weight and statistic is its own."""
    encoder = build_encoder(BackboneSpec(name=name, channels=channels, image_size=size), seed=7)
    generator = torch.Generator().manual_seed(channels)
    for tensor in encoder.model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1.0, generator=generator)
        else:
            tensor.fill_(5)
    return encoder.eval()


def started(init: object, wanted: EncoderCard) -> tuple[Encoder, StartingWeights]:
    encoder = build_encoder(wanted.backbone, seed=1)
    return encoder, start_from(encoder, str(init), wanted)


def first(encoder: Encoder) -> Tensor:
    (key,) = first_layer_keys(encoder.model)
    return encoder.model.state_dict()[key]


def assert_same_beyond_the_first_layer(ours: Encoder, theirs: Encoder) -> None:
    own, other = ours.model.state_dict(), theirs.model.state_dict()
    beyond = own.keys() - set(first_layer_keys(ours.model))
    assert own.keys() == other.keys()
    assert [key for key in beyond if not torch.equal(own[key], other[key])] == []


# ------------------------------------------------------------------ others' files


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_state_dict_of_unknown_bands_is_averaged_and_else_exact(name: str, tmp_path: Path) -> None:
    source = shaken(name, 4)
    save_file(source.model.state_dict(), tmp_path / "mine.safetensors")
    encoder, said = started(tmp_path / "mine.safetensors", card(RGB, name=name))
    assert_same_beyond_the_first_layer(encoder, source)
    expected = first(source).mean(1, keepdim=True).expand(-1, 3, -1, -1) * 4 / 3
    torch.testing.assert_close(first(encoder), expected)
    assert said.first_layer == "averaged over 4 bands"
    assert said.source == str(tmp_path / "mine.safetensors")
    assert len(said.sha256) == 64


def test_kernels_of_unknown_bands_are_never_copied_by_position(tmp_path: Path) -> None:
    source = shaken("test_resnet", 3)
    save_file(source.model.state_dict(), tmp_path / "mine.safetensors")
    encoder, said = started(f"timm:test_resnet:{tmp_path / 'mine.safetensors'}", card(RGB))
    torch.testing.assert_close(first(encoder), first(source).mean(1, keepdim=True).expand(-1, 3, -1, -1))
    assert said.first_layer == "averaged over 3 bands"


@pytest.mark.parametrize(
    ("view", "order", "said"),
    [
        (RGB, [0, 1, 2], "by name: B04 from red, B03 from green, B02 from blue"),
        (RGB[::-1], [2, 1, 0], "by name: B02 from blue, B03 from green, B04 from red"),
    ],
)
def test_kernels_of_colours_follow_their_bands(
    view: Sequence[str], order: list[int], said: str, tmp_path: Path
) -> None:
    source = shaken("resnet18", 3)
    save_file(source.model.state_dict(), tmp_path / "photographs.safetensors")
    encoder, told = started(f"imagenet:resnet18:{tmp_path / 'photographs.safetensors'}", card(view, name="resnet18"))
    assert torch.equal(first(encoder), first(source)[:, order])
    assert_same_beyond_the_first_layer(encoder, source)
    assert told.first_layer == said


@pytest.mark.parametrize("views", [(ANY,), (RGB, ("s1:VV", "s1:VH", "s2:B08")), (RGB, RGB[::-1])])
def test_channels_that_stand_for_no_one_band_are_averaged(views: Sequence[Sequence[str]], tmp_path: Path) -> None:
    source = shaken("resnet18", 3)
    save_file(source.model.state_dict(), tmp_path / "photographs.safetensors")
    init = f"imagenet:resnet18:{tmp_path / 'photographs.safetensors'}"
    encoder, said = started(init, card(*views, name="resnet18"))
    torch.testing.assert_close(first(encoder), first(source).mean(1, keepdim=True).expand(-1, 3, -1, -1))
    assert said.first_layer == "averaged over 3 bands"
    single, said = started(init, card(ANY, name="resnet18", channels=1))
    torch.testing.assert_close(first(single), first(source).sum(1, keepdim=True))
    assert said.first_layer == "averaged over 3 bands"


def test_bands_of_torchgeos_weights_follow_their_names(tmp_path: Path) -> None:
    name = "ResNet18_Weights.SENTINEL2_ALL_MOCO"
    source = shaken("resnet18", 13)
    save_file(source.model.state_dict(), tmp_path / "moco.safetensors")
    view = ("s2:B8A", "s2:B06", "s1:VV")
    encoder, said = started(f"torchgeo:{name}:{tmp_path / 'moco.safetensors'}", card(view, name="resnet18"))
    bands = known_weights(name).facts.bands
    assert bands is not None
    kernels = first(source) * 13 / 3
    torch.testing.assert_close(first(encoder)[:, 0], kernels[:, bands.index("B8A")])
    torch.testing.assert_close(first(encoder)[:, 1], kernels[:, bands.index("B06")])
    torch.testing.assert_close(first(encoder)[:, 2], kernels.mean(1))
    assert said.first_layer == "by name: B8A, B06; VV averaged over 13 bands"
    assert said.licence == "CC-BY-4.0"


def test_bands_that_change_places_are_no_names(tmp_path: Path) -> None:
    source = shaken("resnet18", 3)
    save_file(source.model.state_dict(), tmp_path / "photographs.safetensors")
    init = f"imagenet:resnet18:{tmp_path / 'photographs.safetensors'}"
    _, said = started(init, card(RGB, name="resnet18", shuffled=True))
    assert said.first_layer == "averaged over 3 bands"
    save_encoder(tmp_path / "ours", source, card(RGB, name="resnet18"))
    _, said = started(tmp_path / "ours", card(RGB, name="resnet18", shuffled=True))
    assert said.first_layer == "averaged over 3 bands"


# ------------------------------------------------------------------- folders of hubs


def hub_folder(folder: Path, source: Encoder, architecture: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": architecture, "num_classes": 10}))
    head = {"fc.weight": torch.zeros(10, source.features), "fc.bias": torch.zeros(10)}
    save_file({**source.model.state_dict(), **head}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("form", ["{}", "hub:{}"])
def test_a_folder_of_a_timm_repository(form: str, tmp_path: Path) -> None:
    source = shaken("test_resnet", 2)
    folder = hub_folder(tmp_path / "repository", source, "test_resnet")
    encoder, said = started(form.format(folder), card(RGB))
    assert_same_beyond_the_first_layer(encoder, source)
    assert said.first_layer == "averaged over 2 bands"
    assert said.notes == ("left out: fc.bias, fc.weight",)


def test_a_repository_of_timm_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    source = shaken("resnet18", 3)
    folder = hub_folder(tmp_path / "snapshot", source, "resnet18")
    asked = []

    def fetch(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(folder / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    encoder, said = started("hub:timm/resnet18.a1_in1k", card(RGB, name="resnet18"))
    assert_same_beyond_the_first_layer(encoder, source)
    assert said.first_layer.startswith("by name: B04 from red")
    assert said.licence == "apache-2.0"
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors"), ("timm/resnet18.a1_in1k", "config.json")]
    # Somebody else's network of three channels need not be of photographs.
    _, said = started("hub:somebody/resnet18", card(RGB, name="resnet18"))
    assert said.first_layer == "averaged over 3 bands"
    assert said.citation == "huggingface.co/somebody/resnet18"


# ------------------------------------------------------------------------ our own


@pytest.mark.parametrize("inside_run", [True, False])
@pytest.mark.parametrize(
    ("old", "new", "channels"),
    [
        ([RGB], [RGB], 3),
        ([ANY, ("s1:VV", "s1:VH")], [ANY, ("s1:VV", "s1:VH")], 1),
        ([ANY], [ANY], 3),
        # Another archive, whose random bands are others: each channel was and is any of them.
        ([ANY], [("s2:B08", "s2:B11", "s2:B12", "s2:B02", "s2:B03")], 3),
        ([("s2:B04", "s2:B03")], [("s1:VV", "s1:VH")], 1),
    ],
)
def test_a_run_of_ours_goes_on_with_the_same_features(
    old: Sequence[Sequence[str]], new: Sequence[Sequence[str]], channels: int, inside_run: bool, tmp_path: Path
) -> None:
    source = shaken("test_resnet", channels)
    written = save_encoder(tmp_path / "encoder" if inside_run else tmp_path, source, card(*old, channels=channels))
    encoder, said = started(tmp_path, card(*new, channels=channels))
    pixels = torch.randn(2, channels, 32, 32)
    with torch.no_grad():
        assert torch.equal(encoder.eval()(pixels), source(pixels))
    assert said.first_layer.startswith("kept as it was")
    assert (said.sha256, said.name, said.training) == (written.weights_sha256, "small test_resnet", "byol, 12 steps")


def test_a_run_of_ours_with_its_bands_in_another_order(tmp_path: Path) -> None:
    source = shaken("test_resnet", 3)
    save_encoder(tmp_path, source, card(RGB))
    encoder, said = started(tmp_path, card(RGB[::-1], RGB[::-1]))
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(pixels.flip(1)), source(pixels))
    assert said.first_layer == "by name: B02, B03, B04"


def test_a_key_of_another_archive_is_no_name_of_a_band(tmp_path: Path) -> None:
    source = shaken("test_resnet", 3)
    save_encoder(tmp_path, source, card(RGB))
    elsewhere = card(("s2:B02", "s2:B04", "s2:B03")).model_copy(
        update={
            "sensors": {"a:b": SENSORS["s2-rgb8"]},
            "view_bands": (("a:b:B02", "a:b:B04", "a:b:B03"),),
            "provenance": Provenance(config={"views": {"branches": [BY_KIND]}}),
        }
    )
    encoder, said = started(tmp_path, elsewhere)
    assert torch.equal(first(encoder), first(source)[:, [2, 0, 1]])
    assert said.first_layer == "by name: B02, B04, B03"


def test_what_a_run_of_ours_started_from_is_not_forgotten(tmp_path: Path) -> None:
    before = StartingWeights(
        source="seco:x", name="SeCo", training="SeCo on its data set", first_layer="averaged", licence="Apache-2.0"
    )
    old = card(RGB).model_copy(
        update={"provenance": Provenance(step=3, start=before, config=card(RGB).provenance.config)}
    )
    save_encoder(tmp_path, shaken("test_resnet", 3), old)
    _, said = started(tmp_path, card(RGB))
    assert said.licence == "Apache-2.0"
    assert said.notes == ("which itself started from SeCo (SeCo on its data set)",)


# ------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("init", "kind", "message"),
    [
        ("runs/nowhere", ConfigError, r"runs/nowhere: there is no such file or folder.*hub:<owner>/<name>"),
        ("imagnet:resnet18", ConfigError, r"no such file or folder.*imagenet:test_resnet"),
        ("random:test_resnet", ConfigError, r"Set model.init=null"),
        ("timm:test_resnet", ConfigError, r"needs a local file"),
        ("{folder}", CheckpointError, r"config\.json"),
        ("{folder}/resnet18.safetensors", CheckpointError, r"set model.name if it is another"),
        (
            "timm:resnet18:{folder}/resnet18.safetensors",
            ConfigError,
            r"holds a resnet18, but model.name is test_resnet",
        ),
        ("{folder}/run", ConfigError, r"holds a resnet18.*Set model.name=resnet18"),
    ],
)
def test_errors_say_what_to_do(init: str, kind: type[TerrasieveError], message: str, tmp_path: Path) -> None:
    source = shaken("resnet18", 3)
    save_file(source.model.state_dict(), tmp_path / "resnet18.safetensors")
    save_encoder(tmp_path / "run" / "encoder", source, card(RGB, name="resnet18"))
    with pytest.raises(kind, match=message):
        started(init.format(folder=tmp_path), card(RGB))


def test_without_a_network_the_way_around_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(repository: str, file: str) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(CheckpointError, match=r"Download it elsewhere and name it: hub:<folder>"):
        started("hub:timm/test_resnet.r160_in1k", card(RGB))
    with pytest.raises(CheckpointError, match=r"Download it elsewhere and name it: imagenet:resnet18\.\w+:<file>"):
        started("imagenet:resnet18", card(RGB, name="resnet18"))


def test_a_vit_of_another_image_size_is_refused_with_the_setting(tmp_path: Path) -> None:
    source = shaken("test_vit", 3)
    save_file(source.model.state_dict(), tmp_path / "vit.safetensors")
    wanted = card(RGB, name="test_vit", size=64)
    with pytest.raises(ConfigError, match=r"images of 160 pixels. Set model.image_size=160"):
        started(tmp_path / "vit.safetensors", wanted)
    encoder, _ = started(tmp_path / "vit.safetensors", card(RGB, name="test_vit", size=160))
    assert_same_beyond_the_first_layer(encoder, source)
