"""Work in parts through the commands: what comes out equals one machine's, byte for byte, or nothing does."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from apart import run_apart, run_at_once
from commanding import call
from terrasieve.archive.packed import store_writer
from terrasieve.archive.packed.progress import WrittenChunk
from terrasieve.embeddings import stream
from terrasieve.errors import ArchiveError, ConfigError, PartsError
from terrasieve.parts.shared_place import parts_folder

Command = Callable[[str], list[Any]]
NAMES = {
    "index": "c.parquet",
    "index samples": "c.parquet",
    "pack": "p.zarr",
    "pack shifted": "p.zarr",
    "pack compressed": "p.zarr",
    "wv ingest": "w.zarr",
    "embed": "e.parquet",
    "curate": "s.parquet",
    "curate embedded": "s.parquet",
}


def content(folder: Path) -> dict[str, bytes]:
    """What a command left, but for the record that it was merged."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if ".parts/" not in name}


def do_parts(words: list[Any], out: Path, parts: int, left_out: tuple[int, ...] = ()) -> None:
    """Do parts one by one, the last first."""
    for number in reversed(range(1, parts + 1)):
        if number not in left_out:
            call(*words, out, "--part", f"{number}/{parts}")


@pytest.mark.parametrize(
    ("name", "parts"), [*((name, 3) for name in NAMES), ("index", 40), ("pack shifted", 1), ("pack shifted", 20)]
)
def test_merged_parts_equal_one_machine(name: str, parts: int, command: Command, tmp_path: Path) -> None:
    one, many = tmp_path / "one" / NAMES[name], tmp_path / "many" / NAMES[name]
    call(*command(name), one)
    call(*command(name), many, "--claim", "--parts", parts)
    assert not many.exists()
    call("merge", many)
    assert content(many.parent) == content(one.parent)
    assert os.listdir(parts_folder(many)) == ["merged.json"]


def test_parts_of_an_array_job_equal_one_machine(command: Command, tmp_path: Path) -> None:
    one, many = tmp_path / "one" / "p.zarr", tmp_path / "many" / "p.zarr"
    call(*command("pack shifted"), one)
    do_parts(command("pack shifted"), many, 4)
    call("merge", many)
    assert content(many.parent) == content(one.parent)


