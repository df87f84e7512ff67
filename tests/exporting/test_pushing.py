"""What goes to a hub, and what is said where it cannot go."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from small_encoders import VIT, card_of
from terrasieve.errors import ConfigError, RemoteError
from terrasieve.exports.pushing import prepare_upload
from terrasieve.library.pretrained import load_pretrained
from terrasieve.reporting.card import write_card

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

Make = Callable[..., Path]
NAMES = ["README.md", "config.json", "encoder.json", "encoder.safetensors", "item.json"]


class FakeHub:
    """Takes what is uploaded."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[Any, ...]] = []

    def create_repo(self, repo_id: str, *, private: bool | None = None, exist_ok: bool = False) -> str:
        self.calls.append(("create", repo_id, private, exist_ok))
        return f"https://hub.example/{repo_id}"

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(("commit", repo_id, {one.path_in_repo: one.path_or_fileobj for one in operations}))


@pytest.mark.parametrize(("private", "asked"), [(True, True), (False, None)])
def test_card_and_encoder_go_in_one_commit(private: bool, asked: bool | None, make_run: Make) -> None:
    run, hub = make_run(), FakeHub()
    upload = prepare_upload(run, "somebody/first")
    assert upload.send(private, hub) == "https://hub.example/somebody/first"
    (created, (_, repository, files)) = hub.calls
    # Without a wish the owner's own setting holds.
    assert created == ("create", "somebody/first", asked, True)
    assert repository == "somebody/first"
    assert sorted(files) == NAMES
    for name in ("config.json", "encoder.safetensors"):
        assert files[name] == (run / "encoder" / name).read_bytes()
    assert files["README.md"].startswith(b"---\nlicense: other")
    assert json.loads(files["item.json"])["assets"]["model"]["href"] == "./encoder.safetensors"


def test_what_was_pushed_loads_by_its_name_with_its_card(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = prepare_upload(make_run(), "somebody/first")
    hub = tmp_path / "hub"
    hub.mkdir()
    for name, content in upload.files.items():
        (hub / name).write_bytes(content)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repository, file: str(hub / file))
    loaded, own = load_pretrained("somebody/first"), load_pretrained(tmp_path / "run")
    assert loaded.own
    assert loaded.card.statistics == own.card.statistics
    pixels = torch.rand(2, 3, 32, 32) * 3000
    with torch.inference_mode():
        assert torch.equal(loaded(loaded.preprocess(pixels, "s2:rgb")), own(own.preprocess(pixels, "s2:rgb")))


def test_no_folder_of_this_machine_is_told(make_run: Make) -> None:
    files = prepare_upload(make_run(), "somebody/first").files
    assert not [name for name, content in files.items() if b"/home/me" in content]
    told = json.loads(files["encoder.json"])
    assert told["provenance"]["data"]["root"] == "b.zarr"
    assert told["statistics"] == json.loads(card_of(VIT).model_dump_json())["statistics"]


def test_a_card_that_was_edited_goes_as_it_is(make_run: Make) -> None:
    run = make_run()
    assert prepare_upload(run, "somebody/first").made_card
    path = write_card(run, license="mit")
    path.write_text(path.read_text() + "\nMine.\n")
    upload = prepare_upload(run, "somebody/first")
    assert not upload.made_card
    assert upload.files["README.md"] == path.read_bytes()


def test_what_the_hub_refuses_is_told(make_run: Make) -> None:
    upload = prepare_upload(make_run(), "somebody/first")
    with pytest.raises(RemoteError, match=r"Nothing was uploaded to somebody/first: 403 Forbidden Check the name"):
        upload.send(False, FakeHub(OSError("403 Forbidden")))


@pytest.mark.parametrize("name", ["first", "a/b/c", "a/..", "some body/x", "a--b/c", "/x", "a" * 60 + "/" + "b" * 60])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="write owner/name"):
        prepare_upload(tmp_path, name)


def test_without_a_token_nothing_is_tried(make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match="hf auth login"):
        prepare_upload(make_run(), "somebody/first").send(False)
