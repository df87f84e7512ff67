"""Commands that measure: embed, probe, segment, report, card."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from terrasieve.cli.app import (
    Cache,
    CacheSize,
    Device,
    Overwrite,
    ProbedInputs,
    RunPath,
    Size,
    app,
)
from terrasieve.cli.data_options import takes_archive
from terrasieve.cli.parts import Claim, On, Part, Parts, division
from terrasieve.console import console

if TYPE_CHECKING:
    from terrasieve.archive.archive_options import ArchiveOptions
    from terrasieve.models.backbone import Encoder


@app.command()
@takes_archive
def embed(
    context: typer.Context,
    run: RunPath,
    data: Annotated[str, typer.Option(help="The archive to embed.")],
    out: Annotated[
        str,
        typer.Option(
            help="The file to write (GeoParquet), or its address `s3://BUCKET/NAME`; with --dense a `.zarr` or `.tif`."
        ),
    ],
    options: ArchiveOptions,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", help="Bands to show the encoder, e.g. `s2:B04`; repeat to join several. The first that fits."
        ),
    ] = None,
    statistics: Annotated[
        Literal["encoder", "archive"],
        typer.Option(
            help="Standardise pixels, and normalise in the network, as in training or by the archive's own statistics "
            "(other stretch or unit)."
        ),
    ] = "encoder",
    size: Size = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Samples, or tiles of a dense map, per forward pass; 256, of a map 8."),
    ] = None,
    dense: Annotated[
        bool,
        typer.Option(
            "--dense",
            help="Embed every place of whole scenes: a vector every --stride pixels (8), from overlapping tiles of "
            "--tile, into a `.zarr` or, of one scene, a `.tif` (COG).",
        ),
    ] = False,
    quantise: Annotated[
        Literal["int8"] | None,
        typer.Option(help="Store vectors in 8 bits a number, with a scale for each dimension; float32."),
    ] = None,
    picture: Annotated[
        bool,
        typer.Option("--picture", help="With --dense: the three main components as colours instead, as a `.tif`."),
    ] = False,
    cache: Cache = None,
    cache_size: CacheSize = "20GB",
    overwrite: Overwrite = False,
    device: Device = "auto",
    part: Part = None,
    claim: Claim = False,
    parts: Parts = None,
    on: On = None,
) -> None:
    """Embed an archive: one vector a sample, with ids, geometry, time and provenance.

    Memory does not grow with the archive; run the same command again to go on after an interruption.

    **Examples**

    ```
    terrasieve embed runs/first --data pairs.zarr --input s2:B03 --out green.parquet
    terrasieve embed runs/first --data EuroSAT_RGB --input s2:rgb --statistics archive --out rgb.parquet
    terrasieve embed runs/first --data s3://bucket/pairs.zarr --input s2:B03 --out s3://bucket/green.parquet
    terrasieve embed runs/first --data pairs.zarr --input s2:B03 --out green.parquet --part 3/64
    terrasieve embed runs/first --data scene.SAFE --input s2:rgb --out map.zarr --dense --stride 8 --quantise int8
    terrasieve embed runs/first --data scene.SAFE --input s2:rgb --out map.tif --dense --stride 16 --picture
    ```
    """
    import numpy as np

    from terrasieve.cli.app import cache_in, resumable
    from terrasieve.cli.dense_maps import MapRequest
    from terrasieve.device import pick_device
    from terrasieve.embeddings import EmbedSettings, normaliser_for, write_embeddings
    from terrasieve.embeddings.embedding_file import write_collection, write_job
    from terrasieve.embeddings.embedding_parts import EmbedJob
    from terrasieve.embeddings.stream import calibrated_encoders
    from terrasieve.errors import ConfigError
    from terrasieve.files.delivery import hold_output
    from terrasieve.models.export import load_encoder
    from terrasieve.probes.results import members_named

    divided = division(context, part, claim, parts, on)
    if picture and not dense:
        raise ConfigError("--picture is of a dense map: add --dense, or leave it out.")
    if dense:
        if divided.share is not None or divided.merges:
            raise ConfigError("A dense map is made by one process: leave --part, --claim, --parts and --on out.")
        if size is not None or cache is not None:
            raise ConfigError("--size and --cache are not for whole scenes: leave them out.")
        MapRequest(
            run, data, out, options, tuple(inputs or ()), statistics, quantise, picture, batch_size, overwrite, device
        ).write()
        return
    with ExitStack() as held:
        if divided.share is None:
            made = held.enter_context(hold_output(out, (".parquet",), overwrite))
        encoder, card = load_encoder(run)
        archive = options.open(data, cache_in(cache, cache_size))
        members = members_named(inputs or (), archive.sensors, encoder.channels)
        console.print(
            f"Inputs: {', '.join(map(str, members))}; standardised by the {statistics}'s statistics", highlight=False
        )
        encoder = encoder.to(pick_device(device))
        settings = EmbedSettings(size=size, batch_size=batch_size or 256)
        if divided.merges:
            # That of the workers' devices, which may not be this machine's.
            precision = divided.planned(out).facts.get("precision", "auto")
            settings = settings.model_copy(update={"precision": precision})
        if statistics == "archive" and archive.statistics is None:
            divided.refuse("--statistics archive reads the whole archive first: pack it, which keeps its statistics.")
        normaliser = normaliser_for(statistics, card, archive, members)
        shown = (archive, members, normaliser, settings)
        encoders: Encoder | tuple[Encoder, ...] = encoder
        if statistics == "archive":
            # Merging embeds nothing: only that there is one for each input matters then.
            everything = np.arange(0 if divided.merges else len(archive))
            encoders = calibrated_encoders(encoder, *shown, everything, 0)
        job = EmbedJob(encoders, card, *shown)
        if divided.share is not None:
            divided.work_on(job, out, (".parquet",))
            return
        with divided.merging(job, out) as planned:
            with resumable():
                written = (
                    write_embeddings(made, encoders, card, *shown, quantise=quantise)
                    if planned is None
                    else write_job(made, job, planned=planned, quantise=quantise)
                )
            beside = write_collection(written).name
            # In its place before the parts that it is made of are removed.
            held.close()
    console.print(f"Embeddings: {out}  STAC: {out.removesuffix(made.name)}{beside}", highlight=False)


@app.command()
@takes_archive
def probe(
    run: RunPath,
    data: Annotated[str, typer.Option(help="A labelled archive.")],
    options: ArchiveOptions,
    inputs: ProbedInputs = None,
    probes: Annotated[
        list[str] | None,
        typer.Option("--probe", help="`knn`, `logistic`, `mlp` or, for numbers, `ridge`; repeatable. kNN and linear."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            help="Column of the archive's table to predict: text is a class, a list of texts several labels, a "
            "floating-point number is regressed; repeatable. `label`.",
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option("--baseline", help="An encoder that others trained, e.g. `imagenet:resnet50:FILE`; repeatable."),
    ] = None,
    train_share: Annotated[
        list[float] | None,
        typer.Option(help="Share of the train split to fit on, for a curve of few labels, e.g. 0.01; repeatable."),
    ] = None,
    fine_tune: Annotated[
        int, typer.Option(min=0, help="Also train a copy of the encoder on the labels, for this many epochs; 0: not.")
    ] = 0,
    split_column: Annotated[str, typer.Option(help="Column with the published split, e.g. `split_spatial`.")] = "split",
    group: Annotated[
        str | None,
        typer.Option(help="Column whose equal values stay together, e.g. a site; goes before the published split."),
    ] = None,
    block_km: Annotated[
        float | None, typer.Option(min=0.001, help="Likewise, squares of ground of so many km stay together.")
    ] = None,
    size: Size = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the random-initialisation floor, and of splits that are not published.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the results and the report; the run folder.")] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Probe a frozen encoder on a labelled archive, beside the floors it has to beat, and write a report.

    **Examples**

    ```
    terrasieve probe runs/first --data EuroSAT_RGB
    terrasieve probe runs/first --data EuroSAT_MS --probe knn --probe mlp --input s2:B05 --input s2:B08
    terrasieve probe runs/first --data EuroSAT_MS --train-share 0.01 --train-share 0.1 --train-share 1
    terrasieve probe runs/first --data EuroSAT_RGB --baseline imagenet:resnet50 --fine-tune 10
    ```
    """
    from rich.console import Console

    from terrasieve.archive.quality.audit import suspicions_of
    from terrasieve.cli.app import warn
    from terrasieve.device import pick_device
    from terrasieve.embeddings import EmbedSettings, EncoderInput
    from terrasieve.files.outputs import hold_file
    from terrasieve.models.export import load_encoder
    from terrasieve.probes.finetune import EndToEndSettings
    from terrasieve.probes.row_tables import score_tables
    from terrasieve.probing import ProbePlan, probe_run
    from terrasieve.reporting.page import write_report
    from terrasieve.runs import RunFolder

    folder = out or run
    with hold_file(RunFolder(folder).probe, (".json",), overwrite or out is None):
        encoder, card = load_encoder(run)
        plan = ProbePlan(
            inputs=tuple(EncoderInput.parse(one) for one in inputs or ()),
            probes=tuple(probes or ()),
            targets=tuple(target or ("label",)),
            train_shares=tuple(train_share or (1.0,)),
            baselines=tuple(baseline or ()),
            fine_tune=EndToEndSettings(epochs=fine_tune) if fine_tune else None,
            settings=EmbedSettings(size=size),
            split_column=split_column,
            group=group,
            block_km=block_km,
            seed=seed,
        )
        archive = options.open(data)
        warn(suspicions_of(archive), ("--group", "--block-km"))
        rows = probe_run(encoder.to(pick_device(device)), card, archive, folder, plan)
        Console().print(*score_tables(rows))
        report = write_report([folder], RunFolder(folder).report)
        console.print(f"Written: {folder / 'probe.json'}, {folder / 'probe.csv'}, {report}", highlight=False)


