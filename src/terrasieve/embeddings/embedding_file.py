"""The embedding of an archive as a GeoParquet file, streamed and resumable, and as a STAC collection.

The file's metadata key ``emb`` and the collection follow the STAC Embedding extension
(https://github.com/stac-extensions/embedding).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from terrasieve.archive.footprints import kinds_of, with_bbox, with_metadata
from terrasieve.archive.protocol import Archive, source_name
from terrasieve.archive.source_state import source_state
from terrasieve.archive.stac.publishing import collection_of
from terrasieve.console import console, track
from terrasieve.embeddings.embedding_parts import EmbedJob, hilbert_order
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.quantising import QUANTISED, Int8Scales, Quantise, describe_error
from terrasieve.embeddings.stream import EmbedSettings
from terrasieve.embeddings.table import EmbeddingTable
from terrasieve.errors import ArchiveError, ConfigError
from terrasieve.files.local_paths import local_path
from terrasieve.files.writing import write_text, write_whole
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard
from terrasieve.parts.sharing import Planned
from terrasieve.schema import parse_json, read_json
from terrasieve.views.render import Normaliser

SOURCES = "sources"
"""What the plan of unfinished parts calls the state of the archive's files and table."""
ROWS_PER_PART = 8192
"""About how many samples are lost when a run is killed; a part holds whole batches."""


def write_embeddings(
    path: str | Path,
    encoder: Encoder | Sequence[Encoder],
    card: EncoderCard,
    archive: Archive,
    inputs: Sequence[EncoderInput],
    normaliser: Normaliser,
    settings: EmbedSettings | None = None,
    indices: NDArray[np.int64] | None = None,
    rows_per_part: int = ROWS_PER_PART,
    quantise: Quantise | None = None,
) -> Path:
    """Embed samples into a GeoParquet 1.1 file; pixels and vectors in memory do not grow with the archive.

    Rows follow a Hilbert curve, so that the row groups' ``bbox`` statistics are tight; samples without a
    place come last, in the order given. A run that was stopped continues after its last whole part. A file
    that is already there is replaced at the end. Columns: ``id``, ``geometry`` (WKB, longitude and
    latitude), ``time``, ``label`` and ``split`` where known, ``bbox`` (covering), ``embedding`` (fixed-size
    list of float32: the inputs' vectors one after the other).

    Args:
        path: GeoParquet file to write; its unfinished parts lie in ``<path>.parts``.
        encoder: Runs on the device that it is on. One for all inputs, or one for each, whose batch normalisation is
            measured on the archive, as :func:`terrasieve.embeddings.stream.calibrated_encoders` gives them; the file
            says which.
        card: What the encoder was trained with, which goes into the provenance.
        archive: Archive that the samples are read from.
        inputs: What the encoder is shown, each with as many bands as it has channels.
        normaliser: Standardises each band by its statistics before the encoder sees it.
        settings: Size, batch size and precision; the defaults when None.
        indices: Samples to embed; all when None.
        rows_per_part: About how many samples are written at once.
        quantise: ``int8`` stores 8 bits a number and what a step of each is worth; float32 when None.

    Raises:
        ArchiveError: There is no sample to embed.
        BandError: An input does not exist in the archive or does not fit the encoder.
        ConfigError: Parts of another embedding lie beside ``path``.
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
        WriteError: The file or a part cannot be written.
    """
    job = EmbedJob(encoder, card, archive, inputs, normaliser, settings, indices)
    return write_job(path, job, rows_per_part, quantise=quantise)


