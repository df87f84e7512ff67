"""The page as a folder that opens without a server, a network or terrasieve."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from terrasieve import __version__
from terrasieve.archive.footprints import centres
from terrasieve.archive.protocol import Archive
from terrasieve.embeddings.similar import rows_in
from terrasieve.errors import ArchiveError, WriteError
from terrasieve.explorer.atlas import ACROSS, Atlas, draw_atlas
from terrasieve.explorer.coasts import land_around
from terrasieve.explorer.columns import COLOURS, columns_of
from terrasieve.explorer.explored import Explored
from terrasieve.explorer.plane import encode, lay_out
from terrasieve.files.writing import write_whole

PAGE = "index.html"
THUMBNAILS = 4096
"""Samples that are shown as pictures, where nobody says how many."""
_SHIPPED = ("deck.min.js", "deck.LICENSE.txt", "NOTICE.md", "explore.css")
_DATA = "data"
_FACTS = f"{_DATA}/facts.js"
"""What every such folder holds, and hardly any other."""
_DIMS = ((200_000, 64), (500_000, 32))
"""Numbers of each vector on the page, by samples at most: a browser holds some hundred megabytes."""
_FEWEST_DIMS = 16


def write_explorer(
    folder: Path,
    subject: Explored,
    archive: Archive | None = None,
    clusters: int = 8,
    thumbnails: int = THUMBNAILS,
    seed: int = 0,
    served: bool = False,
    picture_bytes: int = 0,
    notes: Sequence[str] = (),
) -> Path:
    """Write the page about an embedded archive, with everything that it needs.

    Args:
        folder: Where it goes; an earlier page there is replaced.
        subject: What is explored.
        archive: The archive that was embedded, for pictures of samples; none are shown when None.
        clusters: Clusters to look for, by which samples can be coloured; none below 2.
        thumbnails: Pictures at most, of samples spread evenly.
        seed: Of clusters and coordinates.
        served: Whether the server of :mod:`terrasieve.explorer.server` will write what is exported.
        picture_bytes: Largest picture that this server embeds, for a search by it; where 0, the page offers none.
        notes: What stands beneath the page, too, a line each.

    Returns:
        Path of the page.

    Raises:
        ArchiveError: There is no sample, or the archive does not hold one of them.
        SampleError: A sample that is to be shown cannot be read.
        WriteError: The folder holds something else, or the system refused it.
    """
    check_folder(folder)
    if not len(subject.table):
        raise ArchiveError(f"{subject.name} holds no sample, so there is nothing to explore.")
    atlas = None
    if archive is not None:
        table = subject.table
        atlas = draw_atlas(archive, rows_in(archive, table.ids), table.inputs[0].sensor, thumbnails)
    scripts, lines, is_located = _data(subject, atlas, clusters, seed)
    scripts["service"] = _assigned("service", {"exports": served, "pictureBytes": picture_bytes})
    with write_whole(folder) as partial:
        (partial / _DATA).mkdir(parents=True)
        static = files("terrasieve.explorer") / "static"
        own = ["dots.js", "explore.js", *(["picture.js"] if picture_bytes else [])]
        for name in (*_SHIPPED, *own):
            (partial / name).write_bytes((static / name).read_bytes())
        for name, text in scripts.items():
            (partial / _DATA / f"{name}.js").write_text(text, encoding="ascii")
        if atlas is not None:
            atlas.write(partial / _DATA)
        loaded = ["deck.min.js", *(f"{_DATA}/{name}.js" for name in scripts), *own]
        environment = Environment(
            loader=PackageLoader("terrasieve.explorer", "static"), autoescape=True, undefined=StrictUndefined
        )
        page = environment.get_template("explore.html.j2")
        facts = {"title": f"Explorer: {subject.name}", "located": is_located, "lines": [*lines, *notes]}
        written = page.render(facts, scripts=loaded, pictures=picture_bytes > 0)
        (partial / PAGE).write_text(written, encoding="utf-8")
    return folder / PAGE


def check_folder(folder: Path, overwrite: bool = True) -> None:
    """Refuse a folder that holds anything but an earlier page, or one that may not be replaced.

    Args:
        folder: Where a page is to go.
        overwrite: Whether an earlier page may be replaced.

    Raises:
        WriteError: It may not be written there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / _FACTS).is_file() or not (folder / PAGE).is_file():
        raise WriteError(f"{folder} holds something that is no page of terrasieve explore. Choose another folder.")
    if not overwrite:
        raise WriteError(f"{folder} is already there. Replace it with --overwrite, or choose another name.")


