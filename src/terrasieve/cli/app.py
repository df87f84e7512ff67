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

if TYPE_CHECKING:
    from terrasieve.archive.packed.chunk_cache import ChunkCache
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
        "a folder of scenes or pictures or a plain table (with --sensor), or `simulated[:SEED[:SAMPLES]]` or "
        "`simulated-ocean[...]`."
    ),
]
Harmonise = Annotated[
    bool,
    typer.Option(
        "--harmonise",
        help="Subtract the offset of +1000 (Sentinel-2 baseline 04.00) from exactly the samples that carry it.",
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
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Keep the chunks of a store at an address in this folder of a local disk, for all runs that name it.",
        show_default=False,
    ),
]
CacheSize = Annotated[str, typer.Option(help="The most that --cache may hold; what was used longest ago goes.")]
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda` or `mps`.")]


def cache_in(folder: Path | None, size: str) -> ChunkCache | None:
    """The cache that ``--cache`` and ``--cache-size`` name; None without the first.

    Raises:
        ConfigError: The size is none.
    """
    from terrasieve.archive.packed.chunk_cache import ChunkCache

    return None if folder is None else ChunkCache.of(folder, size)


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