def write_job(
    path: str | Path,
    job: EmbedJob,
    rows_per_part: int = ROWS_PER_PART,
    planned: Planned | None = None,
    quantise: Quantise | None = None,
) -> Path:
    """As :func:`write_embeddings`, of a job, or of the parts that it was done in.

    Args:
        path: GeoParquet file to write.
        job: What to embed, and how.
        rows_per_part: About how many samples are written at once.
        planned: The parts that hold the vectors; the job is done where None.
        quantise: As for :func:`write_embeddings`.

    Raises:
        PartsError: A part is damaged.
        TerrasieveError: As :func:`write_embeddings`.
    """
    size = job.settings.batch_size
    per_part = max(1, rows_per_part // size)
    plan = {**job.plan, "batches_per_part": per_part}
    parts = Parts.resume(Path(path), {**plan, SOURCES: source_state(job.archive, job.table)})
    # Parts hold whole batches, so what is left begins with a batch, as it would have without the stop.
    done = len(parts.paths()) * per_part * size
    batches = job.batches(done) if planned is None else job.merged(planned, done)
    samples = job.samples
    while group := list(islice(batches, per_part)):
        rows = np.concatenate([rows for rows, _ in group])
        parts.append(samples.take(pa.array(rows)), np.concatenate([vectors for _, vectors in group]))
    parts.merge(job.facts, kinds_of(samples["geometry"]), quantise)
    return parts.target


def write_table(path: str | Path, table: EmbeddingTable) -> Path:
    """Write vectors that are in memory, as :func:`write_embeddings` writes those that it makes.

    Args:
        path: GeoParquet file to write; one that is there is replaced.
        table: The vectors with what is known of each sample.

    Raises:
        WriteError: The file cannot be written.
    """
    samples = table.columns.add_column(0, "id", pa.array(table.ids.tolist(), pa.string()))
    order = hilbert_order(samples, np.arange(len(samples)))
    rows = _rows(samples.take(pa.array(order)), table.vectors[order])
    # In memory vectors are float32, whatever they were read from.
    facts = {name: value for name, value in table.provenance.items() if name != QUANTISED}
    schema = with_metadata(rows.schema, {"emb": facts}, kinds_of(samples["geometry"]))
    with write_whole(Path(path)) as partial:
        pq.write_table(
            rows.cast(schema), partial, row_group_size=ROWS_PER_PART, compression="zstd", use_dictionary=False
        )
    return Path(path)


def _rows(samples: pa.Table, vectors: NDArray[np.float32]) -> pa.Table:
    """Rows of the file, without its metadata, which is written once for all of them."""
    flat = vectors.reshape(len(vectors), -1)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
    return with_bbox(samples).append_column("embedding", embedding).replace_schema_metadata(None)


def _flat(column: pa.ChunkedArray) -> NDArray[np.float32]:
    values: NDArray[np.float32] = column.combine_chunks().flatten().to_numpy()
    return values.reshape(len(column), -1)


# ----------------------------------------------------------------------- parts


@dataclass(frozen=True)
class Parts:
    """Parts of an unfinished file: ``<file>.parts/part-00000.parquet`` and so on, beside ``provenance.json``.

    Attributes:
        target: The file that the parts will become.
    """

    target: Path

    @classmethod
    def resume(cls, target: Path, plan: Mapping[str, Any]) -> Parts:
        """The parts of ``target``, begun now or taken up again; begun anew where files or labels have changed since.

        Args:
            target: The file that the parts will become.
            plan: JSON-able values that determine every part, by name.

        Raises:
            ConfigError: The parts that are there were made by another plan.
            WriteError: The folder of the parts cannot be written to.
        """
        parts = cls(target)
        written, text = parts.folder / "provenance.json", json.dumps(plan, indent=2, sort_keys=True)
        if not written.exists():
            # A run killed while it removed the parts may have left some, and nothing says any more of what they are.
            shutil.rmtree(parts.folder, ignore_errors=True)
            write_text(written, text)
            return parts
        # Both from JSON, which makes lists of tuples.
        old, new = _plan(written), parse_json(text)
        # Parts of an earlier version do not say what they were read from.
        old.setdefault(SOURCES, new.get(SOURCES))
        changed = sorted(key for key in {**old, **new} if old.get(key) != new.get(key))
        if changed == [SOURCES]:
            console.print(f"Files or labels have changed since {target} was begun: all is embedded anew.")
            shutil.rmtree(parts.folder)
            write_text(written, text)
            return parts
        if changed:
            raise ConfigError(
                f"{parts.folder} holds parts of another embedding; it differs in {', '.join(changed)}. "
                "Repeat the earlier command to finish it, or delete the folder to begin anew."
            )
        # Parts beyond a gap would be counted as soon as the gap is closed, and their rows come twice.
        for stray in set(parts.folder.glob("part-*.parquet")).difference(parts.paths()):
            stray.unlink()
        return parts

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return self.target.with_name(self.target.name + ".parts")

    def paths(self) -> list[Path]:
        """The whole parts, in order, up to the first that is missing."""
        paths: list[Path] = []
        while (path := self._path(len(paths))).exists():
            paths.append(path)
        return paths

    def append(self, samples: pa.Table, vectors: NDArray[np.float32]) -> None:
        """Write the next part, whole or not at all.

        Args:
            samples: Columns of n samples, ``geometry`` among them.
            vectors: Their vectors, shape ``(n, inputs, features)``.

        Raises:
            WriteError: The part cannot be written.
        """
        path, rows = self._path(len(self.paths())), _rows(samples, vectors)
        with write_whole(path) as partial:
            # Vectors hardly repeat: a dictionary of their values would be as long as they are.
            pq.write_table(rows, partial, compression="zstd", use_dictionary=False)

    def merge(self, facts: Mapping[str, Any], kinds: Sequence[str], quantise: Quantise | None = None) -> None:
        """Make the parts one file, one part in memory at a time, and remove them.

        Args:
            facts: What made the vectors; their length is added, and the scales where they are quantised.
            kinds: Types of geometry in the file.
            quantise: As for :func:`write_embeddings`.

        Raises:
            WriteError: The file cannot be written; the parts stay.
        """
        schema = pq.read_schema(local_path(self.paths()[0]))
        place, dimensions = schema.get_field_index("embedding"), schema.field("embedding").type.list_size
        described = {**facts, "emb:dimensions": dimensions}
        scales = Int8Scales.measured(self._vectors()) if quantise else None
        if scales is not None:
            error = scales.error(self._vectors())
            console.print(describe_error(error), highlight=False)
            described[QUANTISED] = scales.facts(error)
            schema = schema.set(place, schema.field(place).with_type(pa.list_(pa.int8(), dimensions)))
        schema = with_metadata(schema, {"emb": described}, kinds)
        with (
            write_whole(self.target) as partial,
            pq.ParquetWriter(partial, schema, compression="zstd", use_dictionary=False) as writer,
        ):
            for path in track(self.paths(), "merge parts", total=len(self.paths())):
                rows = pq.read_table(local_path(path))
                if scales is not None:
                    codes = pa.array(scales.encode(_flat(rows["embedding"])).ravel())
                    rows = rows.set_column(
                        place, schema.field(place), pa.FixedSizeListArray.from_arrays(codes, dimensions)
                    )
                writer.write_table(rows.cast(schema))
        shutil.rmtree(self.folder)

    def _vectors(self) -> Iterator[NDArray[np.float32]]:
        """The vectors of each part, ``(n, features)``."""
        for path in self.paths():
            yield _flat(pq.read_table(local_path(path), columns=["embedding"])["embedding"])

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"


# ------------------------------------------------------------------ collection

SCHEMA = "https://stac-extensions.github.io/embedding/v1.0.0/schema.json"
ASSET = "embeddings"
"""Name of the file among the collection's assets."""


def embedding_collection(path: Path, licence: str = "other") -> dict[str, Any]:
    """The collection that describes an embedding file.

    The extension requires ``emb:type``, ``emb:dimensions``, ``data_type``, ``extent``, ``license``, and links
    ``emb:model`` and ``emb:source-data``.

    Args:
        path: The GeoParquet file, as :func:`terrasieve.embeddings.write_embeddings` writes it.
        licence: An SPDX identifier of the vectors, or ``other``.

    Raises:
        ArchiveError: The file does not exist, is damaged or holds no embeddings.
    """
    try:
        facts = parse_json((pq.read_schema(local_path(path)).metadata or {})[b"emb"])
        table = pq.read_table(local_path(path), columns=["geometry", "time"])
        vectors = pq.read_schema(local_path(path)).field("embedding").type
    except (OSError, KeyError, ValueError) as error:
        raise ArchiveError(f"{path} holds no embeddings: {error!r}. Write it with `terrasieve embed`.") from error
    model, source = facts["emb:model"], facts["emb:source-data"]
    described = collection_of(table, path.stem, licence)
    return {
        **described,
        "stac_extensions": [SCHEMA],
        "description": f"{len(table)} embeddings of {source_name(source)}",
        "emb:type": facts["emb:type"],
        "emb:dimensions": facts["emb:dimensions"],
        "data_type": {"float": "float32", "halffloat": "float16", "double": "float64", "int8": "int8"}[
            str(vectors.value_type)
        ],
        "links": [
            # The extension wants links, and neither a model nor an archive need have an address: names stand for them.
            {
                "rel": "emb:model",
                "href": f"urn:sha256:{model['weights_sha256']}",
                "title": str(model["recipe"]),
            },
            {
                "rel": "emb:source-data",
                "href": f"urn:terrasieve:{source['fingerprint']}",
                "title": source_name(source),
            },
        ],
        "assets": {
            ASSET: {"href": f"./{path.name}", "type": "application/vnd.apache.parquet", "roles": ["data"]},
        },
    }


def write_collection(path: Path, licence: str = "other") -> Path:
    """Write the collection of an embedding file beside it, as ``<name>.collection.json``.

    Args:
        path: The GeoParquet file, as :func:`terrasieve.embeddings.write_embeddings` writes it.
        licence: An SPDX identifier of the vectors, or ``other``.

    Returns:
        The path of the collection.

    Raises:
        ArchiveError: The file does not exist, is damaged or holds no embeddings.
        WriteError: The collection cannot be written.
    """
    target = path.with_name(f"{path.name}.collection.json")
    return write_text(target, json.dumps(embedding_collection(path, licence), indent=2))


def _plan(path: Path) -> dict[str, Any]:
    """What the parts that are there say of themselves."""
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is damaged: {error}. Delete the folder to begin anew.") from error
    return found if isinstance(found, dict) else {}
