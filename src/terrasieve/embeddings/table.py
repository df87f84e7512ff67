"""The embedding of an archive in memory, and its provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import ArrayLike, NDArray

import terrasieve
from terrasieve.archive.protocol import Archive
from terrasieve.baselines.baseline import Repeated
from terrasieve.curation.kmeans import KMeans
from terrasieve.embeddings.faiss_index import EXACT_ROWS, FaissIndex, is_installed
from terrasieve.embeddings.inputs import EncoderInput, join, resolve_inputs
from terrasieve.embeddings.neighbours import nearest_neighbours
from terrasieve.embeddings.quantising import QUANTISED, Int8Scales
from terrasieve.embeddings.stream import EmbedSettings, device_of, embed_vectors
from terrasieve.errors import ArchiveError, ConfigError, nearest
from terrasieve.files.local_paths import local_path
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard
from terrasieve.pictures import Picture
from terrasieve.schema import Spec, parse_json
from terrasieve.views.render import Normaliser

if TYPE_CHECKING:
    import folium

COLUMNS = ("geometry", "time", "label", "split")
"""What is carried over from the archive's table, beside the id."""


@dataclass(frozen=True, repr=False)
class EmbeddingTable:
    """Vectors of samples with what is known of each.

    Attributes:
        ids: Name of each sample, shape ``(n,)``.
        vectors: Float32, shape ``(n, inputs, features)``.
        inputs: What each group of vectors was made from.
        columns: ``geometry`` (WKB polygon in longitude and latitude), ``time``, and ``label`` and ``split``
            where the archive has any; n rows.
        provenance: The file metadata ``emb``; see :func:`provenance`.
    """

    ids: NDArray[np.str_]
    vectors: NDArray[np.float32]
    inputs: tuple[EncoderInput, ...]
    columns: pa.Table
    provenance: Mapping[str, Any]

    @cached_property
    def joined(self) -> NDArray[np.float32]:
        """One vector a sample, ``(n, features)``: those of several inputs are scaled to unit length and joined."""
        return join(self.vectors)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        shown = " + ".join(map(str, self.inputs))
        return f"<EmbeddingTable: {len(self):,} samples, {self.joined.shape[1]} numbers each, of {shown}>"

    def to_pandas(self, vectors: bool = False) -> pd.DataFrame:
        """The samples as a data frame, a row each: ``id`` and what is known of them.

        Args:
            vectors: Whether there is a column ``embedding``, too, with an array of all numbers of each sample.
        """
        frame: pd.DataFrame = self.columns.drop_columns(["geometry"]).to_pandas()
        frame.insert(0, "id", self.ids)
        if vectors:
            frame["embedding"] = list(self.joined)
        return frame

    def to_geopandas(self, vectors: bool = False) -> gpd.GeoDataFrame:
        """The same with the outline of each sample in longitude and latitude; missing where it is unknown.

        Args:
            vectors: As in :meth:`to_pandas`.
        """
        outlines = shapely.from_wkb(self.columns["geometry"].to_numpy())
        return gpd.GeoDataFrame(self.to_pandas(vectors), geometry=outlines, crs="EPSG:4326")

    def nearest(self, query: int | ArrayLike, k: int = 10, exact: bool | None = None) -> pd.DataFrame:
        """The samples whose vectors are most alike to another's, by cosine, the most alike first.

        Args:
            query: A row of this table, which is not among its own results; or a vector ``(features,)``, such as that
                of a picture that another archive holds; or several, ``(m, features)``.
            k: Samples to find, 1 or more; fewer are found where there are not as many.
            exact: Whether every vector is compared. When None, it is, up to a million rows; beyond that the search is
                that of an index of FAISS (extra ``search``) where it is installed, which may miss a few.

        Returns:
            A row a sample found: ``query``, from 0; ``rank``, from 1; ``row`` in this table; ``id``; ``similarity``,
            -1 to 1; and what is known of it.

        Raises:
            ConfigError: ``k`` is below 1, the row is not in the table, or a vector has another length.
        """
        wanted, own = self._queries(query)
        if k < 1:
            raise ConfigError(f"k={k}: ask for one sample or more.")
        asked = min(k + (own is not None), len(self))
        is_indexed = len(self) > EXACT_ROWS and is_installed() if exact is None else not exact
        found = self._index.search(wanted, asked) if is_indexed else None
        found = found or nearest_neighbours(self.joined, wanted, asked)
        rows = [
            (number, int(row), float(cosine))
            for number, (near, cosines) in enumerate(zip(found.indices, found.similarities, strict=True))
            for row, cosine in [one for one in zip(near, cosines, strict=True) if one[0] != own and one[0] >= 0][:k]
        ]
        frame = pd.DataFrame(rows, columns=["query", "row", "similarity"])
        frame.insert(1, "rank", frame.groupby("query").cumcount() + 1)
        known = self.to_pandas().iloc[frame["row"]].reset_index(drop=True)
        return pd.concat([frame, known], axis=1)

    def cluster(self, k: int, seed: int = 0) -> NDArray[np.int64]:
        """The cluster of each sample, from 0, by k-means of vectors of unit length, as curation finds them.

        Args:
            k: Clusters wanted, 1 or more; fewer are found where there are fewer distinct vectors.
            seed: Decides where the search begins.

        Returns:
            Shape ``(n,)``.

        Raises:
            CurationError: ``k`` is below 1, or a vector is not finite.
        """
        lengths = np.linalg.norm(self.joined, axis=1, keepdims=True)
        unit = self.joined / np.maximum(lengths, np.finfo(np.float32).tiny)
        found = KMeans(k, seed=seed).fit(unit).assign(unit)
        return np.asarray(found.labels, dtype=np.int64)

    def plot(self, colour: str | ArrayLike = "label", samples: int = 3000, seed: int = 0) -> Picture:
        """The samples in the plane, by t-SNE, so that what the encoder finds alike lies side by side.

        Args:
            colour: A column of :meth:`to_pandas`, or ``n`` values of one's own, such as those of :meth:`cluster`.
            samples: How many are drawn at most, at random; t-SNE of more takes long.
            seed: Of the draw and of t-SNE.

        Raises:
            ConfigError: There is no such column, or there are fewer than five samples.
        """
        from terrasieve.embeddings.drawing import draw_plane

        return draw_plane(self.joined, self._values(colour), samples, seed)

    def map(self, colour: str | ArrayLike = "label", samples: int = 3000, seed: int = 0) -> folium.Map:
        """The samples on a map of the world that can be moved, by folium (extra ``maps``).

        The page asks OpenStreetMap's servers for the background.

        Args:
            colour: As in :meth:`plot`.
            samples: How many are drawn at most, at random.
            seed: Of the draw.

        Raises:
            ConfigError: There is no such column, no sample says where it lies, or folium is not installed.
        """
        from terrasieve.embeddings.drawing import draw_map

        return draw_map(self.to_geopandas(), self._values(colour), samples, seed)

    def _queries(self, query: int | ArrayLike) -> tuple[NDArray[np.float32], int | None]:
        """The vectors that are searched for, ``(m, features)``, and the row that they are of."""
        if isinstance(query, (int, np.integer)):
            if not -len(self) <= query < len(self):
                raise ConfigError(f"Row {query} is not among the {len(self)} rows of the table.")
            row = int(query) % len(self)
            return self.joined[row][None], row
        vectors = np.atleast_2d(np.asarray(query, dtype=np.float32))
        if vectors.ndim != 2 or vectors.shape[1] != self.joined.shape[1]:
            raise ConfigError(
                f"A query has {self.joined.shape[1]} numbers, as the vectors of {self} have; this one has shape "
                f"{np.shape(query)}. Embed it by the same encoder and inputs, and give `.joined` of its table."
            )
        return vectors, None

    def _values(self, colour: str | ArrayLike) -> NDArray[Any]:
        if not isinstance(colour, str):
            values = np.asarray(colour)
            if values.shape != (len(self),):
                raise ConfigError(f"Colours are one value a sample, {len(self)}; these have shape {values.shape}.")
            return values
        if colour not in self.columns.column_names:
            if colour == "label":
                return np.full(len(self), "no label", dtype=object)
            raise ConfigError(f"There is no column {colour!r}.{nearest(colour, self.columns.column_names)}")
        return np.asarray(self.columns[colour].to_pandas())

    @cached_property
    def _index(self) -> FaissIndex:
        return FaissIndex(self.joined)


