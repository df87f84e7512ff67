"""Workers that share one piece of work by a folder beside its result, and the end at which their parts are merged.

No service is needed. The folder ``.<result>.parts`` holds the plan, the leases and a folder for each part that is done;
a part is written under a name of its writer's own and becomes visible whole, once.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from terrasieve.console import console
from terrasieve.errors import PartsError
from terrasieve.parts.leases import LeaseFolder, Leases
from terrasieve.parts.part_plan import PLAN, Outline, Plan
from terrasieve.writing import clear_partials, hidden_name, write_once, write_text

DEFAULT_PARTS = 64
"""Parts of a plan for which no number was given."""
POLL = 2.0
"""Seconds between two looks at parts that others work on."""

_MERGED = "merged.json"
_DONE = "done.json"
"""Name of the file that no part lacks, so that its folder is never empty."""


@dataclass(frozen=True)
class Share:
    """What a worker is to do.

    Attributes:
        part: The part, from 0; whatever is left when None.
        parts: Number of parts of the plan; what the plan says that is there, or :data:`DEFAULT_PARTS`, when None.
    """

    part: int | None = None
    parts: int | None = None


class Divisible(Protocol):
    """Work on a row of items that can be done in parts; an engine needs no more than this and :func:`do_part`."""

    @property
    def work(self) -> str:
        """Name of the command."""

    def request(self) -> str:
        """Digest of the settings and of what is worked on, as quick as can be: every worker asks for it."""

    def outline(self, folder: Path) -> Outline:
        """What the work consists of; called once, for the plan.

        Args:
            folder: A folder for files that all parts need.
        """

    def state(self, items: range, planned: Planned) -> str:
        """Digest of the source of some items, which changes with it."""

    def write(self, items: range, place: Path, planned: Planned) -> None:
        """Do some items.

        Args:
            items: The items of a part, of which there may be none.
            place: A folder that is empty, for what comes out; it becomes the folder of the part.
            planned: The plan, and the files that belong to it.
        """


@dataclass(frozen=True)
class Planned:
    """A plan, and the folder that it is shared by.

    Attributes:
        root: The folder.
        plan: How the work is divided.
    """

    root: Path
    plan: Plan

    @property
    def files(self) -> Path:
        """Folder of the files that all parts need."""
        return self.root / "plan"

    def part(self, number: int) -> Path:
        """Folder of a part, which is there when the part is done."""
        return self.root / _name(number)

    @cached_property
    def parts(self) -> list[tuple[range, Path]]:
        """The items of each part that has any, and its folder."""
        each = [(self.plan.items_of(number), self.part(number)) for number in range(self.plan.parts)]
        return [(items, folder) for items, folder in each if items]

    def missing(self) -> list[int]:
        """Numbers of the parts that are not done, from 0."""
        return [number for number in range(self.plan.parts) if not self.part(number).exists()]


def parts_folder(out: Path) -> Path:
    """The folder by which workers share what becomes a result."""
    return hidden_name(out, "parts")


# -------------------------------------------------------------------- working


def work_on(job: Divisible, out: Path, share: Share, options: Mapping[str, Any]) -> None:
    """Do one part, or whatever is left: until all parts are done, by this worker and the others.

    Args:
        job: What to do.
        out: The result to be, beside which the parts lie until they are merged.
        share: Which part.
        options: Options of the command, which the plan keeps for merging; values that JSON can hold.

    Raises:
        PartsError: The plan that is there is of other work, or the source has changed since.
        WriteError: The system refused a file.
    """
    root = parts_folder(out)
    asked = Plan(
        work=job.work, request=job.request(), items=0, unit=1, parts=share.parts or DEFAULT_PARTS, options=options
    )
    merged = Plan.read(root / _MERGED)
    if merged is not None:
        merged.refuse_other(_as_planned(asked, merged, share), root)
        console.print(f"{out} is merged already: nothing is left to do.", highlight=False)
        return
    leases = Leases(LeaseFolder(root / "leases"))
    planned = _planned(job, root, leases, asked, share)
    wanted = range(planned.plan.parts) if share.part is None else [share.part]
    while left := [number for number in wanted if not planned.part(number).exists()]:
        # Looked for after the parts, which are removed after it is written.
        if (root / _MERGED).exists():
            return
        if not any(_claim_and_do(job, planned, leases, number) for number in left):
            time.sleep(POLL)
    missing = len(planned.missing())
    if not missing:
        console.print(
            f"All {planned.plan.parts} parts are done. Make them one: terrasieve merge {out}", highlight=False
        )


def left_of(out: Path, parts: int | None) -> tuple[int, list[int]]:
    """Number of parts, and which of them are not done, from 0; all before a plan is made.

    Args:
        out: The result to be.
        parts: Number of parts that is asked for; the plan's, or :data:`DEFAULT_PARTS`, when None.

    Raises:
        PartsError: The plan cannot be read.
    """
    root = parts_folder(out)
    plan = Plan.read(root / "plan" / PLAN)
    number = parts or (DEFAULT_PARTS if plan is None else plan.parts)
    # A worker that finds a plan of another number refuses it, and says what is there.
    done = plan is not None and plan.parts == number
    return number, [one for one in range(number) if not (done and (root / _name(one)).exists())]


def is_merged(out: Path) -> bool:
    """Whether the parts of a result were merged already."""
    return (parts_folder(out) / _MERGED).exists()


def do_part(job: Divisible, planned: Planned, number: int) -> bool:
    """Do one part, whoever else may be doing it.

    Args:
        job: What to do.
        planned: The plan.
        number: Number of the part, from 0.

    Returns:
        Whether it was this call that finished it; the part is done either way.

    Raises:
        PartsError: The source has changed since the plan was made.
        WriteError: The system refused a file.
    """
    items = planned.plan.items_of(number)
    _refuse_changed(job, planned, number)
    try:
        with write_once(planned.part(number), uuid.uuid4().hex) as place:
            place.mkdir()
            if items:
                job.write(items, place, planned)
            (place / _DONE).write_text(json.dumps({"start": items.start, "stop": items.stop}), encoding="utf-8")
    except FileExistsError:
        return False
    return True


def _claim_and_do(job: Divisible, planned: Planned, leases: Leases, number: int) -> bool:
    """Whether this worker had the part; another may have it, or have done it meanwhile."""
    if planned.part(number).exists():
        return False
    lease = leases.claim(_name(number))
    if lease is None:
        return False
    with lease.held():
        if planned.part(number).exists():
            return True
        if lease.number:
            clear_partials(planned.root, f"{_name(number)}.*")
        do_part(job, planned, number)
    missing = len(planned.missing())
    console.print(
        f"Part {number + 1} of {planned.plan.parts} is done; {missing} are left.", highlight=False, soft_wrap=True
    )
    return True


def _name(number: int) -> str:
    return f"part-{number:05d}"


def _as_planned(asked: Plan, found: Plan, share: Share) -> Plan:
    """What is asked for, with the number of parts that the plan says where none was given."""
    return asked if share.parts else asked.model_copy(update={"parts": found.parts})


def _planned(job: Divisible, root: Path, leases: Leases, asked: Plan, share: Share) -> Planned:
    """The plan: the one that is there, or one that this worker makes while the others wait."""
    while (found := Plan.read(root / "plan" / PLAN)) is None:
        lease = leases.claim("plan")
        if lease is None:
            time.sleep(POLL)
            continue
        with lease.held():
            if not (root / "plan").exists():
                _make_plan(job, root, asked)
    found.refuse_other(_as_planned(asked, found, share), root)
    return Planned(root, found)


def _make_plan(job: Divisible, root: Path, asked: Plan) -> None:
    clear_partials(root, "plan.*")
    try:
        with write_once(root / "plan", uuid.uuid4().hex) as place:
            place.mkdir(parents=True)
            outline = job.outline(place)
            found = {"items": outline.items, "unit": outline.unit, "facts": outline.facts}
            plan = asked.model_copy(update=found)
            planned = _Being(root, plan, place)
            states = tuple(job.state(plan.items_of(number), planned) for number in range(plan.parts))
            write_text(place / PLAN, plan.model_copy(update={"states": states}).model_dump_json(indent=1))
    except FileExistsError:
        return


@dataclass(frozen=True)
class _Being(Planned):
    """A plan that is being made, whose files lie under a temporary name."""

    place: Path

    @property
    def files(self) -> Path:
        return self.place


def _refuse_changed(job: Divisible, planned: Planned, number: int) -> None:
    plan = planned.plan
    if job.state(plan.items_of(number), planned) != plan.states[number]:
        raise PartsError(
            f"What part {number + 1} of {plan.parts} is made from has changed since {planned.root} was begun. Remove "
            "that folder and begin anew."
        )


# -------------------------------------------------------------------- merging


def plan_of(out: Path) -> tuple[Plan, bool]:
    """The plan of a result, and whether its parts are merged already.

    Raises:
        PartsError: There is none.
    """
    root = parts_folder(out)
    if (merged := Plan.read(root / _MERGED)) is not None:
        return merged, True
    plan = Plan.read(root / "plan" / PLAN)
    if plan is None:
        raise PartsError(
            f"There is no plan of {out}: {root} holds none. Begin with --part or --claim, and name the --out of it."
        )
    return plan, False


@contextmanager
def merging(job: Divisible, out: Path) -> Iterator[Planned]:
    """Let the block make the result from the parts; afterwards they are removed.

    Args:
        job: What the parts are of.
        out: The result to be.

    Yields:
        The plan, all of whose parts are there.

    Raises:
        PartsError: A part is missing, the plan is of other work, or the source has changed since it was made.
        WriteError: The system refused a file.
    """
    plan, _ = plan_of(out)
    planned = Planned(parts_folder(out), plan)
    plan.refuse_other(plan.model_copy(update={"work": job.work, "request": job.request()}), planned.root)
    if missing := planned.missing():
        shown = ", ".join(f"{number + 1}/{plan.parts}" for number in missing[:20])
        more = f" and {len(missing) - 20:,} more" if len(missing) > 20 else ""
        raise PartsError(
            f"{len(missing):,} of {plan.parts:,} parts of {out} are missing: {shown}{more}. Do them with --part or "
            "--claim, and merge again."
        )
    for number in range(plan.parts):
        _refuse_changed(job, planned, number)
    yield planned
    write_text(planned.root / _MERGED, plan.model_dump_json(indent=1))
    clear_merged(out)


def clear_merged(out: Path) -> None:
    """Remove the parts of a result that they are merged to; a record stays, for workers that begin late."""
    for path in parts_folder(out).iterdir():
        if path.name == _MERGED:
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