@app.command()
@takes_archive
def segment(
    run: RunPath,
    data: Annotated[str, typer.Option(help="An archive, or a folder of scenes (with --sensor).")],
    labels: Annotated[str, typer.Option(help="The sensor of kind `map` that holds a class for each pixel.")],
    options: ArchiveOptions,
    inputs: ProbedInputs = None,
    probes: Annotated[
        list[str] | None,
        typer.Option("--probe", help="`patch` (linear on dense features) or `deeplab` (DeepLabV3 head); repeatable."),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Column whose equal values are held out together; `asset` is the file. The published split."),
    ] = None,
    ignore: Annotated[list[int] | None, typer.Option(help="A value of the map that does not count.")] = None,
    size: Size = None,
    seed: Annotated[int, typer.Option(help="Of the untrained network and of everything drawn.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the results and the report; RUN/segment.")] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Probe a frozen encoder on a map of classes, with whole sites held out, beside the floors it has to beat.

    **Examples**

    ```
    terrasieve segment runs/first --data simulated:1:200 --labels land_cover --input s2:rgb
    terrasieve segment runs/first --data sites --sensor s2=s2-l2a:S2L2A --sensor lulc=land-cover:LULC --labels lulc \
        --group asset --tile 112 --probe patch --probe deeplab
    ```
    """
    from rich.console import Console

    from terrasieve.device import pick_device
    from terrasieve.embeddings import EmbedSettings, EncoderInput
    from terrasieve.files.outputs import hold_file
    from terrasieve.models.export import load_encoder
    from terrasieve.probes.row_tables import score_tables, write_csv, write_json
    from terrasieve.probes.segmentation.segment import segment as run_segmentation
    from terrasieve.probes.segmentation.segment import segmentation_probes_named
    from terrasieve.reporting.page import write_report
    from terrasieve.runs import RunFolder

    folder = out or RunFolder(run).segmentation.path
    with hold_file(RunFolder(folder).probe, (".json",), overwrite or out is None):
        encoder, card = load_encoder(run)
        rows = run_segmentation(
            encoder.to(pick_device(device)),
            card,
            options.open(data),
            labels,
            [EncoderInput.parse(one) for one in inputs] if inputs else None,
            segmentation_probes_named(probes or (), seed),
            group,
            ignore or (),
            EmbedSettings(size=size),
            seed,
        )
        Console().print(*score_tables(rows))
        write_json(rows, RunFolder(folder).probe)
        write_csv(rows, RunFolder(folder).probe_table)
        page = write_report([folder], RunFolder(folder).report)
        console.print(f"Written: {folder / 'probe.json'}, {folder / 'probe.csv'}, {page}", highlight=False)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several are set side by side.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; report.html in the first folder.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write one self-contained page about one run or several: scores, curves, curation, what the model looks at.

    The page holds whatever the folders hold, and needs no network.

    **Examples**

    ```
    terrasieve report runs/first
    terrasieve report runs/first runs/second --out comparison.html
    ```
    """
    from terrasieve.files.outputs import hold_file
    from terrasieve.reporting.page import write_report
    from terrasieve.runs import RunFolder

    page = out or RunFolder(runs[0]).report
    with hold_file(page, (".html", ".htm"), overwrite or out is None):
        write_report(runs, page)
    console.print(f"Report: {page}", highlight=False)


@app.command()
def card(
    run: Annotated[Path, typer.Argument(help="A run folder with an encoder.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file; README.md beside the encoder.")] = None,
    license: Annotated[
        str, typer.Option(help="Identifier of the licence that you give the weights, e.g. `apache-2.0`.")
    ] = "other",
    overwrite: Overwrite = False,
) -> None:
    """Write a model card (a README for Hugging Face) with data, bands, units, protocol and results.

    **Examples**

    ```
    terrasieve card runs/first --license apache-2.0
    ```
    """
    from terrasieve.files.outputs import hold_file
    from terrasieve.reporting.card import write_card

    with nullcontext() if out is None else hold_file(out, (".md",), overwrite):
        console.print(f"Model card: {write_card(run, out, license)}", highlight=False)
