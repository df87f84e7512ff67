"""Exports as files: what is inside, what stands beside them, and what is refused before anything is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch

from small_encoders import SENSOR, VIT, card_of, trained
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.errors import BandError, ConfigError, TerrasieveError, WriteError
from terrasieve.exports import programs
from terrasieve.exports.exporting import export_encoder
from terrasieve.exports.model_item import model_item
from terrasieve.exports.prepared import prepare_encoder
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.views.render import Normaliser

Make = Callable[..., Path]
RGB = EncoderInput.parse("s2:rgb")
ITEM_SCHEMA = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"


# ------------------------------------------------------------- preprocessing


@pytest.mark.parametrize("size", [32, 64])
def test_the_preprocessing_inside_is_that_of_embedding(size: int) -> None:
    encoder, card = trained(VIT), card_of(VIT)
    prepared = prepare_encoder(encoder, card, RGB, size)
    pixels = torch.rand(3, 3, size, size) * 30_000 - 2_000
    pixels[0, 0, :4], pixels[1, 1, 3], pixels[2, 2, 0, 0] = torch.nan, torch.inf, 0
    before = pixels.clone()
    channels = [("s2", band) for band in ("B04", "B03", "B02")]
    with torch.inference_mode():
        expected = encoder(Normaliser(card.sensors, card.statistics)(pixels, channels))
        found = prepared(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(pixels.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224", "test_efficientnet"])
@pytest.mark.parametrize("size", [64, 128])
def test_a_network_prepared_for_a_size_computes_what_it_did(name: str, size: int) -> None:
    spec = BackboneSpec(name=name, channels=3)
    encoder = build_encoder(spec, seed=0).eval()
    prepared = prepare_encoder(encoder, card_of(spec), RGB, size)
    pixels = prepared.example(2)
    with torch.inference_mode():
        torch.testing.assert_close(prepared(pixels), encoder(prepared.standardised(pixels)), rtol=1e-4, atol=1e-5)


def test_the_first_bands_that_fit_are_shown_when_nobody_says() -> None:
    wide = BackboneSpec(name="test_resnet", channels=12)
    assert prepare_encoder(trained(wide), card_of(wide)).shown.bands == SENSOR.names


@pytest.mark.parametrize(
    ("shown", "size", "error", "message"),
    [
        ("s2:B04", None, BandError, "has 1 band"),
        ("s2:B04,B03,B99", None, BandError, "no band 'B99'"),
        ("s1:VV", None, BandError, "s1"),
        ("s2:rgb", 30, ConfigError, "--size 32"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(
    shown: str, size: int | None, error: type[TerrasieveError], message: str, make_run: Make, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        export_encoder(make_run(), tmp_path / "m.pt2", "torch", EncoderInput.parse(shown), size)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_encoder_of_unknown_sensors_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not say what sensors"):
        prepare_encoder(trained(VIT), card_of(VIT).model_copy(update={"sensors": {}}))


# -------------------------------------------------------------------- files


def test_a_program_says_what_its_channels_are(make_run: Make, tmp_path: Path) -> None:
    run = make_run(BackboneSpec(name="test_resnet", channels=2))
    report = export_encoder(run, tmp_path / "m.pt2", "torch", EncoderInput.parse("s2:B08,B04"))
    extra = {"terrasieve.json": ""}
    program = torch.export.load(tmp_path / "m.pt2", extra_files=extra).module()
    said = json.loads(extra["terrasieve.json"])
    assert [(band["name"], band["unit"], band["low"], band["high"]) for band in said["bands"]] == [
        ("B08", "reflectance_e4", 0, 20_000),
        ("B04", "reflectance_e4", 0, 20_000),
    ]
    assert (said["size"], said["applied"]) == (32, "inside")
    for samples in (1, 2, 7):
        assert program(torch.full((samples, 2, 32, 32), 800.0)).shape == (samples, said["features"])
    item = json.loads(report.item.read_text())
    content = (tmp_path / "m.pt2").read_bytes()
    asset = item["assets"]["model"]
    assert report.item.name == "m.pt2.item.json"
    assert (asset["href"], asset["file:size"]) == ("./m.pt2", len(content))
    assert asset["file:checksum"] == f"1220{sha256(content).hexdigest()}"
    # What the program does itself nobody is told to do again.
    assert "value_scaling" not in item["properties"]["mlm:input"][0]


def test_what_computes_something_else_is_not_written(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(BackboneSpec(name="test_resnet", channels=3))
    real = programs.load
    monkeypatch.setattr(programs, "load", lambda content: _Shifted(real(content).module()))
    with pytest.raises(ConfigError, match="features that are off by"):
        export_encoder(run, tmp_path / "m.pt2", "torch", RGB)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


class _Shifted:
    def __init__(self, real: Any) -> None:
        self.real = real

    def module(self) -> Any:
        return lambda pixels: self.real(pixels) * 1.01


def test_a_network_that_cannot_be_recorded_is_named(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("data-dependent branch\nmuch more")

    monkeypatch.setattr(programs, "export", refuse)
    with pytest.raises(ConfigError, match=r"cannot record test_vit: RuntimeError: data-dependent branch Take"):
        export_encoder(make_run(), tmp_path / "m.pt2", "torch", RGB)


def test_onnx_without_its_packages_says_what_to_install(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"terrasieve\[onnx\]"):
        export_encoder(make_run(), tmp_path / "m.onnx", "onnx", RGB)


def test_a_folder_with_something_in_it_is_left_alone(make_run: Make, tmp_path: Path) -> None:
    run, out = make_run(), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(WriteError, match="not empty"):
        export_encoder(run, out, "timm", RGB)
    export_encoder(run, out, "timm", RGB, overwrite=True)
    names = ["config.json", "encoder.json", "encoder.safetensors", "item.json", "notes.txt"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert (out / "encoder.safetensors").read_bytes() == (run / "encoder" / "encoder.safetensors").read_bytes()


def test_an_encoder_of_an_earlier_version_gets_its_description(make_run: Make, tmp_path: Path) -> None:
    run = make_run()
    (run / "encoder" / "config.json").rename(tmp_path / "config.json")
    export_encoder(run, tmp_path / "out", "timm", RGB)
    assert (tmp_path / "out" / "config.json").read_bytes() == (tmp_path / "config.json").read_bytes()


# --------------------------------------------------------------------- item


@pytest.mark.parametrize("form", ["timm", "transformers"])
def test_the_item_is_valid_stac_and_says_how_to_standardise(form: Any, make_run: Make, tmp_path: Path) -> None:
    model = pytest.importorskip("stac_model.schema", reason="stac-model is not installed")
    local = pytest.importorskip("pystac.validation.local_validator", reason="pystac[validation] is not installed")
    jsonschema, referencing = pytest.importorskip("jsonschema"), pytest.importorskip("referencing")
    schemas = local.get_local_schema_cache()
    known = [(address, referencing.Resource.from_contents(schema)) for address, schema in schemas.items()]
    report = export_encoder(make_run(), tmp_path / "out", form, RGB)
    item = json.loads(report.item.read_text())
    registry = referencing.Registry().with_resources(known)
    jsonschema.Draft7Validator(schemas[ITEM_SCHEMA], registry=registry).validate(item)
    properties = model.MLModelProperties.model_validate(item["properties"])
    (taken,), (given,) = properties.input, properties.output
    assert (taken.bands, taken.input.shape) == (["B04", "B03", "B02"], [-1, 3, 32, 32])
    means = {entry.band: entry.mean for entry in card_of(VIT).statistics["s2"]}
    assert [one.mean for one in taken.value_scaling] == [means[band] for band in ("B04", "B03", "B02")]
    assert given.result.shape == [-1, 64]
    assert item["properties"]["mlm:name"] == "small-one"
    names = [band["name"] for band in item["assets"]["model"]["bands"]]
    assert names == [band["name"] for band in item["properties"]["bands"]] == ["B04", "B03", "B02"]


@pytest.mark.parametrize(
    ("recipe", "name"), [("a", "encoder-a"), ("2nd", "encoder-2nd"), ("é !", "encoder-unnamed"), ("x y.", "x-y")]
)
def test_any_recipe_has_a_name_that_the_extension_takes(recipe: str, name: str) -> None:
    interface = prepare_encoder(trained(VIT), card_of(VIT), RGB).interface("before")
    item = model_item(interface.model_copy(update={"recipe": recipe}), {}, datetime(2026, 1, 2, tzinfo=UTC))
    assert item["properties"]["mlm:name"] == name
    assert item["properties"]["datetime"] == "2026-01-02T00:00:00Z"
