"""``terrasieve export`` and ``terrasieve push``: what they write and say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import terrasieve._torchvision  # noqa: F401  (must come first: timm imports torchvision)

import pytest
import timm

from commanding import call
from terrasieve.errors import TerrasieveError

Make = Callable[..., Path]


def told(*words: object) -> str:
    """What a command says, in one line."""
    return " ".join(call(*words).split())


def test_export_says_what_the_model_takes(make_run: Make, tmp_path: Path) -> None:
    run, out = make_run(), tmp_path / "out"
    said = told("export", run, "--input", "s2:rgb", "--out", out)
    assert "Takes (n, 3, 32, 32) of s2-l2a: B04 (reflectance_e4), B03 (reflectance_e4), B02 (reflectance_e4)" in said
    assert "gives (n, 64)." in said
    # The console wraps long lines.
    assert f"STAC:{out / 'item.json'}" in "".join(said.split())
    assert timm.create_model(f"local-dir:{out}", pretrained=True).num_features == 64
    with pytest.raises(TerrasieveError, match="--overwrite"):
        told("export", run, "--out", out)


@pytest.mark.parametrize(("form", "end"), [("torch", ".pt2"), ("onnx", ".onnx")])
def test_a_program_has_its_own_ending(form: str, end: str, make_run: Make, tmp_path: Path) -> None:
    with pytest.raises(TerrasieveError, match=f"let it end in {end}"):
        told("export", make_run(), "--format", form, "--out", tmp_path / "model.bin")


def test_a_dry_run_lists_what_would_go(make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a dry run asks nobody")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    monkeypatch.setattr("huggingface_hub.get_token", refuse)
    said = told("push", make_run(), "somebody/first", "--dry-run")
    for name in ("README.md", "config.json", "encoder.json", "encoder.safetensors", "item.json"):
        assert name in said
    assert "MB" in said
    assert "Nothing was uploaded." in said
    assert not (tmp_path / "run" / "encoder" / "README.md").exists()


def test_a_push_says_how_to_load_it(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    sent = []
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_token")
    monkeypatch.setattr(
        "huggingface_hub.HfApi.create_repo", lambda *_, **asked: sent.append(asked) or "https://hub/x/y"
    )
    monkeypatch.setattr("huggingface_hub.HfApi.create_commit", lambda *_, **__: None)
    said = told("push", make_run(), "x/y", "--private")
    assert sent == [{"private": True, "exist_ok": True}]
    assert "Uploaded: https://hub/x/y" in said
    assert 'timm.create_model("hf-hub:x/y", pretrained=True)' in said
