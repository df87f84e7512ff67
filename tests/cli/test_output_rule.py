"""Every command has the same rule for what it writes, and applies it before it looks at what it reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Run = Callable[..., Any]

# What they read is absent: a command that says so has begun to work.
FILES = {
    "index": (["index", "absent", "--out"], "c.parquet"),
    "index --stac": (["index", "absent", "--out", "free.parquet", "--stac"], "s.parquet"),
    "info --sheet": (["info", "absent", "--sheet"], "s.png"),
    "collocate": (["collocate", "absent", "absent.csv", "--columns", "swh", "--out"], "c.parquet"),
    "curate": (["curate", "absent.npy", "--out"], "c.parquet"),
    "embed": (["embed", "absent", "--data", "absent", "--out"], "e.parquet"),
    "similar": (["similar", "absent", "--to", "absent", "--out"], "s.parquet"),
    "report": (["report", "absent", "--out"], "r.html"),
    "card": (["card", "absent", "--out"], "r.md"),
    "export": (["export", "absent", "--format", "torch", "--out"], "m.pt2"),
}
FOLDERS = {
    "pack": ["pack", "absent", "--out"],
    "export": ["export", "absent", "--out"],
    "wv ingest": ["wv", "ingest", "absent", "--out"],
    "explore": ["explore", "absent", "--out"],
    "demo": ["demo", "--out"],
    "bench": ["bench", "rs-byol", "--data", "absent", "--out"],
    "pretrain": ["pretrain", "dino-small", "--data", "simulated:0:8", "--set", "train.steps=1", "--out"],
}
RESULTS = {
    "probe": ["probe", "absent", "--data", "absent", "--out"],
    "segment": ["segment", "absent", "--data", "absent", "--labels", "lulc", "--out"],
}


@pytest.mark.parametrize(("command", "name"), FILES.values(), ids=FILES)
def test_a_file_is_not_replaced_unless_asked(
    command: Sequence[str], name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / name
    out.write_text("old")
    code, _, said = run(*command, out)
    assert code == 1
    assert f"WriteError: {out} is already there. Replace it with --overwrite" in said
    code, _, said = run(*command, out, "--overwrite")
    assert code == 1
    assert "absent" in said
    assert out.read_text() == "old"
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(("command", "name"), FILES.values(), ids=FILES)
@pytest.mark.parametrize("out", ["table.csv", "nothing", "c.parquet.gz"])
def test_a_name_says_what_the_file_holds(
    out: str, command: Sequence[str], name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, said = run(*command, tmp_path / out)
    assert (code, f"let it end in {Path(name).suffix}" in said) == (1, True), said
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", RESULTS.values(), ids=RESULTS)
def test_results_in_a_folder_of_their_own_are_not_replaced_unless_asked(
    command: Sequence[str], run: Run, tmp_path: Path
) -> None:
    (tmp_path / "probe.json").write_text("old")
    assert "probe.json is already there" in run(*command, tmp_path)[2]
    assert "absent" in run(*command, tmp_path, "--overwrite")[2]
    assert os.listdir(tmp_path) == ["probe.json"]


PLACES = {
    **{name: (*command, f"/sys/kernel/{out}") for name, (command, out) in FILES.items()},
    **{name: (*command, "/sys/kernel/out") for name, command in {**FOLDERS, **RESULTS}.items()},
}


@pytest.mark.parametrize("command", PLACES.values(), ids=PLACES)
def test_a_place_that_takes_no_file_is_named_before_the_work(
    command: Sequence[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, said = run(*command)
    assert code == 1
    assert "WriteError: Cannot write /sys/kernel/" in said
    assert "Choose a folder that you may write to." in said
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", FOLDERS.values(), ids=FOLDERS)
def test_a_file_in_the_place_of_a_folder_is_named(command: Sequence[str], run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a letter")
    code, _, said = run(*command, tmp_path / "out")
    assert (code, "out is a file, and a folder is to be written there" in said) == (1, True), said


def test_curation_clears_what_a_killed_one_left(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
    left = tmp_path / ".s.parquet.scratch"
    left.mkdir()
    (left / "vectors.npy").write_bytes(b"half")
    code, _, said = run(
        "curate", tmp_path / "v.npy", "-o", tmp_path / "s.parquet", "--keep", "0.2", "--curator", "random"
    )
    assert code == 0, said
    assert sorted(os.listdir(tmp_path)) == ["s.parquet", "v.npy"]


def test_results_at_a_runs_own_place_are_brought_up_to_date(run: Run, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    said = run("report", tmp_path)[2]
    assert "already there" not in said
    (tmp_path / "probe.json").write_text("old")
    assert "already there" not in run("probe", tmp_path, "--data", "absent")[2]


def test_a_catalogue_is_brought_up_to_date_but_by_its_own_archive_alone(run: Run, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name / "Forest").mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(1, 255, (64, 64, 3), dtype=np.uint8)
        for copy in range(2):
            Image.fromarray(pixels + copy).save(tmp_path / name / "Forest" / f"Forest_{copy}.png")
        (tmp_path / f"{name}.csv").write_text(
            "id,path\n" + "".join(f"{copy},{name}/Forest/Forest_{copy}.png\n" for copy in range(2))
        )
    arguments = ("--sensor", "rgb=rgb8", "--out", tmp_path / "c.parquet")
    for _ in range(2):
        code, _, said = run("index", tmp_path / "first.csv", *arguments)
        assert code == 0, said
    code, _, said = run("index", tmp_path / "second.csv", *arguments)
    assert (code, "--overwrite" in said) == (1, True)
