"""Handles that stay open, and splits that are drawn: what several layouts share."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

import pytest

from terrasieve.archive.patches.listing import grouped_split, stratified_split
from terrasieve.archive.readers.handles import Handles
from terrasieve.archive.readers.patch_reader import item_address, split_item_address

SHARES = {"train": 0.8, "val": 0.05, "test": 0.15}


class _Handle:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_the_least_recently_used_is_closed_first() -> None:
    handles = Handles(_Handle, 2)
    a, b = handles.get(Path("a")), handles.get(Path("b"))
    assert handles.get(Path("a")) is a
    handles.get(Path("c"))
    assert (a.closed, b.closed) == (False, True)
    assert handles.get(Path("b")) is not b


def test_a_dropped_file_is_opened_anew() -> None:
    handles = Handles(_Handle, 2)
    first = handles.get(Path("a"))
    handles.drop(Path("a"))
    handles.drop(Path("never opened"))
    assert first.closed
    assert handles.get(Path("a")) is not first


def test_a_thread_has_its_own() -> None:
    handles = Handles(_Handle, 2)
    mine = handles.get(Path("a"))
    theirs: list[_Handle] = []
    thread = threading.Thread(target=lambda: theirs.append(handles.get(Path("a"))))
    thread.start()
    thread.join()
    assert theirs[0] is not mine
    assert handles.get(Path("a")) is mine


def test_a_child_leaves_its_parents_handles_alone() -> None:
    handles = Handles(_Handle, 2)
    mine = handles.get(Path("a"))
    child = os.fork()
    if child == 0:
        os._exit(0 if handles.get(Path("a")) is not mine and not mine.closed else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert handles.get(Path("a")) is mine


@pytest.mark.parametrize(("file", "place"), [("a/b.h5", (17,)), ("a#b/c,d.zip", (3, 0))])
def test_a_place_in_a_file_is_found_again(file: str, place: tuple[int, ...]) -> None:
    assert split_item_address(item_address(file, *place)) == (file, place)


def test_every_class_has_the_same_shares() -> None:
    labels = ["a"] * 200 + ["b"] * 40
    parts = stratified_split(labels, SHARES)
    assert Counter(zip(labels, parts, strict=True)) == {
        ("a", "train"): 160,
        ("a", "val"): 10,
        ("a", "test"): 30,
        ("b", "train"): 32,
        ("b", "val"): 2,
        ("b", "test"): 6,
    }
    assert parts == stratified_split(labels, SHARES)
    assert parts != stratified_split(labels, SHARES, seed=1)


def test_groups_stay_together_near_their_shares() -> None:
    groups = [f"{number % 97:03}" for number in range(2000)]
    parts = grouped_split(groups, SHARES)
    assert len(set(zip(groups, parts, strict=True))) == 97
    counts = Counter(parts)
    assert all(abs(counts[part] / 2000 - share) < 0.02 for part, share in SHARES.items())


def test_one_group_is_one_part() -> None:
    assert set(grouped_split(["x"] * 5, SHARES)) == {"train"}
