"""Workers that share one piece of work by a place beside its result, and the end at which their parts are merged.

No service is needed. The place ``.<result>.parts``, a folder or objects, holds the plan, the leases and each part that
is done; a part becomes visible whole, once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from terrasieve.console import console
from terrasieve.errors import PartsError
from terrasieve.files.object_store import is_address
from terrasieve.files.writing import write_text
from terrasieve.parts.leases import Leases
from terrasieve.parts.part_plan import PLAN, Outline, Plan
from terrasieve.parts.shared_objects import SharedObjects
from terrasieve.parts.shared_place import SharedFolder, SharedPlace

DEFAULT_PARTS = 64
"""Parts of a plan for which no number was given."""
POLL = 2.0
"""Seconds between two looks at parts that others work on."""

_PLANNED = "plan"
"""Name of the folder of the plan, and of the files that belong to it."""
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
    """A plan, and the place that it is shared by.

    Attributes:
        place: The place.
        plan: How the work is divided.
    """

    place: SharedPlace
    plan: Plan

    @property
    def files(self) -> Path:
        """Folder of the files that all parts need."""
        return self.place.bring(_PLANNED)

    def part(self, number: int) -> Path:
        """Folder of a part that is done, which may go when two others were asked for since."""
        return self.place.bring(_name(number))

    def filled(self) -> list[int]:
        """Numbers of the parts that have items, from 0."""
        return [number for number in range(self.plan.parts) if self.plan.items_of(number)]

    @property
    def parts(self) -> Iterator[tuple[range, Path]]:
        """The items of each part that has any, and its folder, which may go when the one after the next comes."""
        return ((self.plan.items_of(number), self.part(number)) for number in self.filled())

    def missing(self, numbers: Iterable[int] | None = None) -> list[int]:
        """Numbers of the parts that are not done, from 0.

        Args:
            numbers: Those that are looked at; all when None.
        """
        names = {number: _name(number) for number in (range(self.plan.parts) if numbers is None else numbers)}
        whole = self.place.whole(list(names.values()))
        return [number for number, name in names.items() if name not in whole]


def shared_place(out: Path | str) -> SharedPlace:
    """The place by which workers share what becomes a result.

    Args:
        out: The result to be: a path, or its address ``s3://BUCKET/NAME``.

    Raises:
        ConfigError: It is an address that names no object.
    """
    return SharedObjects(str(out)) if is_address(out) else SharedFolder(Path(out))


# -------------------------------------------------------------------- working


def work_on(job: Divisible, out: Path | str, share: Share, options: Mapping[str, Any]) -> None:
    """Do one part, or whatever is left: until all parts are done, by this worker and the others.

    Args:
        job: What to do.
        out: The result to be, beside which the parts lie until they are merged.
        share: Which part.
        options: Options of the command, which the plan keeps for merging; values that JSON can hold.

    Raises:
        PartsError: The plan that is there is of other work, or the source has changed since.
        RemoteError: The server of an address cannot be reached; the same call goes on.
        WriteError: The system refused a file.
    """
    place = shared_place(out)
    asked = Plan(
        work=job.work, request=job.request(), items=0, unit=1, parts=share.parts or DEFAULT_PARTS, options=options
    )
    merged = _merged_plan(place)
    if merged is not None:
        merged.refuse_other(_as_planned(asked, merged, share), place.name)
        console.print(f"{out} is merged already: nothing is left to do.", highlight=False)
        return
    leases = Leases(place.lease_place())
    planned = _planned(job, place, leases, asked, share)
    while left := planned.missing(None if share.part is None else [share.part]):
        # Looked for after the parts, which are removed after it is written.
        if place.record() is not None:
            return
        if not any(_claim_and_do(job, planned, leases, number) for number in left):
            time.sleep(POLL)
    missing = len(planned.missing())
    if not missing:
        console.print(
            f"All {planned.plan.parts} parts are done. Make them one: terrasieve merge {out}", highlight=False
        )


def left_of(out: Path | str, parts: int | None) -> tuple[int, list[int]]:
    """Number of parts, and which of them are not done, from 0; all before a plan is made.

    Args:
        out: The result to be.
        parts: Number of parts that is asked for; the plan's, or :data:`DEFAULT_PARTS`, when None.

    Raises:
        PartsError: The plan cannot be read.
    """
    place = shared_place(out)
    plan = _plan_there(place)
    number = parts or (DEFAULT_PARTS if plan is None else plan.parts)
    # A worker that finds a plan of another number refuses it, and says what is there.
    if plan is None or plan.parts != number:
        return number, list(range(number))
    return number, Planned(place, plan).missing()


def is_merged(out: Path | str) -> bool:
    """Whether the parts of a result were merged already."""
    return shared_place(out).record() is not None


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
        with planned.place.publish(_name(number)) as place:
            if items:
                job.write(items, place, planned)
            (place / _DONE).write_text(json.dumps({"start": items.start, "stop": items.stop}), encoding="utf-8")
    except FileExistsError:
        return False
    return True


def _claim_and_do(job: Divisible, planned: Planned, leases: Leases, number: int) -> bool:
    """Whether this worker had the part; another may have it, or have done it meanwhile."""
    if not planned.missing([number]):
        return False
    lease = leases.claim(_name(number))
    if lease is None:
        return False
    with lease.held():
        if not planned.missing([number]):
            return True
        if lease.number:
            planned.place.clear(_name(number))
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


def _merged_plan(place: SharedPlace) -> Plan | None:
    """The plan of what is merged; None before."""
    record = place.record()
    return None if record is None else Plan.read(record, place.name)


def _plan_there(place: SharedPlace) -> Plan | None:
    """The plan that is there; None where there is none."""
    return Plan.read(place.bring(_PLANNED) / PLAN, place.name) if place.whole([_PLANNED]) else None


def _planned(job: Divisible, place: SharedPlace, leases: Leases, asked: Plan, share: Share) -> Planned:
    """The plan: the one that is there, or one that this worker makes while the others wait."""
    while (found := _plan_there(place)) is None:
        lease = leases.claim(_PLANNED)
        if lease is None:
            time.sleep(POLL)
            continue
        with lease.held():
            if not place.whole([_PLANNED]):
                _make_plan(job, place, asked)
    found.refuse_other(_as_planned(asked, found, share), place.name)
    return Planned(place, found)


def _make_plan(job: Divisible, place: SharedPlace, asked: Plan) -> None:
    place.clear(_PLANNED)
    try:
        with place.publish(_PLANNED) as folder:
            outline = job.outline(folder)
            found = {"items": outline.items, "unit": outline.unit, "facts": outline.facts}
            plan = asked.model_copy(update=found)
            planned = _Being(place, plan, folder)
            states = tuple(job.state(plan.items_of(number), planned) for number in range(plan.parts))
            write_text(folder / PLAN, plan.model_copy(update={"states": states}).model_dump_json(indent=1))
    except FileExistsError:
        return


@dataclass(frozen=True)
class _Being(Planned):
    """A plan that is being made, whose files lie under a temporary name."""

    folder: Path

    @property
    def files(self) -> Path:
        return self.folder


def _refuse_changed(job: Divisible, planned: Planned, number: int) -> None:
    plan = planned.plan
    if job.state(plan.items_of(number), planned) != plan.states[number]:
        raise PartsError(
            f"What part {number + 1} of {plan.parts} is made from has changed since {planned.place.name} was begun. "
            "Remove all that is there and begin anew."
        )


# -------------------------------------------------------------------- merging


def plan_of(out: Path | str) -> tuple[Plan, bool]:
    """The plan of a result, and whether its parts are merged already.

    Raises:
        PartsError: There is none.
    """
    place = shared_place(out)
    if (merged := _merged_plan(place)) is not None:
        return merged, True
    plan = _plan_there(place)
    if plan is None:
        raise PartsError(
            f"There is no plan of {out}: {place.name} holds none. Begin with --part or --claim, and name the --out of "
            "it."
        )
    return plan, False


@contextmanager
def merging(job: Divisible, out: Path | str) -> Iterator[Planned]:
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
    planned = Planned(shared_place(out), plan)
    plan.refuse_other(plan.model_copy(update={"work": job.work, "request": job.request()}), planned.place.name)
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
    # It stays, for workers that begin late.
    planned.place.conclude(plan.model_dump_json(indent=1))
