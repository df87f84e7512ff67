"""Commands about Sentinel-1 Wave Mode: wv ingest."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from terrasieve.cli.app import MaxBad, Workers, app
from terrasieve.cli.parts import Claim, On, Part, Parts, division
from terrasieve.console import console

wv_app = typer.Typer(rich_markup_mode="markdown", no_args_is_help=True)
app.add_typer(wv_app, name="wv")


@wv_app.callback()
def _wv() -> None:
    """Sentinel-1 Wave Mode, from the product.

    **Examples**

    ```
    terrasieve wv ingest products --out wv.zarr
    ```
    """


@wv_app.command("ingest")
def wv_ingest(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A folder with `S1?_WV_SLC__*.SAFE` products at any depth.")],
    out: Annotated[Path, typer.Option(help="The store to write (a Zarr v3 group).")],
    size: Annotated[int, typer.Option(min=1, help="Rows and columns of a sample, from the vignette's middle.")] = 384,
    spacing: Annotated[float, typer.Option(min=10, help="Metres that a pixel of a sample is long and wide.")] = 50.0,
    noise: Annotated[
        Literal["subtract", "keep"], typer.Option(help="Take the thermal noise out before averaging, or leave it in.")
    ] = "subtract",
    detrend: Annotated[
        Literal["cmod5n", "none"],
        typer.Option(help="Divide by what the sea gives at 10 m/s at the same incidence, or give sigma0 itself."),
    ] = "cmod5n",
    polarisation: Annotated[Literal["vv", "hh"], typer.Option(help="Which vignettes.")] = "vv",
    compress: Annotated[bool, typer.Option("--compress", help="Compress, for storage and remote reading.")] = False,
    max_bad: MaxBad = 0.01,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the store that is there, whole or half, and pack anew.")
    ] = False,
    workers: Workers = None,
    part: Part = None,
    claim: Claim = False,
    parts: Parts = None,
    on: On = None,
) -> None:
    """Calibrate vignettes, average them to 50 m and pack them into one store.

    Unusable vignettes are listed, with the reason, in `<out>.quarantine.csv` and left out. Run the same command again
    to go on after an interruption.

    **Examples**

    ```
    terrasieve wv ingest products --out wv.zarr
    terrasieve wv ingest products/2020 --out sigma0.zarr --detrend none --size 256 --compress
    terrasieve wv ingest products --out wv.zarr --part 3/64
    ```
    """
    from terrasieve.archive.layouts.wave_mode import WaveModeArchive, WaveModeSpec
    from terrasieve.archive.quality.limits import QualityLimits
    from terrasieve.archive.wave_mode.ingest import IngestJob, StagedVignettes, ingest
    from terrasieve.cli.app import resumable, say_not_taken, warn
    from terrasieve.files.outputs import hold_folder
    from terrasieve.processes.parallel import spare_cores

    divided = division(context, part, claim, parts, on)
    with nullcontext() if divided.share else hold_folder(out):
        archive = WaveModeArchive(
            WaveModeSpec(
                root=folder, polarisation=polarisation, size=size, spacing=spacing, noise=noise, detrend=detrend
            )
        )
        readers = spare_cores() if workers is None else workers
        job = IngestJob(archive, out, compress, QualityLimits(), readers)
        if divided.share is not None:
            divided.work_on(job, out)
            return
        with divided.merging(job, out) as planned, resumable():
            report = ingest(
                archive,
                out,
                compress=compress,
                max_bad=max_bad,
                overwrite=overwrite,
                workers=readers,
                staged=None if planned is None else StagedVignettes(planned, archive, compress),
            )
    did = "Already packed: nothing to do." if report.packed.done_before else "Packed:"
    console.print(f"{did} {report.summary()}", highlight=False)
    warn(report.packed.suspicions)
    say_not_taken(archive, by_options=False)
