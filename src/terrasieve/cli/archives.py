"""Commands about archives: index, info, pack, verify, collocate."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from terrasieve.cli.app import (
    Data,
    Harmonise,
    MaxBad,
    MaxNodata,
    Overwrite,
    Workers,
    app,
)
from terrasieve.cli.data_options import takes_archive
from terrasieve.cli.parts import WHOLE_HARMONISED, Claim, On, Part, Parts, division
from terrasieve.console import console

if TYPE_CHECKING:
    from terrasieve.archive.archive_options import ArchiveOptions
    from terrasieve.archive.protocol import Archive


@app.command()
@takes_archive
def index(
    context: typer.Context,
    data: Data,
    options: ArchiveOptions,
    out: Annotated[Path, typer.Option(help="The catalogue to write (GeoParquet).")] = Path("catalogue.parquet"),
    max_bad: MaxBad = 0.01,
    max_nodata: MaxNodata = 0.05,
    harmonise: Harmonise = False,
    stac: Annotated[Path | None, typer.Option(help="Also write the good samples as STAC items (GeoParquet).")] = None,
    overwrite: Overwrite = False,
    workers: Workers = None,
    part: Part = None,
    claim: Claim = False,
    parts: Parts = None,
    on: On = None,
) -> None:
    """Check every sample of an archive and write its catalogue.

    Unusable samples are listed, with the reason, in `<out>.quarantine.csv` and left out. What may spoil a run
    without stopping it is shown, and listed in `<out>.suspicions.json`. Run the same command again to go on after an
    interruption.

    **Examples**

    ```
    terrasieve index scenes --sensor s2=s2-l2a --sensor s1=s1 --tile 128
    terrasieve index EuroSAT_RGB --out eurosat.parquet
    terrasieve index sites --harmonise --stac sites-stac.parquet
    terrasieve index archive --sensor s2=s2-l2a --out archive.parquet --part 3/64
    ```
    """
    from terrasieve.archive.catalogue import index_archive, is_catalogue_of, read_catalogue
    from terrasieve.archive.index_parts import IndexJob
    from terrasieve.archive.layout import ArchiveSpec
    from terrasieve.archive.named.identity import recognition_line
    from terrasieve.archive.opening import open_archive
    from terrasieve.archive.quality.limits import QualityLimits
    from terrasieve.archive.stac.publishing import write_stac_geoparquet
    from terrasieve.cli.app import resumable, say_not_taken, tell
    from terrasieve.files.outputs import hold_files
    from terrasieve.processes.parallel import spare_cores

    divided = division(context, part, claim, parts, on)
    readers = spare_cores() if workers is None else workers
    limits = QualityLimits(max_nodata=max_nodata)
    if harmonise:
        divided.refuse(WHOLE_HARMONISED)
    if divided.share is not None:
        spec = options.spec(data)
        job = IndexJob(open_archive(data) if spec is None else spec, limits, readers)
        divided.work_on(job, out, (".parquet",))
        return
    replaces = overwrite or (stac is None and is_catalogue_of(out, Path(data)))
    with hold_files((out,) if stac is None else (out, stac), (".parquet",), replaces):
        if said := recognition_line(data, options):
            console.print(said, highlight=False, markup=False)
        spec = options.spec(data)
        source = open_archive(data) if spec is None else spec
        if harmonise:
            source = _without_offset(open_archive(source) if isinstance(source, ArchiveSpec) else source, readers)
        job = IndexJob(source, limits, readers)
        with divided.merging(job, out) as planned:
            found, source = (None, source) if planned is None else (job.found(planned), job.opened)
            with resumable():
                report = index_archive(source, out, limits, max_bad=max_bad, workers=readers, found=found)
            console.print(f"Indexed: {report.summary()}", highlight=False)
            if report.placeless:
                lacking = f"{report.placeless:,} of {report.samples:,} samples"
                console.print(f"{lacking} have no place: no outline.", highlight=False)
            if stac is not None:
                items = write_stac_geoparquet(read_catalogue(out).restrict(report.archive), stac)
                console.print(f"STAC: {items.summary()}", highlight=False)
        tell(report.suspicions or (), report.listed, ("--harmonise", "--max-nodata", "--max-days"))
    say_not_taken(report.archive, bool(options.sensors))


@app.command()
@takes_archive
def info(
    data: Data,
    options: ArchiveOptions,
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet (PNG).")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the contact sheet that is there.")] = False,
) -> None:
    """Say what something is: how it is read, sensors, statistics, labels, extent, time, and what to do next.

    Where nothing says of which sensor files are, a guess from their headers is shown, for you to confirm or correct.

    **Examples**

    ```
    terrasieve info scenes
    terrasieve info pictures --sensor rgb8
    terrasieve info packed.zarr --sheet sheet.png
    terrasieve info simulated:7
    ```
    """
    from rich.console import Console

    from terrasieve.archive.named.identity import identify
    from terrasieve.archive.overview import contact_sheet, describe
    from terrasieve.cli.app import say_not_taken
    from terrasieve.files.outputs import hold_file

    shown = Console()
    with nullcontext() if sheet is None else hold_file(sheet, (".png",), overwrite):
        known = identify(data, options)
        archive = known.options.open(data)
        shown.print(Text(known.said, style="yellow" if known.guessed else ""))
        shown.print(describe(archive))
        if sheet is not None:
            contact_sheet(archive, sheet)
            console.print(f"Contact sheet: {sheet}", highlight=False)
    say_not_taken(archive, bool(known.options.sensors))
    # On one line whatever the width of the screen, so that it can be pasted.
    shown.print(Text(f"Next: {_next_command(data, archive, known.options)}"), soft_wrap=True)


@app.command()
@takes_archive
def pack(
    context: typer.Context,
    data: Data,
    out: Annotated[
        str, typer.Option(help="The store to write (a Zarr v3 group): a folder, or an address `s3://BUCKET/NAME`.")
    ],
    options: ArchiveOptions,
    compress: Annotated[bool, typer.Option("--compress", help="Compress, for storage and remote reading.")] = False,
    max_bad: MaxBad = 0.01,
    max_nodata: MaxNodata = 0.05,
    harmonise: Harmonise = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the store that is there, whole or half, and pack anew.")
    ] = False,
    workers: Workers = None,
    part: Part = None,
    claim: Claim = False,
    parts: Parts = None,
    on: On = None,
) -> None:
    """Pack an archive into one store that training reads by band and window.

    Run the same command again to go on after an interruption. Where files or labels have changed since, it says so and
    packs them with `--overwrite`.

    **Examples**

    ```
    terrasieve pack scenes --sensor s2=s2-rgb8 --sensor s1=s1-vh8 --tile 64 --out pairs.zarr
    terrasieve pack catalogue.parquet --out pairs.zarr --compress
    terrasieve pack catalogue.parquet --out s3://bucket/pairs.zarr --compress
    terrasieve pack catalogue.parquet --out pairs.zarr --part 3/64
    terrasieve pack catalogue.parquet --out s3://bucket/pairs.zarr --claim
    ```
    """
    from terrasieve.archive.packed.packing import pack as pack_archive
    from terrasieve.archive.packed.packing_parts import PackJob, StagedParts
    from terrasieve.archive.packed.uploading import pack_to_address
    from terrasieve.archive.quality.limits import QualityLimits
    from terrasieve.cli.app import resumable, say_not_taken, warn
    from terrasieve.files.object_store import is_address, staging_path
    from terrasieve.files.outputs import hold_folder
    from terrasieve.processes.parallel import spare_cores

    divided = division(context, part, claim, parts, on)
    far = is_address(out)
    folder = staging_path(out) if far else Path(out)
    with nullcontext() if divided.share else hold_folder(folder):
        archive = options.open(data)
        readers = spare_cores() if workers is None else workers
        if harmonise:
            divided.refuse(WHOLE_HARMONISED)
            archive = _without_offset(archive, readers)
        limits = QualityLimits(max_nodata=max_nodata)
        job = PackJob(archive, folder, compress, limits, readers)
        if divided.share is not None:
            divided.work_on(job, out)
            return
        asked: Any = {"compress": compress, "max_bad": max_bad, "limits": limits, "overwrite": overwrite}
        asked["workers"] = readers
        with divided.merging(job, out) as planned, resumable():
            asked["staged"] = None if planned is None else StagedParts(planned, archive, compress)
            report = pack_to_address(archive, out, **asked) if far else pack_archive(archive, folder, **asked)
    did = "Already packed: nothing to do." if report.done_before else "Packed:"
    console.print(f"{did} {report.summary()} {report.bytes / 1e6:,.1f} MB", highlight=False)
    warn(report.suspicions, ("--harmonise", "--max-nodata", "--max-days"))
    say_not_taken(archive, bool(options.sensors))


@app.command()
def verify(
    store: Annotated[str, typer.Argument(help="A packed store: its folder, or a URL.", show_default=False)],
) -> None:
    """Read every pixel of a packed store and compare it with what was packed.

    After a copy, or before a long run, this finds chunks that were damaged, changed or exchanged, links to other
    files, and tables of samples that are not those packed.

    **Examples**

    ```
    terrasieve verify pairs.zarr
    ```
    """
    from terrasieve.archive.packed.verifying import verify as verify_store

    console.print(f"Verified: {verify_store(store).summary()}", highlight=False)


@app.command()
@takes_archive
def collocate(
    data: Data,
    targets: Annotated[
        Path,
        typer.Argument(help="CSV, Parquet or NetCDF with `time` (UTC), `latitude`, `longitude` and what was measured."),
    ],
    out: Annotated[Path, typer.Option(help="The catalogue to write (GeoParquet), which is an archive in its turn.")],
    columns: Annotated[str, typer.Option(help="What to take from the targets, e.g. `swh,wind_speed`.")],
    options: ArchiveOptions,
    max_km: Annotated[
        float, typer.Option(min=0, help="Largest great-circle distance in km; the default is that of Monaldo (1988).")
    ] = 50.0,
    max_minutes: Annotated[
        float, typer.Option(min=0, help="Longest time between in minutes; the default is that of Monaldo (1988).")
    ] = 30.0,
    overwrite: Overwrite = False,
) -> None:
    """Join values of altimeters, buoys or a reanalysis to the samples of an archive, by place and time.

    Of the targets within the limits the nearest in space is taken, then the nearest in time, then the first. Each
    column comes with its distance and its delay, as `NAME:km` and `NAME:minutes`; samples without a target stay null.

    **Examples**

    ```
    terrasieve collocate wv.zarr altimeter.csv --columns swh,wind_speed --out targets.parquet
    terrasieve collocate wv.zarr era5.nc --columns swh --max-km 30 --max-minutes 30 --out targets.parquet
    ```
    """
    from terrasieve.archive.collocation.nearest import collocate as join
    from terrasieve.files.outputs import hold_file

    names = [name.strip() for name in columns.split(",") if name.strip()]
    with hold_file(out, (".parquet",), overwrite):
        report = join(options.open(data), targets, names, out, max_km=max_km, max_minutes=max_minutes)
    console.print(f"Collocated: {report.summary()}", highlight=False)


def _next_command(data: str, archive: Archive, options: ArchiveOptions) -> str:
    """What is done next with an archive: it is packed, or trained on where that is done, by a recipe that fits it."""
    from terrasieve.archive.named.identity import free_name, packing_command
    from terrasieve.config import load_config
    from terrasieve.errors import BandError
    from terrasieve.views.band_policy import BandPolicy

    spec = options.spec(data)
    packed = "://" in data if spec is None else spec.layout == "packed"
    if not packed:
        return packing_command(data, archive, options)
    for recipe in ("rs-lejepa-1-small", "lejepa-small", "oceansar-lejepa-small"):
        try:
            BandPolicy(load_config(recipe).views, archive.sensors)
        except BandError:
            continue
        out = f"runs/{free_name(data, '')}"
        return shlex.join(["terrasieve", "pretrain", recipe, "--data", data, "--out", out])
    return "terrasieve recipes"


def _without_offset(archive: Archive, readers: int) -> Archive:
    from terrasieve.archive.derived.harmonised import harmonise

    harmonised = harmonise(archive, readers)
    console.print(harmonised.summary(), highlight=False)
    return harmonised
