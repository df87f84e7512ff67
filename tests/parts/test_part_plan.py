"""The bounds of parts: every item in exactly one, whatever their numbers."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrasieve.errors import PartsError
from terrasieve.parts.part_plan import Plan


@given(items=st.integers(0, 5000), unit=st.integers(1, 700), parts=st.integers(1, 300))
def test_every_item_is_in_one_part(items: int, unit: int, parts: int) -> None:
    plan = Plan(work="pack", request="", items=items, unit=unit, parts=parts)
    each = [plan.items_of(number) for number in range(parts)]
    assert list(chain.from_iterable(each)) == list(range(items))
    assert all(one.start % unit == 0 for one in each if one)
    units = [-(-len(one) // unit) for one in each]
    assert max(units) - min(units) <= 1


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    plan = Plan(work="index", request="r", items=7, unit=2, parts=3, states=("a", "b", "c"), facts={"chunk": [1, None]})
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json())
    assert Plan.read(path, "there") == plan
    assert Plan.read(tmp_path / "absent", "there") is None


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"work": "index"}', '{"parts": 0, "work": "", "request": ""}'])
def test_a_damaged_plan_is_refused_by_its_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "plan" / "plan.json"
    path.parent.mkdir()
    path.write_text(damage)
    with pytest.raises(PartsError, match=r"plan\.json cannot be read"):
        Plan.read(path, "there")


def test_the_plan_of_other_work_is_refused_and_what_differs_is_said(tmp_path: Path) -> None:
    plan = Plan(work="index", request="r", items=7, unit=1, parts=3)
    for name, value, said in (
        ("work", "pack", "command"),
        ("request", "other", "source or settings"),
        ("parts", 4, "number of parts"),
        ("version", "0.0", "version of terrasieve"),
    ):
        with pytest.raises(PartsError, match=said):
            plan.refuse_other(plan.model_copy(update={name: value}), "there")
    plan.refuse_other(plan.model_copy(update={"items": 9, "states": ("a",)}), "there")
