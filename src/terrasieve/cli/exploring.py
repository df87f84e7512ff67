"""Commands that look at vectors: similar, explore."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terrasieve.cli.app import Device, Overwrite, app
from terrasieve.cli.data_options import takes_archive
from terrasieve.console import console

if TYPE_CHECKING:
    from terrasieve.archive.archive_options import ArchiveOptions
    from terrasieve.embeddings.query import QueryEncoder
    from terrasieve.explorer.explored import Explored

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
    from terrasieve.files.outputs import hold_file

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


@app.command()
@takes_archive
def explore(
    source: Annotated[Path, typer.Argument(help="What `terrasieve embed` wrote, or a run with `embeddings.parquet`.")],
    options: ArchiveOptions,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the page as this folder, which opens without a server.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page to this machine alone, until Ctrl-C; exports Parquet.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --serve: where to listen; 0 takes any.")] = 8000,
    data: Annotated[
        str | None, typer.Option(help="The archive that was embedded, for pictures of its samples.")
    ] = None,
    thumbnails: Annotated[int, typer.Option(min=1, help="Pictures at most, of samples spread evenly.")] = 4096,
    encoder: Annotated[
        Path | None,
        typer.Option(
            help="With --serve: the run that made the vectors, for a search by a picture; a run knows itself."
        ),
    ] = None,
    clusters: Annotated[int, typer.Option(min=0, help="Clusters to colour by; 0 looks for none.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    select: Annotated[
        Path | None, typer.Option(help="No page: a CSV of ids that the page exported, to be written to --to.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="With --select: the selection to write (Parquet), for `pretrain --subset`.")
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Look at an embedded archive in a browser: vectors beside a map, one selection in both, pictures, what is alike.

    **Examples**

    ```
    terrasieve explore green.parquet --data pairs.zarr --out explorer
    terrasieve explore runs/first --data pairs.zarr --serve
    terrasieve explore green.parquet --encoder runs/first --serve
    terrasieve explore green.parquet --select selection.csv --to chosen.parquet
    terrasieve pretrain dino-small --data pairs.zarr --subset chosen.parquet --out runs/chosen
    ```
    """
    import tempfile

    from terrasieve.errors import ConfigError
    from terrasieve.explorer.explored import open_explored
    from terrasieve.explorer.explorer_page import check_folder, write_explorer
    from terrasieve.files.outputs import hold_folder

    if [out is not None, serve, select is not None].count(True) != 1 or (select is None) != (to is None):
        raise ConfigError("Say one of --out FOLDER (write the page), --serve (show it), --select IDS.csv --to FILE.")
    if encoder is not None and not serve:
        raise ConfigError("--encoder embeds pictures that a served page is searched by. Say --serve, or leave it out.")
    if select is not None and to is not None:
        _write_selection(source, select, to, overwrite)
        return

    def write(folder: Path, subject: Explored, **served: Any) -> Path:
        archive = options.open(data) if data else None
        return write_explorer(folder, subject, archive, clusters, thumbnails, seed, **served)

    if out is not None:
        with hold_folder(out):
            check_folder(out, overwrite)
            page = write(out, open_explored(source))
        console.print(f"Explorer: {page}", highlight=False)
        return
    from terrasieve.explorer.server import MOST_BYTES, Explorer

    with tempfile.TemporaryDirectory() as scratch:
        subject = open_explored(source)
        queries, notes = _query_encoder(subject, source, encoder, device)
        taken = MOST_BYTES if queries else 0
        folder = write(Path(scratch) / "page", subject, served=True, picture_bytes=taken, notes=notes).parent
        with Explorer(folder, subject.table, port, queries) as server:
            console.print(f"Explorer: {server.address} (Ctrl-C ends it)", highlight=False)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                console.print("Ended.")


def _query_encoder(
    subject: Explored, source: Path, encoder: Path | None, device: str
) -> tuple[QueryEncoder | None, list[str]]:
    """What embeds pictures to search by, or a line about why nothing does."""
    from terrasieve.embeddings.query import QueryEncoder
    from terrasieve.errors import TerrasieveError

    if encoder is not None:
        return QueryEncoder(subject.table, encoder, device), []
    if not source.is_dir():
        return None, ["No search by a picture: it needs the run that made the vectors, --encoder."]
    try:
        return QueryEncoder(subject.table, source, device), []
    except TerrasieveError as error:  # a run is worth looking at without it
        return None, [f"No search by a picture: {error}"]


def _write_selection(source: Path, ids: Path, to: Path, overwrite: bool) -> None:
    from terrasieve.embeddings.chosen import write_chosen
    from terrasieve.explorer.explored import open_explored, rows_named
    from terrasieve.files.outputs import hold_file

    with hold_file(to, (".parquet",), overwrite):
        table = open_explored(source).table
        rows = rows_named(ids, table)
        write_chosen(to, table, rows, {"chosen_by": "explore"})
    console.print(f"Selection: {to} ({len(rows):,} of {len(table):,} samples)", highlight=False)
