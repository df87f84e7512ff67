"""Commands that train and choose: pretrain, recipes, curate, demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from terrasieve.cli.app import Cache, CacheSize, Curate, Device, Overwrite, Settings, app
from terrasieve.cli.data_options import takes_archive
from terrasieve.cli.parts import Claim, On, Part, Parts, division
from terrasieve.console import console
from terrasieve.errors import ConfigError

if TYPE_CHECKING:
    from terrasieve.archive.archive_options import ArchiveOptions

recipes_app = typer.Typer(rich_markup_mode="markdown")
app.add_typer(recipes_app, name="recipes")


@app.command()
@takes_archive
def pretrain(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see `terrasieve recipes`) or a YAML file.")],
    data: Annotated[str, typer.Option(help="The archive to learn from: packed store, catalogue, folder, ...")],
    out: Annotated[Path, typer.Option(help="The run folder.")],
    options: ArchiveOptions,
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
    cache: Cache = None,
    cache_size: CacheSize = "20GB",
    device: Device = "auto",
    devices: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of devices of this machine; more than one trains data-parallel. By default one, or as many as "
            "torchrun, srun or mpirun started processes.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Pre-train an encoder on an unlabelled archive.

    With `--curate dynamic`, the archive is sieved while the model trains: after a warm-up, and again every few passes,
    the model embeds the archive, and a fresh, balanced pool is drawn from it (`curation:` in the configuration).
    Each round is recorded in `curation/` of the run folder.

    On several machines, each process is started by `torchrun`, `srun` or `mpirun`. SIGTERM stops a run after a
    checkpoint, with status 1; SIGUSR1 does with status 75, for a batch system to queue it again.

    With `--set model.init=...`, training starts from pretrained weights: a run folder, a file, or what `--baseline` of
    `terrasieve probe` takes.

    **Examples**

    ```
    terrasieve pretrain rs-byol-1 --data pairs.zarr --out runs/first
    terrasieve pretrain rs-byol-1-small --data pairs.zarr --out runs/small --set train.epochs=10 --probe-data EuroSAT
    terrasieve pretrain rs-byol-1-small --data pairs.zarr --out runs/small --set train.epochs=10 --resume
    terrasieve pretrain dino-small --data pairs.zarr --out runs/dino --curate dynamic --set curation.keep=0.2
    terrasieve pretrain dino-small --data pairs.zarr --out runs/static --subset selection.parquet
    terrasieve pretrain dino-small --data coast.zarr --out runs/coast --set model.init=runs/dino
    terrasieve pretrain dino-small --data pairs.zarr --out runs/warm --set model.init=imagenet:resnet18
    srun terrasieve pretrain oceansar-1-resnet50 --data wave.zarr --out runs/ocean --resume
    terrasieve pretrain dino-small --data s3://bucket/pairs.zarr --cache /scratch/chunks --out runs/far
    torchrun --nnodes 2 --nproc-per-node 4 --no-python terrasieve pretrain dino-small --data pairs.zarr --out runs/two
    ```
    """
    from terrasieve.archive.opening import open_archive
    from terrasieve.archive.selection import read_selection
    from terrasieve.cli.app import cache_in
    from terrasieve.config import load_config
    from terrasieve.pretraining import online_probe
    from terrasieve.pretraining import pretrain as run
    from terrasieve.runs import RunFolder
    from terrasieve.training.loop import make_fabric

    config = load_config(recipe, settings or [], curate)
    kept = cache_in(cache, cache_size)
    archive = options.open(data, kept)
    chosen = read_selection(subset, archive) if subset else None
    evaluate = online_probe(config, open_archive(probe_data), probe_input) if probe_data else None
    fabric = make_fabric(config.train, device, devices)
    fabric.launch()
    result = run(
        config,
        archive,
        out,
        fabric,
        resume=resume,
        evaluate=evaluate,
        evaluate_counterpart=evaluate,
        subset=chosen,
    )
    if fabric.is_global_zero:
        folder = RunFolder(out)
        console.print(f"Done after {result.steps} steps. Encoder: {folder.encoder}  log: {folder.log}", highlight=False)


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

    from terrasieve.config import load_config, recipe_names
    from terrasieve.tables import Table, row_of

    configs = [load_config(name) for name in recipe_names()]
    rows = (
        row_of(one.name, one.description, one.model.name, f"{one.train.epochs:g}", str(one.train.batch_size))
        for one in configs
    )
    columns = ("recipe", "what it is", "backbone", "epochs", "batch")
    Console().print(Table("", columns, tuple(rows), align="lllrr"))


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


