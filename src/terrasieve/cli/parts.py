"""Work in parts: the options by which a command does some of it, and the command that merges them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terrasieve.cli.app import Overwrite, app
from terrasieve.console import console
from terrasieve.errors import ConfigError, PartsError
from terrasieve.files.local_paths import find_address

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
    typer.Option(
        min=1, help="With --claim or --on: number of parts, where none was begun yet; 64.", show_default=False
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        "--on",
        help="Do all parts on a Ray cluster, and merge them: `ray` for the cores of this machine, or `ray://host:10001`.",
    ),
]

WHOLE_HARMONISED = (
    "--harmonise looks at all samples together. Index with --harmonise on one machine, and pack the catalogue in parts."
)

_OWN = ("part", "claim", "parts", "on", "overwrite", "out", "context", "workers", "cache", "cache_size")
"""Options that say how a command works, and not what it makes."""


@dataclass(frozen=True)
class _Merge:
    """What the context of a command holds that merges."""


@dataclass
class _Capture:
    """What the context of a command holds that is to open its source, and to do nothing yet.

    Attributes:
        found: The job, and the options that the plan keeps, when it has.
    """

    found: list[tuple[Divisible, Mapping[str, Any]]] = field(default_factory=list)


@dataclass(frozen=True)
class Division:
    """How a command divides its work.

    Attributes:
        context: Holds the command's options.
        share: What to do of it; all when None.
        merges: Whether it makes one of the parts.
        on: The cluster that does all parts, which are merged then; None where this process does its share.
    """

    context: typer.Context
    share: Share | None
    merges: bool
    on: str | None = None

    def work_on(self, job: Divisible, out: Path | str, suffixes: Sequence[str] = ()) -> None:
        """Do the share.

        Args:
            job: What the command does.
            out: The result to be, or its address.
            suffixes: The ends of names that say what it holds; any when empty.

        Raises:
            ConfigError: The result is not named so.
            PartsError: As ``terrasieve.parts.sharing.work_on``.
        """
        from terrasieve.cli.app import resumable
        from terrasieve.parts.sharing import is_merged, work_on

        assert self.share is not None
        if suffixes and Path(out).suffix.lower() not in suffixes:
            raise ConfigError(f"{out} would hold something else than its name says: let it end in {suffixes[0]}.")
        # Merging finds the source again by them. Where the result lies is for merging to say: its folder may have
        # another name there.
        recorded = {name: _whole(value) for name, value in self.context.params.items() if name not in _OWN}
        if isinstance(self.context.obj, _Capture):
            self.context.obj.found.append((job, recorded))
            return
        with resumable():
            if self.on is None or is_merged(out):
                work_on(job, out, self.share, recorded)
                return
            self._on_cluster(job, Path(out), recorded)
        _merge(self.context, str(out), find_address(recorded), bool(self.context.params.get("overwrite")))

    def refuse(self, why: str) -> None:
        """Refuse what takes all of the source at once, where there are parts.

        Args:
            why: A sentence that says so, and the fix.

        Raises:
            ConfigError: There are parts.
        """
        if self.share is not None or self.merges:
            raise ConfigError(f"This cannot be done in parts: {why}")

    def planned(self, out: Path | str) -> Plan:
        """The plan of what is merged.

        Raises:
            PartsError: There is none.
        """
        from terrasieve.parts.sharing import plan_of

        return plan_of(out)[0]

    def _on_cluster(self, job: Divisible, out: Path, recorded: Mapping[str, Any]) -> None:
        from terrasieve.cli.on_ray import RayWork, run_on_ray
        from terrasieve.parts.sharing import left_of

        assert self.share is not None
        assert self.on is not None
        parts, missing = left_of(out, self.share.parts)
        own = {name: self.context.params[name] for name in ("cache", "cache_size") if name in self.context.params}
        # A worker is a core: it reads in its own process, unless it was given reader processes.
        readers = self.context.params.get("workers") or 0
        run_on_ray(
            self.on,
            RayWork(
                work=job.work,
                out=out.absolute(),
                parts=parts,
                missing=tuple(missing),
                options={**recorded, **{name: _whole(value) for name, value in own.items()}, "workers": readers},
                cpus=max(1, readers),
                device=self.context.params.get("device"),
            ),
        )

    @contextmanager
    def merging(self, job: Divisible, out: Path | str) -> Iterator[Planned | None]:
        """What the parts of a result came to, for the block to make it from; None where it is made at once."""
        from terrasieve.parts.sharing import merging

        if not self.merges:
            yield None
            return
        with merging(job, out) as planned:
            yield planned


def division(
    context: typer.Context, part: str | None, claim: bool, parts: int | None, on: str | None = None
) -> Division:
    """How a command divides its work, by its options.

    Raises:
        ConfigError: They contradict each other, or name no part or no cluster.
    """
    from terrasieve.parts.sharing import Share

    merges = isinstance(context.obj, _Merge)
    _refuse_address(context, on)
    if part is not None and claim:
        raise ConfigError("--part does one part, --claim whatever is left; leave one out.")
    if on is not None and (claim or part is not None):
        raise ConfigError("--on does all parts; leave --part and --claim out.")
    if on is not None and on != "ray" and not on.startswith("ray://"):
        raise ConfigError(f"--on {on}: say ray for this machine, or the address of a cluster, e.g. ray://host:10001.")
    if parts is not None and not claim and on is None:
        raise ConfigError("--parts is for --claim and --on; --part names their number itself, as in 3/64.")
    if part is not None:
        number, _, count = part.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ConfigError(f"--part {part}: give its number, from 1, and that of all parts, e.g. 3/64.")
        return Division(context, Share(int(number) - 1, int(count)), merges)
    shares = claim or on is not None or isinstance(context.obj, _Capture)
    return Division(context, Share(None, parts) if shares else None, merges, on)


def _refuse_address(context: typer.Context, on: str | None) -> None:
    """Refuse an address for the result of what reaches none."""
    from terrasieve.files.object_store import is_address

    out = context.params.get("out")
    # A path has lost one of the slashes.
    if isinstance(out, Path) and str(out).startswith("s3:/"):
        raise ConfigError(
            f"{context.info_name} writes to no address. Let --out be a file of this machine or, for parts, in a folder "
            "that all machines share; merge there, and copy the result to the address."
        )
    if on is not None and is_address(out):
        raise ConfigError(
            f"--on {on} wants an --out that all machines see as a file. Start --claim on each machine instead, or "
            "write to a shared folder, and copy the result to the address."
        )


def part_worker(work: str, out: str, parts: int, options: Mapping[str, Any]) -> Callable[[int], None]:
    """Open the source of a command once, for many parts of it.

    Args:
        work: Name of the command.
        out: The result to be.
        parts: Number of parts.
        options: Options of the command.

    Returns:
        What does a part, counted from 0, as ``--part`` does.
    """
    from terrasieve.parts.sharing import Share, work_on

    command, capture = command_named(typer.main.get_command(app), work), _Capture()
    assert command is not None
    with command.make_context(work, [], default_map={**options, "out": out}, obj=capture) as inner:
        command.invoke(inner)
    ((job, recorded),) = capture.found
    return lambda number: work_on(job, Path(out), Share(number, parts), recorded)


def command_named(root: Any, work: str) -> Any:
    """The command of a name, which may be of several words; None where none of that name works in parts.

    Args:
        root: The group of all commands.
        work: The name.
    """
    command = root
    for name in work.split():
        command = getattr(command, "commands", {}).get(name)
    return command if command is not None and {"part", "claim"} <= {one.name for one in command.params} else None


def _whole(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_whole(one) for one in value]
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).exists()):
        return str(Path(value).absolute())
    return value


@app.command()
def merge(
    context: typer.Context,
    out: Annotated[str, typer.Argument(help="The --out of a command whose parts are done; a path, or an address.")],
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
    terrasieve merge s3://bucket/pairs.zarr
    ```
    """
    _merge(context, out, data, overwrite)


def _merge(context: typer.Context, out: str, data: str | None, overwrite: bool) -> None:
    from terrasieve.parts.sharing import plan_of, shared_place

    plan, merged = plan_of(out)
    if merged:
        place = shared_place(out)
        if not place.holds_result():
            raise PartsError(f"The parts of {out} were merged, and it was removed since. Remove {place.name}, too.")
        place.remove_parts()
        console.print(f"{out} is merged already: nothing to do.", highlight=False)
        return
    command = command_named(context.find_root().command, plan.work)
    if command is None:
        raise PartsError(f"The plan of {out} is of {plan.work!r}, which no command does in parts. Begin anew.")
    address = find_address(plan.options)
    if address is not None and address != data:
        raise PartsError(
            f"The plan of {out} is of {address}. Say yourself that this is to be asked for: --data {address}"
        )
    # Parsed as if written on the command line: what the plan says is checked as what a user says.
    options = {**plan.options, "out": out, "overwrite": overwrite}
    with command.make_context(plan.work, [], parent=context, default_map=options, obj=_Merge()) as inner:
        command.invoke(inner)
