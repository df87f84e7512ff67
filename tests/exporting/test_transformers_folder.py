"""transformers loads its own classes, with every tensor in its place, and gives the same features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from small_encoders import card_of, trained
from terrasieve.baselines.state_dicts import hugging_face_resnet_keys
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.errors import ConfigError
from terrasieve.exports.prepared import prepare_encoder
from terrasieve.exports.transformers_folder import transformers_folder
from terrasieve.models.backbone import BackboneSpec

VIT = BackboneSpec(name="test_vit", channels=1, image_size=64, patch_size=8)
CASES = {
    "basic": (BackboneSpec(name="resnet18", channels=2), "ResNetModel"),
    "bottlenecks": (BackboneSpec(name="resnet26", channels=1), "ResNetModel"),
    "vit": (VIT, "ViTModel"),
    "registers": (VIT.model_copy(update={"registers": 3}), "Dinov2WithRegistersModel"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "kind"), CASES.values(), ids=CASES)
def test_automodel_gives_the_same_features(spec: BackboneSpec, kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    encoder = trained(spec)
    # 32 pixels, another size than that of the position embedding: it is resampled as the encoder does.
    shown = EncoderInput.parse("s2:B04" if spec.channels == 1 else "s2:B08,B04")
    prepared = prepare_encoder(encoder, card_of(spec), shown, 32)
    for name, content in transformers_folder(prepared).items():
        (tmp_path / name).write_bytes(content)
    model, info = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True, trust_remote_code=False)
    assert type(model).__name__ == kind
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    pixels = prepared.standardised(prepared.example(3))
    with torch.inference_mode():
        found, expected = model.eval()(pixels).pooler_output.flatten(1), encoder(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert [band["name"] for band in model.config.terrasieve["bands"]] == list(prepared.shown.bands)


def test_names_of_a_resnet_are_those_that_baselines_read() -> None:
    spec = CASES["bottlenecks"][0]
    encoder = trained(spec)
    content = transformers_folder(prepare_encoder(encoder, card_of(spec)))["model.safetensors"]
    back, own = hugging_face_resnet_keys(load(content)), encoder.model.state_dict()
    assert back.keys() == own.keys()
    assert all(torch.equal(back[name], own[name]) for name in own)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "resnetaa50", "test_vit2"])
def test_what_transformers_does_not_compute_is_refused(name: str) -> None:
    spec = BackboneSpec(name=name, channels=1)
    with pytest.raises(ConfigError, match=f"transformers has no class of its own for {name}: .* Take --format timm"):
        transformers_folder(prepare_encoder(trained(spec), card_of(spec), size=64))