@app.command()
def curate(
    context: typer.Context,
    vectors: Annotated[
        Path,
        typer.Argument(help="Vectors of any model: GeoParquet with a column `embedding`, or .npy of shape (n, d)."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The selection to write (Parquet).")],
    keep: Annotated[float, typer.Option(help="Share of the samples to keep, or, above 1, how many.")] = 0.1,
    curator: Annotated[
        str,
        typer.Option(
            help="`balanced` (hierarchical k-means), `deduplicated` (the same without copies), `random`, `semdedup`, "
            "`k-center` or `density`."
        ),
    ] = "balanced",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting of the curator, e.g. `--set diversity=0.5`; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    overwrite: Overwrite = False,
    device: Device = "auto",
    part: Part = None,
    claim: Claim = False,
    parts: Parts = None,
    on: On = None,
) -> None:
    """Choose the samples worth training on from an archive that is already embedded.

    The vectors are read in chunks, so that they need not fit in memory. The selection names samples by id; train on it
    with `terrasieve pretrain --subset`. In parts, the first worker grows the clusters while the others wait, and all
    assign samples to them.

    **Examples**

    ```
    terrasieve embed runs/first --data pairs.zarr --input s2:B03 --out green.parquet
    terrasieve curate green.parquet -o selection.parquet --keep 0.2
    terrasieve curate vectors.npy -o far.parquet --keep 5000 --set diversity=1 --set levels=[2000,200]
    terrasieve curate green.parquet -o selection.parquet --keep 0.2 --claim
    ```
    """
    from rich.console import Console

    from terrasieve.config import load_curator
    from terrasieve.curating import CurateJob, result_table
    from terrasieve.curating import curate as run
    from terrasieve.device import pick_device
    from terrasieve.files.outputs import hold_file

    divided = division(context, part, claim, parts, on)
    asked = load_curator(curator, settings or []), keep, seed, str(pick_device(device))
    job = CurateJob(vectors, *asked)
    if divided.share is not None:
        divided.work_on(job, out, (".parquet",))
        return
    with hold_file(out, (".parquet",), overwrite), divided.merging(job, out) as planned:
        result = run(vectors, out, *asked, planned)
    Console().print(result_table(result))
    console.print(f"Selection: {out}", highlight=False)


@app.command()
def demo(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Option(envvar="TERRASIEVE_DATA", help="Folder with la_texas_pairs and eurosat_rgb; else simulated."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier demo in --out.")] = False,
    method: Annotated[
        Literal["lejepa", "byol", "dino"], typer.Option(help="The small recipe of which method.")
    ] = "lejepa",
    ocean: Annotated[
        bool,
        typer.Option("--ocean", help="The simulated ocean instead: LeJEPA, curated, probed for class, waves and wind."),
    ] = False,
    curate: Curate = None,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Pack, pre-train, embed and probe end to end, in about five minutes on two CPU cores.

    **Examples**

    ```
    terrasieve demo
    terrasieve demo --method byol
    terrasieve demo --method dino --curate dynamic
    terrasieve demo --ocean --out runs/ocean
    terrasieve demo --data ~/sentinel-samples --out runs/demo --overwrite
    terrasieve demo --set train.steps=100
    ```
    """
    from rich.console import Console

    from terrasieve.demo.end_to_end import run_demo, run_ocean_demo
    from terrasieve.files.outputs import hold_folder

    if ocean:
        for name in ("data", "method"):
            # TERRASIEVE_DATA may be set for other demos.
            if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE":
                raise ConfigError(f"--ocean brings data and method of its own; leave --{name} out.")
        with hold_folder(out):
            made = run_ocean_demo(
                out, overwrite=overwrite, seed=seed, device=device, curate=curate or "dynamic", settings=settings or []
            )
        Console().print(made)
        return
    with hold_folder(out):
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
