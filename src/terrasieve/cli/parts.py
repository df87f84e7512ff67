"""Work in parts: the options by which a command does some of it, and the command that merges them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terrasieve.cli.app import Overwrite, app
from terrasieve.console import console
from terrasieve.errors import ConfigError, PartsError
from terrasieve.local_paths import find_address

if TYPE_CHECKING:
    from terrasieve.parts.part_plan import Plan
    from terrasieve.parts.sharing import Divisible, Planned, Share

Part = Annotated[
    str | None,
    typer.Option(
        "--part",
        help="Do one part of many, e.g. `3/64` in an array job; `terrasieve merge` makes one of them.",
    ),
]
Claim = Annotated[
    bool, typer.Option("--claim", help="Do parts until none is left, beside any number of others who do the same.")
]
Parts = Annotated[
    int | None,
    typer.Option(min=1, help="With --claim: number of parts, where none was begun yet; 64.", show_default=False),
]

WHOLE_HARMONISED = (
    "--harmonise looks at all samples together. Index with --harmonise on one machine, and pack the catalogue in parts."
)

WHOLE_AT_ADDRESS = (
    "parts meet in a folder that all machines share. Write to such a folder, merge there, and copy the result to the "
    "address."
)

_OWN = ("part", "claim", "parts", "overwrite", "out", "context", "workers", "cache", "cache_size")
"""Options that say how a command works, and not what it makes."""


@dataclass(frozen=True)
class _Merge:
    """What the context of a command holds that merges."""


@dataclass(frozen=True)
class Division:
    """How a command divides its work.

    Attributes:
        context: Holds the command's options.
        share: What to do of it; all when None.
        merges: Whether it makes one of the parts.
    """

    context: typer.Context
    share: Share | None
    merges: bool

    def work_on(self, job: Divisible, out: Path, suffixes: Sequence[str] = ()) -> None:
        """Do the share.

        Args:
            job: What the command does.
            out: The result to be.
            suffixes: The ends of names that say what it holds; any when empty.

        Raises:
            ConfigError: The result is not named so.
            PartsError: As ``terrasieve.parts.sharing.work_on``.
        """
        from terrasieve.cli.app import resumable
        from terrasieve.parts.sharing import work_on

        assert self.share is not None
        if suffixes and out.suffix.lower() not in suffixes:
            raise ConfigError(f"{out} would hold something else than its name says: let it end in {suffixes[0]}.")
        # Merging finds the source again by them. Where the result lies is for merging to say: its folder may have
        # another name there.
        recorded = {name: _whole(value) for name, value in self.context.params.items() if name not in _OWN}
        with resumable():
            work_on(job, out, self.share, recorded)

    def refuse(self, why: str) -> None:
        """Refuse what takes all of the source at once, where there are parts.

        Args:
            why: A sentence that says so, and the fix.

        Raises:
            ConfigError: There are parts.
        """
        if self.share is not None or self.merges:
            raise ConfigError(f"This cannot be done in parts: {why}")

    def planned(self, out: Path) -> Plan:
        """The plan of what is merged.

        Raises:
            PartsError: There is none.
        """
        from terrasieve.parts.sharing import plan_of

        return plan_of(out)[0]

    @contextmanager
    def merging(self, job: Divisible, out: Path) -> Iterator[Planned | None]:
        """What the parts of a result came to, for the block to make it from; None where it is made at once."""
        from terrasieve.parts.sharing import merging

        if not self.merges:
            yield None
            return
        with merging(job, out) as planned:
            yield planned


def division(context: typer.Context, part: str | None, claim: bool, parts: int | None) -> Division:
    """How a command divides its work, by its options.

    Raises:
        ConfigError: They contradict each other, or name no part.
    """
    from terrasieve.parts.sharing import Share

    merges = isinstance(context.obj, _Merge)
    if part is not None and claim:
        raise ConfigError("--part does one part, --claim whatever is left; leave one out.")
    if parts is not None and not claim:
        raise ConfigError("--parts is for --claim; --part names their number itself, as in 3/64.")
    if part is not None:
        number, _, count = part.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ConfigError(f"--part {part}: give its number, from 1, and that of all parts, e.g. 3/64.")
        return Division(context, Share(int(number) - 1, int(count)), merges)
    return Division(context, Share(None, parts) if claim else None, merges)


def _whole(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_whole(one) for one in value]
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).exists()):
        return str(Path(value).absolute())
    return value


@app.command()
def merge(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="The --out of a command whose parts are done.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="The address that was worked on, where it was one: no plan decides what is asked on the net."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make one result of the parts that were done with `--part` or `--claim`.

    It equals byte for byte what one machine would have made of the whole. Parts that are missing are named, and
    nothing is written then. Do the same again where it was interrupted.

    **Examples**

    ```
    terrasieve index scenes --sensor s2=s2-l2a --out scenes.parquet --part 3/64
    terrasieve index scenes --sensor s2=s2-l2a --out scenes.parquet --claim
    terrasieve merge scenes.parquet
    ```
    """
    from terrasieve.parts.sharing import clear_merged, plan_of

    plan, merged = plan_of(out)
    if merged:
        if not out.exists():
            raise PartsError(
                f"The parts of {out} were merged, and it was removed since. Remove .{out.name}.parts, too."
            )
        clear_merged(out)
        console.print(f"{out} is merged already: nothing to do.", highlight=False)
        return
    command: Any = context.find_root().command
    for name in plan.work.split():
        command = getattr(command, "commands", {}).get(name)
    if command is None or not {"part", "claim"} <= {one.name for one in command.params}:
        raise PartsError(f"The plan of {out} is of {plan.work!r}, which no command does in parts. Begin anew.")
    address = find_address(plan.options)
    if address is not None and address != data:
        raise PartsError(
            f"The plan of {out} is of {address}. Say yourself that this is to be asked for: --data {address}"
        )
    # Parsed as if written on the command line: what the plan says is checked as what a user says.
    options = {**plan.options, "out": str(out), "overwrite": overwrite}
    with command.make_context(plan.work, [], parent=context, default_map=options, obj=_Merge()) as inner:
        command.invoke(inner)
