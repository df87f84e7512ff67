"""The first minute is judged by what a newcomer gets: an archive, or honest words, or neither."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from first_minute import INPUTS, Said, advised, judge, look

OPENED = Said(0, "x holds scenes.\nlayout   scenes, /x\n\nNext: terrasieve pack x --out y.zarr\n")
DONE, FAILED = Said(0, "Packed: 4 samples"), Said(1, "ConfigError: no")
FAULT = Said(1, "KeyError: 1. This is a fault of terrasieve; please report it with /tmp/x.log.")
REFUSED = Said(1, "ArchiveError: x holds 2 .png. If these are pictures: terrasieve index 'x y' --sensor rgb8\n")
NOTHING = Said(1, "ArchiveError: x holds nothing that can be read: there is no file in it. Recognised are: ...\n")


def test_there_are_twenty_of_which_five_are_hopeless() -> None:
    assert len(INPUTS) == 20
    assert sum(one.hopeless for one in INPUTS.values()) == 5
    assert sum(one.layout is None for one in INPUTS.values()) == 6


def test_what_is_pasted_is_the_end_of_the_line() -> None:
    assert advised(OPENED) == "terrasieve pack x --out y.zarr"
    assert advised(REFUSED) == "terrasieve index 'x y' --sensor rgb8"
    assert advised(Said(1, "own, for example: echo 'a: b' > m.yaml && terrasieve index x")) == (
        "echo 'a: b' > m.yaml && terrasieve index x"
    )
    assert advised(NOTHING) is None


@pytest.mark.parametrize(
    ("name", "said", "pasted", "verdict"),
    [
        ("scenes of two sensors", OPENED, DONE, "right"),
        ("scenes of two sensors", OPENED, FAILED, "wrong"),
        ("scenes of two sensors", OPENED, None, "wrong"),
        ("pictures", OPENED, DONE, "wrong"),  # opened as something else
        ("pictures", REFUSED, DONE, "refused_with_working_advice"),
        ("pictures", REFUSED, FAILED, "wrong"),
        ("pictures", FAULT, None, "wrong"),
        ("pictures", NOTHING, None, "wrong"),
        ("PDF", NOTHING, None, "refused_with_working_advice"),
        ("PDF", FAILED, None, "wrong"),
        ("PDF", OPENED, DONE, "wrong"),
    ],
)
def test_verdicts(name: str, said: Said, pasted: Said | None, verdict: str) -> None:
    assert judge(INPUTS[name], said, pasted) == verdict


@pytest.mark.slow
def test_what_is_hopeless_is_asked_about(tmp_path: Path) -> None:
    verdict, said, command, _ = look(INPUTS["PDF"], tmp_path / "x")
    assert (verdict, command) == ("refused_with_working_advice", None)
    assert "report.pdf is not an archive" in said.text