def test_missing_parts_are_named_and_nothing_is_written(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "c.parquet"
    do_parts(command("index"), out, 5, left_out=(2, 5))
    with pytest.raises(PartsError, match=r"2 of 5 parts of .* are missing: 2/5, 5/5\. "):
        call("merge", out)
    assert content(tmp_path) == {}
    call(*command("index"), out, "--part", "2/5")
    call(*command("index"), out, "--claim")
    call("merge", out)
    assert out.exists()


def test_merging_again_changes_nothing_and_late_workers_find_nothing_to_do(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "c.parquet"
    call(*command("index"), out, "--claim", "--parts", 2)
    call("merge", out)
    before = content(tmp_path)
    call("merge", out)
    call(*command("index"), out, "--claim")
    call(*command("index"), out, "--part", "1/2")
    assert content(tmp_path) == before
    assert os.listdir(parts_folder(out)) == ["merged.json"]
    with pytest.raises(PartsError, match="number of parts"):
        call(*command("index"), out, "--part", "1/3")
    out.unlink()
    with pytest.raises(PartsError, match="removed since"):
        call("merge", out)


@pytest.mark.parametrize("name", ["index", "pack shifted"])
def test_a_changed_source_is_refused(name: str, command: Command, sources: Path, tmp_path: Path) -> None:
    mine = tmp_path / "scenes"
    shutil.copytree(sources / "scenes", mine)
    words = [mine if word == sources / "scenes" else word for word in command(name)]
    out = tmp_path / "out" / NAMES[name]
    do_parts(words, out, 3, left_out=(3,))
    touched = mine / "s2" / "13.tif"
    os.utime(touched, (0, 0))
    with pytest.raises(PartsError, match="part 3 of 3 is made from has changed"):
        call(*words, out, "--part", "3/3")
    os.utime(touched, ns=((sources / "scenes/s2/13.tif").stat().st_mtime_ns,) * 2)
    call(*words, out, "--part", "3/3")
    os.utime(mine / "s2" / "00.tif", (0, 0))
    with pytest.raises(PartsError, match="part 1 of 3 is made from has changed"):
        call("merge", out)
    assert content(out.parent) == {}


@pytest.fixture
def planned(command: Command, sources: Path, tmp_path: Path) -> tuple[Path, Path, list[Any]]:
    """A copy of the scenes, the catalogue to be of which all parts but the last are done, and the words for it."""
    mine, out = tmp_path / "scenes", tmp_path / "out" / "c.parquet"
    shutil.copytree(sources / "scenes", mine)
    words = [mine if word == sources / "scenes" else word for word in command("index")]
    do_parts(words, out, 3, left_out=(3,))
    return mine, out, words


def test_scenes_that_came_or_went_since_the_plan_are_named(planned: tuple[Path, Path, list[Any]]) -> None:
    mine, out, words = planned
    shutil.copy(mine / "s2" / "00.tif", mine / "s2" / "05b.tif")
    call(*words, out, "--part", "3/3")
    with pytest.raises(PartsError, match=r"1 came, the first being '05b'\. Restore"):
        call("merge", out)
    assert content(out.parent) == {}
    (mine / "s2" / "05b.tif").unlink()
    call("merge", out)
    assert out.exists()


def test_a_worker_that_does_not_see_the_folder_says_so(planned: tuple[Path, Path, list[Any]]) -> None:
    mine, out, words = planned
    (mine / "s2").rename(mine / "elsewhere")
    with pytest.raises(ArchiveError, match="s2 of sensor 's2' does not exist"):
        call(*words, out, "--part", "3/3")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"s2": {"00": "../../outside.tif"}}, r"'\.\./\.\./outside\.tif', which does not lie in"),
        ({"s2": {"00": "/outside.tif"}}, "'/outside.tif', which does not lie in"),
        ({"s2": {"00": 1}}, "no files of sensor 's2'"),
        ([], "no files of sensor 's2'"),
    ],
)
def test_a_plan_names_no_file_outside_its_folder(named: Any, said: str, planned: tuple[Path, Path, list[Any]]) -> None:
    _, out, words = planned
    (parts_folder(out) / "plan" / "named.json").write_text(json.dumps(named))
    with pytest.raises(PartsError, match=said):
        call(*words, out, "--part", "3/3")