def embed(
    encoder: Encoder | Repeated | Sequence[Encoder],
    card: EncoderCard,
    archive: Archive,
    inputs: Sequence[EncoderInput],
    normaliser: Normaliser,
    settings: EmbedSettings | None = None,
    indices: NDArray[np.int64] | None = None,
) -> EmbeddingTable:
    """Embed samples into memory.

    Args:
        encoder: Runs on the device that it is on. One for all inputs, or one for each, as
            :func:`terrasieve.embeddings.stream.calibrated_encoders` gives them.
        card: What the encoder was trained with, which goes into the provenance.
        archive: Archive that the samples are read from.
        inputs: What the encoder is shown, each with as many bands as it has channels.
        normaliser: Standardises each band by its statistics before the encoder sees it.
        settings: Size, batch size and precision; the defaults when None.
        indices: Samples to embed, in this order; all when None.

    Raises:
        BandError: An input does not exist in the archive or does not fit the encoder.
        ConfigError: No input is given.
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    first = encoder[0] if isinstance(encoder, Sequence) else encoder
    settings = (settings or EmbedSettings()).on(device_of(first))
    resolved = resolve_inputs(inputs, archive.sensors, first.channels)
    order = np.arange(len(archive)) if indices is None else indices
    vectors = embed_vectors(encoder, archive, resolved, normaliser, settings, order, "embed")
    facts = provenance(card, archive, resolved, normaliser, settings)
    return with_columns(vectors, archive, resolved, order, facts)


def with_columns(
    vectors: NDArray[np.float32],
    archive: Archive,
    inputs: Sequence[EncoderInput],
    indices: NDArray[np.int64],
    facts: Mapping[str, Any],
) -> EmbeddingTable:
    """A table of vectors that are there already.

    Args:
        vectors: Of the samples in the order of ``indices``, shape ``(n, inputs, features)``.
        archive: Archive that the samples were read from.
        inputs: What the vectors were made from, resolved against the archive.
        indices: Indices of the samples in the archive, shape ``(n,)``.
        facts: What made the vectors, from :func:`provenance`; their length is added.
    """
    columns = sample_columns(archive.table()).take(pa.array(indices)).drop_columns(["id"])
    described = {**facts, "emb:dimensions": vectors.shape[1] * vectors.shape[2]}
    return EmbeddingTable(archive.ids[indices], vectors, tuple(inputs), columns, described)


def read_embeddings(path: str | Path) -> EmbeddingTable:
    """Read a file of :func:`terrasieve.embeddings.write_embeddings` into memory, vectors of 8 bits as float32.

    Args:
        path: Path of the GeoParquet file.

    Raises:
        ArchiveError: The file does not exist, is damaged or holds no embeddings.
    """
    try:
        table = pq.read_table(local_path(path))
    except (OSError, pa.ArrowInvalid) as error:
        raise ArchiveError(f"{path} cannot be read as Parquet: {error}. Write it with `terrasieve embed`.") from error
    metadata = table.schema.metadata or {}
    if b"emb" not in metadata or "embedding" not in table.column_names:
        raise ArchiveError(f"{path} has no embeddings with metadata 'emb'. Write it with `terrasieve embed`.")
    # The vectors of several inputs stand side by side in one list, those of the first input first.
    rows = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    try:
        facts = parse_json(metadata[b"emb"])
        inputs = tuple(EncoderInput.parse(text) for text in facts["inputs"])
        vectors = rows if rows.dtype != np.int8 else Int8Scales.parse(facts[QUANTISED], rows.shape[1]).decode(rows)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ArchiveError(f"{path} has damaged metadata: {error!r}. Write it with `terrasieve embed`.") from error
    ids = np.array(table["id"].to_pylist(), dtype=np.str_)
    columns = table.drop_columns(["id", "embedding", "bbox"]).replace_schema_metadata(None)
    return EmbeddingTable(ids, vectors.reshape(len(table), len(inputs), -1), inputs, columns, facts)


def sample_columns(table: pa.Table) -> pa.Table:
    """``id`` and :data:`COLUMNS` of an archive's table; ``label`` and ``split`` only where any is known."""
    optional = {"label", "split"}
    kept = [
        name
        for name in ("id", *COLUMNS)
        if name in table.column_names and not (name in optional and table[name].null_count == len(table))
    ]
    return table.select(kept)


