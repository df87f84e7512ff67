"""The command that joins measurements to samples: collocate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from terrasieve.cli.app import app
from terrasieve.cli.options import Data
from terrasieve.console import console


@app.command()
def collocate(
    data: Data,
    targets: Annotated[
        Path,
        typer.Argument(help="CSV, Parquet or NetCDF with `time` (UTC), `latitude`, `longitude` and what was measured."),
    ],
    out: Annotated[Path, typer.Option(help="The catalogue to write (GeoParquet), which is an archive in its turn.")],
    columns: Annotated[str, typer.Option(help="What to take from the targets, e.g. `swh,wind_speed`.")],
    max_km: Annotated[
        float, typer.Option(min=0, help="Largest great-circle distance in km; the default is that of Monaldo (1988).")
    ] = 50.0,
    max_minutes: Annotated[
        float, typer.Option(min=0, help="Longest time between in minutes; the default is that of Monaldo (1988).")
    ] = 30.0,
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
    from terrasieve.archive.opening import open_archive

    names = [name.strip() for name in columns.split(",") if name.strip()]
    report = join(open_archive(data), targets, names, out, max_km=max_km, max_minutes=max_minutes)
    console.print(f"Collocated: {report.summary()}", highlight=False)