def test_other_settings_and_another_source_are_refused(command: Command, sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.parquet"
    call(*command("index"), out, "--part", "1/2")
    with pytest.raises(PartsError, match="source or settings"):
        call(*command("index"), out, "--part", "2/2", "--max-nodata", 0.5)
    with pytest.raises(PartsError, match="source or settings"):
        call("index", sources / "good", "--sensor", "s2=s2-rgb8", "--tile", 32, "--out", out, "--part", "2/2")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--part", "0/3"), "give its number"),
        (("--part", "4/3"), "give its number"),
        (("--part", "x"), "give its number"),
        (("--part", "1/2", "--claim"), "leave one out"),
        (("--parts", 3), "--parts is for --claim"),
        (("--claim", "--harmonise"), "cannot be done in parts"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: tuple[Any, ...], said: str, command: Command, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        call(*command("index"), tmp_path / "c.parquet", *options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["pack", "pack shifted"])
def test_merging_that_was_interrupted_goes_on(
    name: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, many = tmp_path / "one" / "p.zarr", tmp_path / "many" / "p.zarr"
    call(*command(name), one)
    call(*command(name), many, "--claim", "--parts", 4)
    real, written = store_writer.append_chunk, []

    def killed(path: Path, chunk: WrittenChunk) -> None:
        written.append(chunk)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, chunk)

    monkeypatch.setattr(store_writer, "append_chunk", killed)
    with pytest.raises(ArchiveError, match="disk is full"):
        call("merge", many)
    call("merge", many)
    assert len({chunk.position for chunk in written}) == len(written) - 1, "only the chunk that failed came twice"
    assert content(many.parent) == content(one.parent)


def test_a_plan_decides_nothing_that_is_asked_for_on_the_net(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "c.parquet"
    call(*command("index"), out, "--claim", "--parts", 2)
    path = parts_folder(out) / "plan" / "plan.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps({**plan, "options": {**plan["options"], "data": "s3://elsewhere/archive"}}))
    with pytest.raises(PartsError, match="--data s3://elsewhere/archive"):
        call("merge", out)
    path.write_text(json.dumps({**plan, "work": "pretrain"}))
    with pytest.raises(PartsError, match="no command does in parts"):
        call("merge", out)


def test_a_merging_machine_of_another_precision_keeps_that_of_the_workers(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, many = tmp_path / "one" / "e.parquet", tmp_path / "many" / "e.parquet"
    call(*command("embed"), one)
    call(*command("embed"), many, "--claim", "--parts", 2)
    now = stream.resolve_precision("auto", torch.device("cpu"))
    other = {"auto": "bf16" if now == "32" else "32"}
    monkeypatch.setattr(stream, "resolve_precision", lambda precision, device: other.get(precision, precision))
    call("merge", many)
    assert content(many.parent) == content(one.parent)


def test_curators_without_clusters_are_refused(command: Command, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="assigns no rows to clusters"):
        call(*command("curate")[:2], "--curator", "random", "--out", tmp_path / "s.parquet", "--claim")


def test_a_damaged_part_is_refused(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "e.parquet"
    call(*command("embed"), out, "--claim", "--parts", 2)
    path = parts_folder(out) / "part-00001" / "vectors.npy"
    np.save(path, np.load(path)[1:])
    with pytest.raises(PartsError, match=r"part-00001.*is damaged"):
        call("merge", out)
    assert not out.exists()


# ------------------------------------------------------------------------ kills

KILLED = """
import contextlib, os, signal, sys
from terrasieve.archive.packed import packing
from terrasieve.parts import shared_place, sharing
packing.CHUNK_BYTES, sharing.POLL = 3 * 3 * 32 * 32, 0.05
number = int(sys.argv.pop(1))
done = []
write_once = shared_place.write_once
@contextlib.contextmanager
def killed(path, writer):
    with write_once(path, writer) as place:
        yield place
        done.append(path)
        # The part is written, and has not got its name.
        if len(done) == number:
            os.kill(os.getpid(), signal.SIGKILL)
shared_place.write_once = killed
from terrasieve.cli import main
main()
"""


@pytest.mark.parametrize("name", ["index", "pack shifted"])
def test_a_killed_worker_costs_its_part_alone(name: str, command: Command, tmp_path: Path) -> None:
    one, many = tmp_path / "one" / NAMES[name], tmp_path / "many" / NAMES[name]
    words = [str(word) for word in command(name)]
    killed = run_apart(KILLED, "4", *words, many, "--claim", "--parts", "4")
    assert killed.code == -signal.SIGKILL, killed.errors
    shared = parts_folder(many)
    done = {path.name: path.stat().st_ino for path in shared.glob("part-*")}
    assert len(done) == 2, "the plan and two parts were to be written before"
    assert len(list(shared.glob(".part-*.partial"))) == 1
    call(*words, many, "--claim")
    assert {path.name: path.stat().st_ino for path in shared.glob("part-*")}.items() >= done.items()
    assert list(shared.glob(".part-*.partial")) == []
    assert len(list(shared.glob("leases/part-00002.*"))) == 2, "the part of the killed worker was taken over"
    assert len(list(shared.glob("leases/part-00003.*"))) == 1
    call("merge", many)
    call(*words, one)
    assert content(many.parent) == content(one.parent)


def test_two_workers_at_once_share_the_parts(command: Command, tmp_path: Path) -> None:
    one, many = tmp_path / "one" / "c.parquet", tmp_path / "many" / "c.parquet"
    words = [str(word) for word in command("index samples")]
    workers = run_at_once(KILLED, 0, *words, many, "--claim", "--parts", 12, copies=2)
    assert [worker.code for worker in workers] == [0, 0], workers
    finished = sum(worker.errors.count(" of 12 is done") for worker in workers)
    assert finished == 12, "each part was done once"
    call("merge", many)
    call(*words, one)
    assert content(many.parent) == content(one.parent)
