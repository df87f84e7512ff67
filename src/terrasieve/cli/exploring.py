"""Commands that look at vectors: similar."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from terrasieve.cli.app import Device, Overwrite, app
from terrasieve.cli.data_options import takes_archive
from terrasieve.console import console

if TYPE_CHECKING:
    from terrasieve.archive.archive_options import ArchiveOptions

Embeddings = Annotated[Path, typer.Argument(help="What `terrasieve embed` wrote (GeoParquet).")]


@app.command()
@takes_archive
def similar(
    embeddings: Embeddings,
    to: Annotated[str, typer.Option(help="Id of a sample, or a file with the bands that the encoder is shown.")],
    options: ArchiveOptions,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="How many to find.")] = 20,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file to write (Parquet); `pretrain --subset` takes it.")
    ] = Path("similar.parquet"),
    data: Annotated[
        str | None, typer.Option(help="The archive that was embedded, for a contact sheet beside --out (PNG).")
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="The run that made the vectors, which embeds the file named by --to.")
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Find the samples that are most alike to one, by the cosine of their vectors.

    Every vector is compared up to a million; beyond that an index of FAISS is searched (extra `search`), which may miss
    a few.

    **Examples**

    ```
    terrasieve similar green.parquet --to 031/960_0 -k 20 --data pairs.zarr
    terrasieve similar green.parquet --to harbour.tif --encoder runs/first --out harbours.parquet
    terrasieve pretrain dino-small --data pairs.zarr --subset similar.parquet --out runs/harbours
    ```
    """
    from rich.console import Console

    from terrasieve.embeddings import read_embeddings
    from terrasieve.embeddings.query import find_query
    from terrasieve.embeddings.similar import draw_similar, similar_table, write_similar
    from terrasieve.outputs import hold_file

    sheet = out.with_suffix(".png")
    with (
        hold_file(out, (".parquet",), overwrite),
        nullcontext() if data is None else hold_file(sheet, (".png",), overwrite),
    ):
        table = read_embeddings(embeddings)
        query = find_query(table, to, encoder, device)
        found = table.nearest(query, k)
        drawn = None if data is None else draw_similar(options.open(data), table, query, found)
        write_similar(out, table, found, to)
        if drawn is not None:
            drawn.save(sheet)
    Console().print(similar_table(found, to))
    console.print(
        f"Neighbours: {out}  "
        + (f"contact sheet: {sheet}" if drawn else "no contact sheet: it needs the archive, --data"),
        highlight=False,
    )
