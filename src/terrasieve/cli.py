"""The command line: parse, call, print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from terrasieve import __version__
from terrasieve.archive.protocol import Archive
from terrasieve.console import console
from terrasieve.errors import TerrasieveError

app = typer.Typer(
    name="terrasieve",
    help="Turn an archive of unlabelled satellite imagery into a foundation model of that archive.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
recipes_app = typer.Typer(rich_markup_mode="markdown")
app.add_typer(recipes_app, name="recipes")

Data = Annotated[
    str,
    typer.Argument(
        help="A packed store, a catalogue (.parquet), an archive description (.yaml), a EuroSAT folder, "
        "a folder of scenes (with --sensor), or `simulated[:SEED[:SAMPLES]]`."
    ),
]
SensorOptions = Annotated[
    list[str] | None,
    typer.Option("--sensor", help="For a folder of scenes: `KEY=SENSOR[:FOLDER]`, once per sensor, e.g. `s2=s2-l2a`."),
]
Tile = Annotated[int, typer.Option(help="For a folder of scenes: rows and columns of a sample, in pixels.")]
Stride = Annotated[int | None, typer.Option(help="For a folder of scenes: pixels between samples; the tile size.")]
Match = Annotated[
    Literal["stem", "geometry"], typer.Option(help="For a folder of scenes: how files of several sensors are paired.")
]
MaxBad = Annotated[float, typer.Option(help="Stop when more than this share of samples is quarantined.")]
MaxNodata = Annotated[float, typer.Option(help="Quarantine a sample when more than this share of a band is missing.")]
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
Device = Annotated[str, typer.Option(help="`auto`, `cpu`, `cuda` or `mps`.")]


def main() -> None:
    """Entry point: errors that the user can mend are printed without a traceback."""
    try:
        app()
    except TerrasieveError as error:
        console.print(f"[bold red]{type(error).__name__}:[/] {_plain(str(error))}", highlight=False)
        sys.exit(1)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


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


# ------------------------------------------------------------------------ archives


@app.command()
def index(
    data: Data,
    out: Annotated[Path, typer.Option(help="The catalogue to write (GeoParquet).")] = Path("catalogue.parquet"),
    sensor: SensorOptions = None,
    tile: Tile = 64,
    stride: Stride = None,
    match: Match = "stem",
    max_bad: MaxBad = 0.01,
    max_nodata: MaxNodata = 0.05,
) -> None:
    """Check every sample of an archive and write its catalogue.

    Unusable samples are listed, with the reason, in `<out>.quarantine.csv` and left out.

    **Examples**

    ```
    terrasieve index scenes --sensor s2=s2-l2a --sensor s1=s1 --tile 128
    terrasieve index EuroSAT_RGB --out eurosat.parquet
    ```
    """
    from terrasieve.archive.catalogue import index_archive
    from terrasieve.archive.quality import QualityLimits

    archive = _open(data, sensor, tile, stride, match)
    report = index_archive(archive, out, QualityLimits(max_nodata=max_nodata), max_bad=max_bad)
    console.print(f"Indexed: {report.summary()}", highlight=False)


@app.command()
def info(
    data: Data,
    sensor: SensorOptions = None,
    tile: Tile = 64,
    stride: Stride = None,
    match: Match = "stem",
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet (PNG).")] = None,
) -> None:
    """Show what an archive holds: sensors, statistics, labels, extent, time.

    **Examples**

    ```
    terrasieve info packed.zarr --sheet sheet.png
    terrasieve info simulated:7
    ```
    """
    from rich.console import Console

    from terrasieve.archive.overview import contact_sheet, describe

    archive = _open(data, sensor, tile, stride, match)
    Console().print(describe(archive))
    if sheet is not None:
        contact_sheet(archive, sheet)
        console.print(f"Contact sheet: {sheet}", highlight=False)


@app.command()
def pack(
    data: Data,
    out: Annotated[Path, typer.Option(help="The store to write (a Zarr v3 group).")],
    sensor: SensorOptions = None,
    tile: Tile = 64,
    stride: Stride = None,
    match: Match = "stem",
    compress: Annotated[bool, typer.Option("--compress", help="Compress, for storage and remote reading.")] = False,
    max_bad: MaxBad = 0.01,
    max_nodata: MaxNodata = 0.05,
) -> None:
    """Pack an archive into one store that training reads by band and window.

    Run the same command again to go on after an interruption.

    **Examples**

    ```
    terrasieve pack scenes --sensor s2=s2-rgb8 --sensor s1=s1-vh8 --tile 64 --out pairs.zarr
    terrasieve pack catalogue.parquet --out pairs.zarr --compress
    ```
    """
    from terrasieve.archive.packing import pack as pack_archive
    from terrasieve.archive.quality import QualityLimits

    archive = _open(data, sensor, tile, stride, match)
    limits = QualityLimits(max_nodata=max_nodata)
    report = pack_archive(archive, out, compress=compress, max_bad=max_bad, limits=limits)
    console.print(f"Packed: {report.summary()} {report.bytes / 1e6:,.1f} MB", highlight=False)


# ------------------------------------------------------------------------ training


@app.command()
def pretrain(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see `terrasieve recipes`) or a YAML file.")],
    data: Annotated[str, typer.Option(help="The archive to learn from: packed store, catalogue, folder, ...")],
    out: Annotated[Path, typer.Option(help="The run folder.")],
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    probe_data: Annotated[
        str | None, typer.Option(help="A labelled archive for the online kNN (train.evaluate_every epochs apart).")
    ] = None,
    probe_input: Annotated[
        str | None, typer.Option(help="What the online kNN shows the encoder, e.g. `s2:B03`; its first fit.")
    ] = None,
    subset: Annotated[
        Path | None, typer.Option(help="Learn from these samples only: a selection of `terrasieve curate`.")
    ] = None,
    curate: Curate = None,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="Number of devices; more than one trains data-parallel.")] = 1,
) -> None:
    """Pre-train an encoder on an unlabelled archive.

    With `--curate dynamic`, the archive is sieved while the model trains: after a warm-up, and again every few passes,
    the model embeds the archive, and a fresh, balanced pool is drawn from it (`curation:` in the configuration).
    Each round is recorded in `curation/` of the run folder.

    **Examples**

    ```
    terrasieve pretrain rs-byol-1 --data pairs.zarr --out runs/first
    terrasieve pretrain rs-byol-1-small --data pairs.zarr --out runs/small --set train.epochs=10 --probe-data EuroSAT
    terrasieve pretrain rs-byol-1-small --data pairs.zarr --out runs/small --set train.epochs=10 --resume
    terrasieve pretrain dino-small --data pairs.zarr --out runs/dino --curate dynamic --set curation.keep=0.2
    terrasieve pretrain dino-small --data pairs.zarr --out runs/static --subset selection.parquet
    ```
    """
    from terrasieve.archive.opening import open_archive
    from terrasieve.archive.selection import read_selection
    from terrasieve.config import load_config
    from terrasieve.pretrain import online_probe
    from terrasieve.pretrain import pretrain as run
    from terrasieve.training.loop import make_fabric

    config = load_config(recipe, settings or [], curate)
    archive = open_archive(data)
    chosen = read_selection(subset, archive) if subset else None
    evaluate = online_probe(config, open_archive(probe_data), probe_input) if probe_data else None
    fabric = make_fabric(config.train, device, devices)
    fabric.launch()
    result = run(config, archive, out, fabric, resume=resume, evaluate=evaluate, subset=chosen)
    if fabric.is_global_zero:
        console.print(
            f"Done after {result.steps} steps. Encoder: {out / 'encoder'}  log: {out / 'log.csv'}", highlight=False
        )


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context) -> None:
    """List the shipped recipes.

    **Examples**

    ```
    terrasieve recipes
    terrasieve recipes show rs-byol-1 --set train.epochs=150
    ```
    """
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.table import Table

    from terrasieve.config import load_config, recipe_names

    table = Table("recipe", "what it is", "backbone", "epochs", "batch", box=None, header_style="bold")
    for name in recipe_names():
        config = load_config(name)
        row = (config.model.name, f"{config.train.epochs:g}", str(config.train.batch_size))
        table.add_row(name, config.description, *row)
    Console().print(table)


@recipes_app.command("show")
def show_recipe(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or a YAML file.")], settings: Settings = None
) -> None:
    """Print a recipe with every parameter resolved.

    **Examples**

    ```
    terrasieve recipes show rs-byol-1
    terrasieve recipes show rs-byol-1 --set model.name=resnet18 > mine.yaml
    ```
    """
    from terrasieve.config import load_config, to_yaml

    print(to_yaml(load_config(recipe, settings or [])), end="")


# ----------------------------------------------------------------------- measuring


@app.command()
def embed(
    run: Annotated[Path, typer.Argument(help="A run folder, or a folder with encoder.safetensors.")],
    data: Annotated[str, typer.Option(help="The archive to embed.")],
    out: Annotated[Path, typer.Option(help="The file to write (GeoParquet).")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", help="Bands to show the encoder, e.g. `s2:B04`; repeat to join several. The first that fits."
        ),
    ] = None,
    statistics: Annotated[
        Literal["encoder", "archive"],
        typer.Option(help="Standardise as in training, or by the archive's own statistics (other stretch or unit)."),
    ] = "encoder",
    size: Annotated[int | None, typer.Option(help="Resize samples to this many pixels; their own size.")] = None,
    batch_size: Annotated[int, typer.Option(help="Samples per forward pass.")] = 256,
    device: Device = "auto",
) -> None:
    """Embed an archive: one vector a sample, with ids, geometry, time and provenance.

    Memory does not grow with the archive; run the same command again to go on after an interruption.

    **Examples**

    ```
    terrasieve embed runs/first --data pairs.zarr --input s2:B03 --out green.parquet
    terrasieve embed runs/first --data EuroSAT_RGB --input s2:rgb --statistics archive --out rgb.parquet
    ```
    """
    from terrasieve.archive.opening import open_archive
    from terrasieve.device import pick_device
    from terrasieve.embeddings import EmbedSettings, EncoderInput, normaliser_for, write_embeddings
    from terrasieve.models.export import load_encoder
    from terrasieve.probes.rows import default_rows, input_row

    encoder, card = load_encoder(run)
    archive = open_archive(data)
    rows = [input_row(EncoderInput.parse(one), archive.sensors, encoder.channels) for one in inputs or []]
    rows = rows or [default_rows(archive.sensors, encoder.channels)[0]]
    members = list(dict.fromkeys(member for row in rows for member in row.members))
    console.print(
        f"Inputs: {', '.join(map(str, members))}; standardised by the {statistics}'s statistics", highlight=False
    )
    written = write_embeddings(
        out,
        encoder.to(pick_device(device)),
        card,
        archive,
        members,
        normaliser_for(statistics, card, archive, members),
        EmbedSettings(size=size, batch_size=batch_size),
    )
    console.print(f"Embeddings: {written}", highlight=False)


@app.command()
def probe(
    run: Annotated[Path, typer.Argument(help="A run folder, or a folder with encoder.safetensors.")],
    data: Annotated[str, typer.Option(help="A labelled archive.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="Bands to probe, e.g. `s2:B04`; every band or triple by default."),
    ] = None,
    probes: Annotated[
        list[str] | None, typer.Option("--probe", help="`knn`, `logistic` or `mlp`; repeatable. kNN and logistic.")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Resize samples to this many pixels; their own size.")] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the random-initialisation floor, and of splits that are not published.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for probe.json and probe.csv; the run folder.")] = None,
    device: Device = "auto",
) -> None:
    """Probe a frozen encoder on a labelled archive, beside the floors it has to beat.

    **Examples**

    ```
    terrasieve probe runs/first --data EuroSAT_RGB
    terrasieve probe runs/first --data EuroSAT_MS --probe knn --probe mlp --input s2:B05 --input s2:B08
    ```
    """
    from rich.console import Console

    from terrasieve.archive.opening import open_archive
    from terrasieve.device import pick_device
    from terrasieve.embeddings import EmbedSettings, EncoderInput
    from terrasieve.models.export import load_encoder
    from terrasieve.probes.evaluate import evaluate, probes_named
    from terrasieve.probes.table import render, write_csv, write_json

    encoder, card = load_encoder(run)
    rows = evaluate(
        encoder.to(pick_device(device)),
        card,
        open_archive(data),
        inputs=[EncoderInput.parse(one) for one in inputs] if inputs else None,
        probes=probes_named(probes or ["knn", "logistic"]),
        settings=EmbedSettings(size=size),
        seed=seed,
    )
    Console().print(render(rows))
    folder = out or run
    folder.mkdir(parents=True, exist_ok=True)
    write_json(rows, folder / "probe.json")
    write_csv(rows, folder / "probe.csv")
    console.print(f"Written: {folder / 'probe.json'}, {folder / 'probe.csv'}", highlight=False)


@app.command()
def curate(
    vectors: Annotated[
        Path,
        typer.Argument(help="Vectors of any model: GeoParquet with a column `embedding`, or .npy of shape (n, d)."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The selection to write (Parquet).")],
    keep: Annotated[float, typer.Option(help="Share of the samples to keep, or their number where above 1.")] = 0.1,
    curator: Annotated[
        str, typer.Option(help="`balanced` (hierarchical k-means), `random`, `semdedup`, `k-center` or `density`.")
    ] = "balanced",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting of the curator, e.g. `--set diversity=0.5`; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    device: Device = "auto",
) -> None:
    """Choose the samples worth training on from an archive that is already embedded.

    The vectors are read in chunks, so that they need not fit in memory. The selection names samples by id; train on it
    with `terrasieve pretrain --subset`.

    **Examples**

    ```
    terrasieve embed runs/first --data pairs.zarr --input s2:B03 --out green.parquet
    terrasieve curate green.parquet -o selection.parquet --keep 0.2
    terrasieve curate vectors.npy -o far.parquet --keep 5000 --set diversity=1 --set levels=[2000,200]
    ```
    """
    from rich.console import Console

    from terrasieve.config import load_curator
    from terrasieve.curate import curate as run
    from terrasieve.curate import render
    from terrasieve.device import pick_device

    curated = run(vectors, out, load_curator(curator, settings or []), keep, seed, str(pick_device(device)))
    Console().print(render(curated))
    console.print(f"Selection: {out}", highlight=False)


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(envvar="TERRASIEVE_DATA", help="Folder with la_texas_pairs and eurosat_rgb; else simulated."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo in --out.")] = False,
    method: Annotated[Literal["byol", "dino"], typer.Option(help="The small recipe of which method.")] = "byol",
    curate: Curate = None,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Pack, pre-train, embed and probe end to end, in about five minutes on two CPU cores.

    **Examples**

    ```
    terrasieve demo
    terrasieve demo --method dino --curate dynamic
    terrasieve demo --data ~/sentinel-samples --out runs/demo --overwrite
    terrasieve demo --set train.epochs=1
    ```
    """
    from rich.console import Console

    from terrasieve.demo import run_demo

    made = run_demo(
        data,
        out,
        overwrite=overwrite,
        seed=seed,
        device=device,
        method=method,
        curate=curate,
        settings=settings or [],
    )
    Console().print(made)


def _open(
    data: str, sensors: list[str] | None, tile: int, stride: int | None, match: Literal["stem", "geometry"]
) -> Archive:
    from terrasieve.archive.opening import open_archive, scenes_spec_from_options

    if sensors:
        return open_archive(scenes_spec_from_options(Path(data), sensors, tile, stride, match))
    return open_archive(data)
