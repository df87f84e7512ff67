"""The program that every command is part of: options that several share, the archive they name, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from terrasieve import __version__
from terrasieve.cli.boundary import guarded
from terrasieve.cli.front_page import FrontPage
from terrasieve.console import console
from terrasieve.errors import ConfigError

if TYPE_CHECKING:
    from terrasieve.archive.layout import ArchiveSpec
    from terrasieve.archive.protocol import Archive
    from terrasieve.archive.quality.suspicion import Suspicion

app = typer.Typer(
    name="terrasieve",
    cls=FrontPage,
    help="Turn an archive of unlabelled satellite imagery into a foundation model of that archive.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def main() -> None:
    """Entry point: errors are printed without a traceback."""
    guarded(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"terrasieve {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn an archive of unlabelled satellite imagery into a foundation model of that archive."""


# -------------------------------------------------------------- shared options

Data = Annotated[
    str,
    typer.Argument(
        help="A packed store, a catalogue (.parquet), an archive description (.yaml), the folder of a data set, "
        "a folder of scenes or a plain table (with --sensor), or `simulated[:SEED[:SAMPLES]]` or "
        "`simulated-ocean[...]`."
    ),
]
SensorOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--sensor",
        help="For a folder of scenes: `KEY=SENSOR[:FOLDER]`, once per sensor, e.g. `s2=s2-l2a`; for a plain table: "
        "`KEY=SENSOR`.",
    ),
]
LayoutName = Annotated[
    str | None,
    typer.Option("--layout", help="Layout of the folder, e.g. `eurosat`, where it is not to be recognised."),
]
Harmonise = Annotated[
    bool,
    typer.Option(
        "--harmonise",
        help="Subtract the offset of +1000 (Sentinel-2 baseline 04.00) from exactly the samples that carry it.",
    ),
]
Tile = Annotated[int, typer.Option(help="For a folder of scenes: rows and columns of a sample, in pixels.")]
Stride = Annotated[int | None, typer.Option(help="For a folder of scenes: pixels between samples; the tile size.")]
Match = Annotated[
    Literal["stem", "geometry"], typer.Option(help="For a folder of scenes: how files of several sensors are paired.")
]
EdgeRule = Annotated[
    Literal["drop", "overlap"],
    typer.Option(
        "--edge",
        help="For a folder of scenes: `drop` leaves out what no whole tile covers at the far edges, `overlap` covers "
        "it with a last tile.",
    ),
]
MaxDays = Annotated[
    float | None,
    typer.Option(
        min=0, help="For a folder of scenes: most days between files of several sensors that are paired; any."
    ),
]
Patterns = Annotated[
    list[str] | None,
    typer.Option(
        "--pattern",
        help="For a folder of scenes: which files are a sensor's, `KEY=GLOB`, e.g. `s2=**/*.jp2`; with `{band}` in it, "
        "each band has a file of its own, e.g. `s2=*_{band}.jp2`.",
    ),
]
MaxBad = Annotated[float, typer.Option(help="Stop when more than this share of samples is quarantined.")]
MaxNodata = Annotated[float, typer.Option(help="Quarantine a sample when more than this share of a band is missing.")]
RunPath = Annotated[Path, typer.Argument(help="A run folder, or a folder with encoder.safetensors.")]
ProbedInputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="Bands to probe, e.g. `s2:B04`; every band or triple by default."),
]
Size = Annotated[int | None, typer.Option(help="Resize samples to this many pixels; their own size.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Reader processes; 0 reads in the main one, which helps where memory is short. By default one a core, at "
        "most eight.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Change one setting, e.g. `--set train.epochs=20`; repeatable.")
]
Curate = Annotated[
    Literal["dynamic", "static", "none"] | None,
    typer.Option(
        "--curate",
        help="Prune and rebalance the archive: `dynamic` in rounds, `static` once after the warm-up, `none` never; "
        "the recipe's choice.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier command wrote to --out.")]
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda` or `mps`.")]


def open_named(
    data: str,
    sensors: list[str] | None,
    tile: int,
    stride: int | None,
    match: Literal["stem", "geometry"],
    layout: str | None = None,
    edge: Literal["drop", "overlap"] = "drop",
    max_days: float | None = None,
    patterns: list[str] | None = None,
) -> Archive:
    """An archive by its name, or a folder of scenes by its sensors; options as of ``terrasieve pack``.

    Raises:
        ConfigError: Both sensors and a layout are given.
    """
    from terrasieve.archive.opening import open_archive

    spec = named_spec(data, sensors, tile, stride, match, layout, edge, max_days, patterns)
    return open_archive(data, layout=layout) if spec is None else spec.open()


def named_spec(
    data: str,
    sensors: list[str] | None,
    tile: int,
    stride: int | None,
    match: Literal["stem", "geometry"],
    layout: str | None = None,
    edge: Literal["drop", "overlap"] = "drop",
    max_days: float | None = None,
    patterns: list[str] | None = None,
) -> ArchiveSpec | None:
    """How a named archive is opened, where options or a YAML file say it; None of what is recognised by itself.

    Raises:
        ConfigError: Both sensors and a layout are given, or the YAML file is not valid.
    """
    from terrasieve.archive.layouts.cube import cube_spec_from_options, is_cube
    from terrasieve.archive.layouts.plain_table import is_table, table_spec_from_options
    from terrasieve.archive.opening import load_spec, scenes_spec_from_options

    path = Path(data)
    if sensors and is_table(path):
        return table_spec_from_options(path, sensors)
    if sensors and is_cube(path):
        return cube_spec_from_options(path, sensors, tile, stride, edge)
    if sensors and layout:
        raise ConfigError(f"--sensor is for a folder of scenes, --layout {layout} says it is none; leave one out.")
    if sensors:
        return scenes_spec_from_options(path, sensors, tile, stride, match, edge, max_days, patterns or ())
    if patterns:
        raise ConfigError(f"--pattern {patterns[0]!r} is for a folder of scenes; name its --sensor, too.")
    described = layout is None and path.suffix in (".yaml", ".yml") and path.is_file()
    return load_spec(path) if described else None


def say_layout(data: str, sensors: list[str] | None, layout: str | None) -> str | None:
    """Which layout a folder is taken to have, how sure that is, and why; None where nothing had to be recognised."""
    from terrasieve.archive.opening import recognise

    if layout is not None:
        return f"Layout: {layout}, as --layout says."
    if sensors or not Path(data).is_dir():
        return None
    seen = recognise(Path(data))
    if not seen:
        return None
    best, *others = seen
    beside = ", ".join(f"{other.spec.layout} {other.confidence:.0%}" for other in others)
    about = best.spec.data_set
    name = f"{about.title} ({best.spec.layout})" if about else best.spec.layout
    return (
        f"Layout: {name}, {best.confidence:.0%} sure: {best.evidence}."
        + (f" Also possible: {beside}." if beside else "")
        + " --layout overrides it."
    )


# -------------------------------------------------------------- on the console


@contextmanager
def resumable() -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("Stopped. Run the same command again to go on from here.", highlight=False)
        raise


def tell(suspicions: Sequence[Suspicion], listed: Path, options: Sequence[str]) -> None:
    """Print a short list: what, in how many samples, an example, what was seen, and what mends it.

    Args:
        suspicions: What was found.
        listed: The file that lists all ids.
        options: The switches of the command that prints it which mend something.
    """
    from terrasieve.archive.quality.suspicion import advice

    if not suspicions:
        console.print("Suspicions: none.", highlight=False)
        return
    console.print(f"Suspicions; no sample was left out for them, all ids are in {listed}:", highlight=False)
    for one in suspicions:
        console.print(Text(f"  {one.headline}", style="bold yellow"))
        where = f" ({one.asset})" if one.asset else ""
        console.print(Text(f"    for example  {one.example}{where}"))
        console.print(Text(f"    seen         {one.seen}"))
        console.print(Text(f"    mend         {advice(one.kind, options)}"))


def say_not_taken(archive: Archive, by_options: bool) -> None:
    """Print what lies among the archive's files and is none of its samples; nothing where there is no such thing.

    Args:
        archive: The archive as it was opened.
        by_options: Whether options described it, rather than a file or a data set's folder.
    """
    if line := archive.not_taken.line("--edge overlap" if by_options else "edge: overlap in its description"):
        console.print(Text(line, style="yellow"))


def warn(suspicions: Sequence[Suspicion], options: Sequence[str] = ()) -> None:
    """Print a line for each.

    Args:
        suspicions: What was found.
        options: The switches of the command that prints it which mend something.
    """
    for one in suspicions:
        console.print(Text(f"Warning: {one.line(options)}", style="yellow"))
