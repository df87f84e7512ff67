"""Files come to be whole or not at all, and what the system refuses is said in one line with a fix."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from terrasieve.errors import WriteError
from terrasieve.files.writing import write_tensors, write_text, write_together, write_whole

SOURCE = Path(__file__).parents[2] / "src" / "terrasieve"


def _refuse(number: int) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def _write_a_part(path: Path) -> None:
    path.write_text("new")
    raise ZeroDivisionError


def test_a_file_appears_whole_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text.md"
    with write_whole(path) as partial:
        partial.write_text("half")
        assert not path.exists()
        assert partial.parent == path.parent
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["text.md"]


def test_what_fails_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = write_text(tmp_path / "text.md", "old")
    with pytest.raises(ZeroDivisionError), write_whole(path) as partial:
        _write_a_part(partial)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["text.md"]


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "store"
    left = tmp_path / ".store.partial"
    left.mkdir()
    (left / "half").write_text("half")
    with write_whole(path) as partial:
        partial.mkdir()
        (partial / "whole").write_text("whole")
    assert os.listdir(tmp_path) == ["store"]
    assert os.listdir(path) == ["whole"]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with write_whole(tmp_path / "store") as partial:
            (partial / "deep").mkdir(parents=True)
            (partial / "deep" / content).write_text(content)
    assert os.listdir(tmp_path / "store" / "deep") == ["new"]


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def checked(partial: Path, path: Path) -> None:
        assert {str(partial), str(partial / "inside")} <= set(flushed)
        replace(partial, path)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", checked)
    with write_whole(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "inside").write_text("text")
    assert str(tmp_path) in flushed, "the new name is in the folder, which has to be flushed too"


def test_files_that_belong_together_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, card = tmp_path / "weights", tmp_path / "card"
    write_together({weights: b"old", card: b"old"})
    fsync, calls = os.fsync, iter(range(2))

    def second_fails(descriptor: int) -> None:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", second_fails)
    with pytest.raises(WriteError, match=re.escape(str(card))):
        write_together({weights: b"new", card: b"new"})
    assert (weights.read_bytes(), card.read_bytes()) == (b"old", b"old")
    assert sorted(os.listdir(tmp_path)) == ["card", "weights"]


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "may write to"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "another place"),
    ],
)
def test_the_error_names_file_reason_and_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fix: str
) -> None:
    path = write_text(tmp_path / "text.md", "old")
    monkeypatch.setattr(os, "replace", _refuse(number))
    with pytest.raises(WriteError) as caught:
        write_text(path, "new")
    assert str(path) in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert fix in str(caught.value)
    assert path.read_text() == "old"


def test_a_disk_without_inodes_is_told_from_a_full_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = os.statvfs(tmp_path)
    full = os.statvfs_result((*state[:5], 1000, 0, 0, *state[8:]))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    monkeypatch.setattr(os, "replace", _refuse(errno.ENOSPC))
    with pytest.raises(WriteError, match="another file, however small"):
        write_text(tmp_path / "text.md", "text")


def test_names_that_will_not_do(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="shorter name"):
        write_text(tmp_path / ("n" * 300), "text")
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="part of the path is a file"):
        write_text(tmp_path / "file" / "below" / "text.md", "text")


@pytest.mark.parametrize("name", ["n" * 255, "ö" * 127])
def test_the_longest_name_that_a_disk_takes_is_written(tmp_path: Path, name: str) -> None:
    assert write_text(tmp_path / name, "text").read_text() == "text"


def test_tensors_come_back_and_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    turned = torch.arange(6.0).reshape(2, 3).T
    write_tensors(path, {"turned": turned})
    assert torch.equal(load_file(path)["turned"], turned)

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(WriteError, match="Free some space"):
        write_tensors(path, {"turned": turned})
    assert torch.equal(load_file(path)["turned"], turned)


def test_nothing_else_publishes_files() -> None:
    ways = re.compile(r"os\.(replace|rename)\(|\.rename\(|shutil\.move|\.partial\b|fsync")
    found = [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in SOURCE.rglob("*.py")
        if path.name != "writing.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if ways.search(line)
    ]
    assert not found