def _data(subject: Explored, atlas: Atlas | None, clusters: int, seed: int) -> tuple[dict[str, str], list[str], bool]:
    """Scripts by name, what the page says beneath, and whether any sample has a place."""
    table = subject.table
    plane = lay_out(table.joined, seed)
    dims = next((dims for most, dims in _DIMS if len(table) <= most), _FEWEST_DIMS)
    vectors = encode(table.joined, dims)
    columns = columns_of(subject, clusters, seed)
    middles = centres(shapely.from_wkb(table.columns["geometry"].to_numpy()))
    located = np.flatnonzero(np.isfinite(middles).all(axis=1)).astype("<i4")
    arrays: dict[str, NDArray[Any]] = {"plane": plane.positions.astype("<f4"), "codes": vectors.codes}
    if len(located):
        arrays |= {"located": located, "places": middles[located].astype("<f4")}
    if atlas is not None:
        arrays["thumbs"] = atlas.places.astype("<i4")
    for position, one in enumerate(columns):
        arrays[f"column{position}"] = one.values.astype("<i4" if one.kind == "category" else "<f4")
    facts = {
        "columns": [one.described(f"column{position}") for position, one in enumerate(columns)],
        "colours": COLOURS,
        "located": len(located) > 0,
        "scales": vectors.scales.tolist(),
        "offsets": vectors.offsets.tolist(),
        "atlas": None if atlas is None else {"across": ACROSS, "page": ACROSS**2},
    }
    scripts = {"facts": _assigned("facts", facts), "ids": _assigned("ids", table.ids.tolist())}
    if len(located):
        scripts["land"] = _assigned("land", land_around(middles[located]))
    scripts |= {name: _assigned(name, base64.b64encode(array.tobytes()).decode()) for name, array in arrays.items()}
    lines = [
        f"{len(table):,} samples; vectors of {', '.join(map(str, table.inputs))}. Plane: {plane.method}.",
        f"Most like this one: cosine of vectors along {vectors.codes.shape[1]} directions in 8 bits, which finds "
        f"{vectors.agreement:.0%} of the 20 nearest by all {table.joined.shape[1]} numbers; terrasieve similar is "
        "exact.",
        *_about(subject, atlas, len(located), clusters),
        f"terrasieve {__version__}; deck.gl 9.4.0 (MIT), land of Natural Earth (public domain).",
    ]
    return scripts, lines, len(located) > 0


def _about(subject: Explored, atlas: Atlas | None, located: int, clusters: int) -> Iterator[str]:
    count = len(subject.table)
    if subject.table.provenance.get("emb:source-data", {}).get("simulated"):
        yield "SIMULATED: no pixel of this archive was measured by a satellite."
    if located < count:
        yield f"{count - located:,} samples have no place" + (" and are not on the map." if located else ": no map.")
    if clusters >= 2:
        yield f"Clusters: k-means of vectors of unit length, k = {clusters}."
    if subject.rounds:
        yield f"Curation: {len(subject.rounds)} rounds of the run."
    if atlas is None:
        yield "No pictures: they need the archive, --data."
    else:
        yield f"Pictures of {np.count_nonzero(atlas.places >= 0):,} samples ({atlas.sensor}), spread evenly."


def _assigned(name: str, value: Any) -> str:
    """A script that leaves a value to the page's own; names from archives are in it as ASCII text of JSON alone."""
    return f"(globalThis.TERRASIEVE ??= {{}}).{name} = {json.dumps(value, allow_nan=False, separators=(',', ':'))};\n"
