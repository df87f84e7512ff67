"""A weights file is read, never run; what it is, is checked."""

from __future__ import annotations

import hashlib
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.serialization import get_safe_globals

from terrasieve.baselines.weights import read_weights
from terrasieve.errors import CheckpointError

WEIGHTS = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


class _Settings:
    pass


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pth.tar"])
def test_a_hostile_pickle_does_nothing(zipped: bool, suffix: str, tmp_path: Path) -> None:
    path, target = tmp_path / f"weights{suffix}", tmp_path / "exploded"
    torch.save({"state_dict": WEIGHTS, "extra": _Bomb(target)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="cannot be read safely") as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(_Bomb(tmp_path / "exploded"), protocol=2))
    with pytest.raises(CheckpointError, match="cannot be read safely"):
        read_weights(tmp_path / "weights.pth")
    assert not (tmp_path / "exploded").exists()


def test_an_unknown_class_is_named(tmp_path: Path) -> None:
    torch.save({"state_dict": WEIGHTS, "settings": _Settings()}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"it holds \S*_Settings, which is no tensor"):
        read_weights(tmp_path / "weights.pth")


def _lightning_of_old(monkeypatch: pytest.MonkeyPatch) -> tuple[type, Any]:
    """The class and function that Lightning 1.1 leaves in its checkpoints, under their names."""
    callback = type("ModelCheckpoint", (), {"__module__": "pytorch_lightning.callbacks.model_checkpoint"})

    def _gpus_arg_default(x: object) -> object:
        raise AssertionError("never called")

    _gpus_arg_default.__module__ = "pytorch_lightning.utilities.argparse_utils"
    _gpus_arg_default.__qualname__ = "_gpus_arg_default"
    for thing in (callback, _gpus_arg_default):
        parts = thing.__module__.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            module = sys.modules[name] if vars(sys.modules.get(name, object)).get("fake") else ModuleType(name)
            vars(module)["fake"] = True
            monkeypatch.setitem(sys.modules, name, module)
        vars(sys.modules[thing.__module__])[thing.__name__] = thing
    return callback, _gpus_arg_default


def test_what_lightning_left_beside_the_weights_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from argparse import Namespace

    with monkeypatch.context() as patch:
        callback, function = _lightning_of_old(patch)
        extra = {"callbacks": {callback: {"best": torch.tensor(1.0)}}, "hyper_parameters": {"gpus": function}}
        torch.save({"state_dict": WEIGHTS, "args": Namespace(lr=0.1), **extra}, tmp_path / "seco.ckpt")
    before = get_safe_globals()
    content = read_weights(tmp_path / "seco.ckpt").content
    torch.testing.assert_close(content["state_dict"], WEIGHTS)
    assert type(content["args"]) is not Namespace
    assert set(get_safe_globals()) == set(before)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_both_formats_and_the_hash_of_the_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(WEIGHTS, path)
    else:
        save_file(WEIGHTS, path)
    file = read_weights(path)
    torch.testing.assert_close(dict(file.content), WEIGHTS)
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_hash_in_a_name_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(WEIGHTS, path)
    start = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    right = path.rename(tmp_path / f"resnet50-{start}.pth")
    read_weights(right)
    wrong = right.rename(tmp_path / f"resnet50-{int(start, 16) ^ 1:08x}.pth")
    with pytest.raises(CheckpointError, match="damaged or incomplete"):
        read_weights(wrong)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>", None], ids=["empty", "a web page", "absent"])
def test_a_failed_download_is_named(suffix: str, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"[Cc]annot (be )?read") as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
