"""Leases: one holder at a time, whoever asks and whenever."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from terrasieve.parts import leases as leases_module
from terrasieve.parts.leases import EXPIRY, LeaseFolder, Leases

RACERS = 6
ROUNDS = 20
FORK = multiprocessing.get_context("fork")


def _race(folder: Path, start: float, won: Path) -> None:
    """Claim every name as soon as all others do, and say how many were got."""
    leases = Leases(LeaseFolder(folder))
    while time.monotonic() < start:
        pass
    won.write_text(json.dumps([name for name in range(ROUNDS) if leases.claim(f"part-{name}") is not None]))


def _winners(folder: Path, out: Path) -> list[int]:
    out.mkdir()
    start = time.monotonic() + 0.3
    racers = [FORK.Process(target=_race, args=(folder, start, out / str(number))) for number in range(RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
        assert racer.exitcode == 0
    return sorted(name for path in out.iterdir() for name in json.loads(path.read_text()))


def _grow_old(folder: Path) -> None:
    for path in folder.iterdir():
        os.utime(path, (0, path.stat().st_mtime - 2 * EXPIRY))


def test_of_many_that_ask_at_once_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Holders whose processes are gone would be told by that, and the others would come to get theirs, too.
    monkeypatch.setattr(leases_module, "_space", lambda: None)
    assert _winners(tmp_path / "leases", tmp_path / "first") == list(range(ROUNDS))
    assert _winners(tmp_path / "leases", tmp_path / "second") == []
    _grow_old(tmp_path / "leases")
    assert _winners(tmp_path / "leases", tmp_path / "third") == list(range(ROUNDS))


def test_a_lease_without_a_sign_of_life_is_taken_over(tmp_path: Path) -> None:
    leases = Leases(LeaseFolder(tmp_path))
    first = leases.claim("part")
    assert first is not None
    assert leases.claim("part") is None
    _grow_old(tmp_path)
    second = leases.claim("part")
    assert second is not None
    assert second.number == 1
    assert leases.claim("part") is None


def test_signs_of_life_keep_a_lease_and_a_taken_one_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "HEARTBEAT", 0.01)
    folder = LeaseFolder(tmp_path)
    leases = Leases(folder)
    lease = leases.claim("part")
    assert lease is not None
    with lease.held():
        os.utime(tmp_path / "part.0", (0, 0))
        _wait_until(lambda: (seen := folder.look("part.0")) is not None and seen.age < EXPIRY)
        assert leases.claim("part") is None
        assert not lease.lost
        folder.create("part.1", b"{}")
        _wait_until(lambda: lease.lost)


def test_who_fails_gives_back(tmp_path: Path) -> None:
    leases = Leases(LeaseFolder(tmp_path))
    lease = leases.claim("part")
    assert lease is not None
    with pytest.raises(ZeroDivisionError), lease.held():
        raise ZeroDivisionError
    assert leases.claim("part") is not None


def _claim_and_sleep(folder: Path) -> None:
    assert Leases(LeaseFolder(folder)).claim("part") is not None
    (folder / "claimed").touch()
    time.sleep(600)


def test_who_was_killed_on_this_machine_is_not_waited_for(tmp_path: Path) -> None:
    if leases_module._space() is None:
        pytest.skip("this system does not tell which processes are there")
    worker = FORK.Process(target=_claim_and_sleep, args=(tmp_path,))
    worker.start()
    _wait_until((tmp_path / "claimed").exists)
    assert Leases(LeaseFolder(tmp_path)).claim("part") is None
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert Leases(LeaseFolder(tmp_path)).claim("part") is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": "x", "space": 3}'])
def test_a_lease_of_any_content_is_held_until_it_is_old(tmp_path: Path, content: bytes) -> None:
    folder = LeaseFolder(tmp_path)
    folder.create("part.0", content)
    assert Leases(folder).claim("part") is None
    _grow_old(tmp_path)
    assert Leases(folder).claim("part") is not None


def _wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to that")
