"""One rule for outputs: where they may stand, what they may replace, and one process at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from terrasieve.errors import WriteError
from terrasieve.files import outputs
from terrasieve.files.outputs import hold_file, hold_files, hold_folder

HOLD = """
import sys, time
from pathlib import Path
from terrasieve.files.outputs import hold_file, hold_folder
path = Path(sys.argv[1])
with hold_folder(path) if sys.argv[2] == "folder" else hold_file(path, (".txt",), "--overwrite" in sys.argv):
    if "write" in sys.argv:
        path.write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds an output until the block ends."""
    command = [sys.executable, "-c", HOLD, str(path), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": _sources()}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def _sources() -> str:
    return str(Path(outputs.__file__).parents[1])


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_second_writer_is_told_who_holds_the_output(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with holder(path, kind) as process:
        with pytest.raises(WriteError) as refused, hold_folder(path):
            pass
        assert f"{process.pid} on {os.uname().nodename}, since 20" in str(refused.value)
        with hold_folder(tmp_path / "another"):
            pass


def test_another_name_of_the_same_output_is_the_same_output(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "link").symlink_to("runs")
    with (
        holder(tmp_path / "runs" / "first", "folder"),
        pytest.raises(WriteError, match="being written"),
        hold_folder(tmp_path / "link" / "first"),
    ):
        pass


def test_the_lock_of_a_killed_process_does_not_block_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with holder(path, "folder") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert os.listdir(tmp_path) == [".run.lock"]
    with hold_folder(path):
        assert json.loads((tmp_path / ".run.lock").read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path) == []


def test_the_children_of_a_killed_process_do_not_hold_its_output(tmp_path: Path) -> None:
    parent = (
        "import os, sys, time; from pathlib import Path; from terrasieve.files.outputs import hold_folder\n"
        "with hold_folder(Path(sys.argv[1])):\n"
        "    if not os.fork(): time.sleep(60)\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", parent, str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": _sources()}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, process_group=0)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.wait()
        with hold_folder(tmp_path / "run"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_what_is_there_is_replaced_only_where_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    said = r"a\.txt is already there\. Replace it with --overwrite"
    with pytest.raises(WriteError, match=said), hold_file(path, (".txt",), overwrite=False):
        pass
    with hold_file(path, (".txt",), overwrite=True):
        pass
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_same_command_finishes_what_it_began_and_another_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    monkeypatch.setattr(sys, "argv", ["terrasieve", str(path), "file", "write"])
    with holder(path, "file", "write"):
        pass
    left = (tmp_path / ".a.txt.lock").read_text()
    with hold_file(path, (".txt",), overwrite=False):
        pass
    with pytest.raises(WriteError, match="already there"), hold_file(path, (".txt",), overwrite=False):
        pass
    (tmp_path / ".a.txt.lock").write_text(left)
    monkeypatch.setattr(sys, "argv", ["terrasieve", "something else"])
    with pytest.raises(WriteError, match="already there"), hold_file(path, (".txt",), overwrite=False):
        pass


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": 1}', "\0"])
def test_a_damaged_lock_does_not_block(content: str, tmp_path: Path) -> None:
    (tmp_path / ".run.lock").write_text(content)
    with hold_folder(tmp_path / "run"):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.csv", r"a\.csv would hold something else than its name says: let it end in \.txt"),
        ("a", r"let it end in \.txt"),
        ("folder.txt", "is a folder"),
        ("file/a.txt", "A part of the path is a file"),
        ("x" * 300 + ".txt", "Choose a shorter name"),
        ("x" * 240 + ".txt", "Choose a shorter name"),
        ("y" * 300 + "/a.txt", "Choose a shorter name"),
        ("a\0b.txt", "NUL"),
        ("loop/a.txt", "Cannot write"),
    ],
)
def test_a_name_that_will_not_do_is_refused_before_the_work(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(WriteError, match=said), hold_file(tmp_path / name, (".txt",), overwrite=True):
        pytest.fail("the work began")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.txt", "loop"]


@pytest.mark.parametrize("hold", [lambda path: hold_file(path, ("",), overwrite=True), hold_folder])
def test_a_place_that_takes_no_file_is_refused_before_the_work(hold: object) -> None:
    # The kernel's own folders refuse even root.
    with pytest.raises(WriteError, match="Cannot write /sys/kernel/"), hold(Path("/sys/kernel/out")):
        pytest.fail("the work began")


def test_a_folder_that_takes_no_file_is_refused_before_the_work() -> None:
    with pytest.raises(WriteError, match="Cannot write /sys/kernel"), hold_folder(Path("/sys/kernel")):
        pytest.fail("the work began")


def test_folders_on_the_way_stay_only_where_something_is_written(tmp_path: Path) -> None:
    with hold_file(tmp_path / "a" / "b" / "c.txt", (".txt",), overwrite=False):
        pass
    assert os.listdir(tmp_path) == []
    with hold_file(tmp_path / "a" / "b" / "c.txt", (".txt",), overwrite=False):
        (tmp_path / "a" / "b" / "c.txt").touch()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a", "a/b", "a/b/c.txt"]


def test_a_command_may_call_another_on_the_same_output(tmp_path: Path) -> None:
    with hold_folder(tmp_path / "run"):
        with hold_folder(tmp_path / "run"):
            pass
        assert os.listdir(tmp_path) == [".run.lock"]
    assert os.listdir(tmp_path) == []


def test_an_error_of_the_work_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), hold_folder(tmp_path / "run"):
        (tmp_path / "absent").read_text()
    assert os.listdir(tmp_path) == []


def test_a_command_that_failed_half_way_finishes_what_it_began(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(ZeroDivisionError), hold_file(path, (".txt",), overwrite=False):
        _write_and_fail(path)
    with hold_file(path, (".txt",), overwrite=False):
        pass
    assert os.listdir(tmp_path) == ["a.txt"]


def _write_and_fail(path: Path) -> None:
    path.write_text("half of what was asked for")
    raise ZeroDivisionError


def test_a_command_killed_between_two_outputs_finishes_both(tmp_path: Path) -> None:
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    with pytest.raises(ZeroDivisionError), hold_files(paths, (".txt",), overwrite=False):
        _write_and_fail(paths[0])
    (tmp_path / ".b.txt.lock").unlink()
    paths[1].write_text("whole")
    with hold_files(paths, (".txt",), overwrite=False):
        pass
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"]
