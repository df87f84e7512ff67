"""No traceback reaches a user, whatever goes wrong."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
import torch

from terrasieve.cli.boundary import guarded
from terrasieve.errors import ArchiveError


def _said(error: BaseException, capsys: pytest.CaptureFixture[str]) -> str:
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        guarded(command)
    assert stopped.value.code == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    return " ".join(printed.split())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ArchiveError("a.zarr is none."), "ArchiveError: a.zarr is none."),
        (MemoryError(), "MemoryError: There is not enough memory"),
        (MemoryError("Unable to allocate 14.9 GiB for an array"), "Unable to allocate 14.9 GiB"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "train.batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "--batch-size"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "There is not enough memory"),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:1"), "with --resume"),
        (RuntimeError("[gloo] Timed out waiting 1800000ms for recv operation"), "longer than train.timeout_minutes"),
        (RuntimeError("The client socket has timed out after 60000ms, connecting to (first, 1)."), "did not meet"),
        (PermissionError(errno.EACCES, "Permission denied", "a.csv"), "PermissionError: a.csv: Permission denied."),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(
    error: BaseException, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in _said(error, capsys)


def test_what_nobody_foresaw_is_kept_for_a_report(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = _said(ValueError("embedded\nnull byte"), capsys)
    assert "ValueError: embedded null byte. This is a fault of terrasieve" in said
    (kept,) = os.listdir(tmp_path)
    assert kept in said
    text = (tmp_path / kept).read_text()
    assert re.search(r"Traceback(.|\n)*ValueError: embedded\nnull byte", text)


def test_a_full_disk_for_the_report_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    assert "its details cannot be written: No space left on device" in _said(KeyError("x"), capsys)
