"""Parts on a local Ray cluster: equal to one process byte for byte, though a worker is killed half-way."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commanding import call
from terrasieve.cli import on_ray
from terrasieve.cli.on_ray import RayWork, worker_needs
from terrasieve.errors import ConfigError, PartsError
from terrasieve.parts.shared_place import parts_folder


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    """A cluster of two cores, which the commands of this process find."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'terrasieve[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_ray, "spare_cores", lambda: 2)
        patch.delenv("RAY_ADDRESS", raising=False)
        # Ray's workers give way to all else, and beside other tests would hardly come to anything.
        patch.setenv("RAY_worker_niceness", "0")
        with on_ray.cluster("ray"):
            yield


class Killer(threading.Thread):
    """Kills one worker while it is at a part, once another part is done.

    Attributes:
        killed: The process that it killed; None before.
    """

    def __init__(self, out: Path) -> None:
        super().__init__(daemon=True)
        self.killed: int | None = None
        self.over = threading.Event()
        self._root = parts_folder(out)

    def run(self) -> None:
        while self.killed is None and not self.over.is_set():
            for lease in self._root.glob("leases/part-*.0"):
                self._try(lease)
            # Several times while a part is made; to look without a pause would take a core from those that make it.
            time.sleep(0.02)

    def _try(self, lease: Path) -> None:
        part = self._root / lease.stem
        any_done = any(path.name.removeprefix("part-").isdecimal() for path in self._root.glob("part-*"))
        if self.killed is not None or not any_done or part.exists():
            return
        try:
            pid = json.loads(lease.read_bytes())["pid"]
        except (OSError, ValueError):
            return
        # Stopped first, so that it cannot finish the part while this looks.
        os.kill(pid, signal.SIGSTOP)
        if part.exists():
            os.kill(pid, signal.SIGCONT)
            return
        os.kill(pid, signal.SIGKILL)
        self.killed = pid


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_parts_on_ray_equal_one_process_though_a_worker_is_killed(tmp_path: Path) -> None:
    (tmp_path / "land.yaml").write_text("layout: simulated\nsamples: 240\nsize: 32\n")
    words = ["index", tmp_path / "land.yaml"]
    one, many = tmp_path / "one" / "c.parquet", tmp_path / "many" / "c.parquet"
    call(*words, "--workers", 0, "--out", one)
    killer = Killer(many)
    killer.start()
    call(*words, "--out", many, "--on", "ray", "--parts", 8)
    killer.over.set()
    killer.join()
    assert killer.killed is not None
    assert os.listdir(parts_folder(many)) == ["merged.json"]
    made = {path.name: path.read_bytes() for path in many.parent.iterdir() if path.is_file()}
    assert made == {path.name: path.read_bytes() for path in one.parent.iterdir()}


@pytest.mark.slow
@pytest.mark.usefixtures("two_workers")
def test_what_a_worker_refuses_is_said_as_by_a_plain_one(
    command: Callable[[str], list[Any]], sources: Path, tmp_path: Path
) -> None:
    (tmp_path / "s2").mkdir()
    for path in (sources / "good" / "s2").iterdir():
        (tmp_path / "s2" / path.name).write_bytes(path.read_bytes())
    words = [tmp_path if word == sources / "scenes" else word for word in command("index")]
    out = tmp_path / "out" / "c.parquet"
    call(*words, out, "--part", "1/3")
    os.utime(tmp_path / "s2" / "13.tif", (0, 0))
    with pytest.raises(PartsError, match="part 3 of 3 is made from has changed"):
        call(*words, out, "--on", "ray")
    assert not out.exists()


@pytest.mark.parametrize(
    ("device", "gpus", "wanted"),
    [(None, 4, 0), ("cpu", 4, 0), ("auto", 0, 0), ("auto", 4, 1), ("cuda", 0, 1), ("cuda", 4, 1)],
)
def test_workers_ask_for_a_gpu_where_the_command_uses_one(device: str | None, gpus: int, wanted: int) -> None:
    asked = RayWork("embed", Path("e.parquet"), 4, (0, 1, 2, 3), {}, cpus=2, device=device)
    assert worker_needs(asked, gpus) == {"num_cpus": 2, "num_gpus": wanted}


def test_without_ray_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, command: Callable[[str], list[Any]], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'terrasieve\[ray\]'"):
        call(*command("index"), tmp_path / "c.parquet", "--on", "ray")
    assert list(tmp_path.iterdir()) == []


def test_workers_that_would_wait_for_ever_are_refused(
    monkeypatch: pytest.MonkeyPatch, command: Callable[[str], list[Any]], tmp_path: Path
) -> None:
    monkeypatch.setattr(on_ray, "spare_cores", lambda: 2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match="here are 2"):
        call(*command("index"), tmp_path / "c.parquet", "--on", "ray", "--workers", 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--on", "ray", "--claim"), "leave --part and --claim out"),
        (("--on", "ray", "--part", "1/2"), "leave --part and --claim out"),
        (("--on", "spark"), "say ray for this machine"),
    ],
)
def test_other_clusters_and_shares_beside_one_are_refused(
    options: tuple[str, ...], said: str, command: Callable[[str], list[Any]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        call(*command("index"), tmp_path / "c.parquet", *options)
    assert list(tmp_path.iterdir()) == []