def provenance(
    card: EncoderCard,
    archive: Archive,
    inputs: Sequence[EncoderInput],
    normaliser: Normaliser,
    settings: Spec,
) -> dict[str, Any]:
    """What made an embedding, as the JSON object of the file metadata key ``emb``.

    The keys ``emb:type``, ``emb:model`` and ``emb:source-data`` are those of the STAC Embedding
    extension; ``emb:dimensions`` is added once the vectors are known.
    """
    # Of the card the most telling fields go in; the hash of all of it tells it from any other.
    card_json = card.model_dump_json()
    return {
        "emb:type": "chip",
        "emb:model": {
            "card_sha256": hashlib.sha256(card_json.encode()).hexdigest(),
            **card.model_dump(mode="json", include={"weights_sha256", "method", "recipe", "backbone", "provenance"}),
        },
        "emb:source-data": dict(archive.source),
        "inputs": [str(one) for one in inputs],
        "settings": settings.model_dump(mode="json"),
        "normalisation": _statistics_used(inputs, normaliser),
        "terrasieve": terrasieve.__version__,
    }


def _statistics_used(inputs: Sequence[EncoderInput], normaliser: Normaliser) -> dict[str, list[dict[str, Any]]]:
    used: dict[str, list[dict[str, Any]]] = {}
    wanted = {(one.sensor, band) for one in inputs for band in one.bands}
    for sensor, statistics in normaliser.statistics.items():
        rows = [one.model_dump(mode="json") for one in statistics if (sensor, one.band) in wanted]
        if rows:
            used[sensor] = rows
    return used
