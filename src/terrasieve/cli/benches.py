"""Commands that fill the papers' tables: bench rs-byol, bench oceansar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from terrasieve.cli.app import Device, Size, app
from terrasieve.cli.data_options import takes_archive
from terrasieve.console import console
from terrasieve.errors import ConfigError

if TYPE_CHECKING:
    from terrasieve.archive.archive_options import ArchiveOptions
    from terrasieve.bench.suites import BenchResult

bench_app = typer.Typer(rich_markup_mode="markdown", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

Runs = Annotated[
    list[str] | None,
    typer.Option("--run", help="A run folder, or `NAME=FOLDER`; a name that comes again is another seed of it."),
]
Baselines = Annotated[
    list[str] | None,
    typer.Option("--baseline", help="An encoder that others trained, e.g. `imagenet:resnet50:FILE`; repeatable."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="Bands of one line, e.g. `s2:B04` or `s2:rgb`; every band and triple by default."),
]
Probes = Annotated[list[str] | None, typer.Option("--probe", help="`knn`, `logistic`, `mlp` or `ridge`; repeatable.")]
Out = Annotated[Path, typer.Option(help="The benchmark's folder; what is measured in it is not measured again.")]


@bench_app.callback()
def _bench() -> None:
    """Fill a table in the form of one of the two papers, with intervals, tests and the published numbers.

    **Examples**

    ```
    terrasieve bench rs-byol --data samples --small
    terrasieve bench oceansar --data wv.parquet --run runs/wv --target label --target swh
    ```
    """


@bench_app.command("rs-byol")
@takes_archive
def bench_rs_byol(
    data: Annotated[
        str, typer.Option(help="A labelled archive; with --small, the folder with la_texas_pairs and eurosat_rgb.")
    ],
    options: ArchiveOptions,
    out: Out = Path("runs/bench-rs-byol"),
    run: Runs = None,
    baseline: Baselines = None,
    inputs: Inputs = None,
    probe: Probes = None,
    size: Size = None,
    small: Annotated[
        bool, typer.Option("--small", help="Pre-train three small recipes first, and measure these.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="With --small: runs of each recipe.")] = 2,
    scratch_epochs: Annotated[
        int | None, typer.Option(min=0, help="Of training from scratch on the labels, 0: not; 30, with --small 10.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Bands by models on a classification archive, as in Tables I to III of RS-BYOL.

    Beside the runs stand baselines, an untrained network, one trained from scratch on the labels, and image statistics,
    with intervals, paired tests over bands and seeds, and the published numbers. Run the same command again to go on
    after an interruption: every cell of the table is kept.

    **Examples**

    ```
    terrasieve bench rs-byol --data samples --small
    terrasieve bench rs-byol --data EuroSAT_MS --run rs-byol-1=runs/a --run rs-byol-1=runs/b --run runs/three
    terrasieve bench rs-byol --data EuroSAT_MS --run runs/a --baseline imagenet:resnet50 --size 224 --input s2:B08
    ```
    """
    from terrasieve.bench.planning import make_plan
    from terrasieve.bench.small import SIZE, small_runs
    from terrasieve.bench.suites import rs_byol
    from terrasieve.demo.samples import real_samples
    from terrasieve.device import pick_device
    from terrasieve.files.outputs import hold_folder

    if small and (words := options.words()):
        raise ConfigError(f"--small brings samples of its own, {' '.join(words)} describe others; leave one out.")
    with hold_folder(out):
        if small:
            samples = real_samples(Path(data), seed=0)
            run = [*small_runs(samples, out, range(seeds), device), *(run or [])]
            archive, inputs, size = samples.labelled, inputs or list(samples.inputs), size or SIZE
        else:
            archive = options.open(data)
        on = pick_device(device)
        epochs = scratch_epochs if scratch_epochs is not None else 10 if small else 30
        plan = make_plan(archive, run or [], baseline or [], inputs or [], probe or [], size, epochs, on)
        _show(rs_byol(plan, out, on))


@bench_app.command("oceansar")
@takes_archive
def bench_oceansar(
    data: Annotated[str, typer.Option(help="An archive whose table holds the targets.")],
    options: ArchiveOptions,
    out: Out = Path("runs/bench-oceansar"),
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="A column: text is a class, a floating-point number is regressed; repeatable."),
    ] = None,
    run: Runs = None,
    baseline: Baselines = None,
    inputs: Inputs = None,
    probe: Probes = None,
    size: Size = None,
    scratch_epochs: Annotated[int, typer.Option(min=0, help="Of training from scratch on the labels; 0: not.")] = 0,
    device: Device = "auto",
) -> None:
    """Models by targets (a class, wave height, wind), kNN and linear, as in the table of OceanSAR-1.

    **Examples**

    ```
    terrasieve bench oceansar --data wv.parquet --run runs/wv --target label --target swh --target wind_speed
    terrasieve bench oceansar --data wv.parquet --run runs/wv --baseline oceansar-1:OceanSAR-1 --target label
    ```
    """
    from terrasieve.bench.planning import make_plan
    from terrasieve.bench.suites import oceansar
    from terrasieve.device import pick_device
    from terrasieve.files.outputs import hold_folder

    with hold_folder(out):
        on = pick_device(device)
        plan = make_plan(
            options.open(data), run or [], baseline or [], inputs or [], probe or [], size, scratch_epochs, on
        )
        _show(oceansar(plan, target or ["label"], out, on))


def _show(result: BenchResult) -> None:
    from rich.console import Console

    shown = Console()
    shown.print(*result.tables)
    for words in result.words:
        shown.print(words, highlight=False, markup=False)
    console.print(f"Written: {', '.join(map(str, result.files))}", highlight=False)
