"""What a packed store is made of: what it says about itself, and its Zarr arrays.

A finished store has a manifest, which is read by people and other programs too, so that it is JSON: an attribute of the
Zarr group.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from zarr.codecs import BloscCodec, BloscShuffle

from terrasieve.archive.footprints import write_geoparquet
from terrasieve.archive.packed.integrity import digest, digest_bytes
from terrasieve.archive.protocol import Archive, source_place
from terrasieve.archive.quality.limits import FlawError, Problem, QualityLimits, Quarantine, Rejection, check
from terrasieve.archive.readers.zarr_codecs import parse_metadata
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.files.writing import write_text
from terrasieve.schema import Spec
from terrasieve.sensors import BandStatistics, Sensor

KEY = "terrasieve"
"""The group attribute that holds the manifest."""
FORMAT: Final = 1
"""Version of the layout; stores of another one are refused."""
CATALOGUE = "catalogue.parquet"
"""Name of the samples' table inside the store."""
GROUP = "zarr.json"
"""Name of Zarr's own metadata file of the group, which is read without opening any array."""


class Manifest(Spec):
    """The attribute ``terrasieve`` of a finished store.

    Attributes:
        format: Version of this layout.
        complete: A store that is still being packed says False here and has nothing else.
        version: Version of the terrasieve that packed it.
        simulated: Whether the pixels were made up.
        samples: Samples in the store.
        rejected: Samples of the source that were not fit for use.
        sensors: By key: bands in pixel order, units, nodata values.
        statistics: By key, one entry a band, over all samples of the store.
        source: Provenance of the archive that was packed.
        request: Digest of that archive and of the options.
        assets: Digest of the list of source files.
        chunks: By key, the BLAKE2b digest of each chunk's pixels as they were before compression.
        catalogue: BLAKE2b digest of the file of the samples' table; None in stores of earlier versions.
        sources: Digest of the files and the table that it was packed from, see ``source_state``; None in stores of
            earlier versions.
        suspicions: What may spoil a run on the samples, one mapping each as ``Suspicion.summary`` gives it.
    """

    format: Literal[1] = FORMAT
    complete: Literal[True] = True
    version: str
    simulated: bool
    samples: int = Field(ge=1)
    rejected: int = Field(ge=0)
    sensors: Mapping[str, Sensor] = Field(min_length=1)
    statistics: Mapping[str, tuple[BandStatistics, ...]]
    source: Mapping[str, Any]
    request: str
    assets: str
    chunks: Mapping[str, tuple[str, ...]]
    catalogue: str | None = None
    sources: str | None = None
    suspicions: tuple[Mapping[str, Any], ...] = ()

    @model_validator(mode="after")
    def _of_the_sensors(self) -> Self:
        bands = {key: len(sensor.bands) for key, sensor in self.sensors.items()}
        if {key: len(each) for key, each in self.statistics.items()} != bands or self.chunks.keys() != bands.keys():
            raise ValueError("statistics and digests of chunks are not those of the sensors' bands")
        return self

    @property
    def fingerprint(self) -> str:
        """One digest of all pixels and of what they were packed from."""
        return digest([self.request, *(f"{key} {part}" for key, parts in self.chunks.items() for part in parts)])


class ArrayLayout(Spec):
    """How one sensor's pixels are stored.

    Attributes:
        dtype: Little-endian numpy type, such as ``<u2``.
        shape: Bands, rows and columns of a sample.
    """

    dtype: str
    shape: tuple[int, int, int]

    @property
    def sample_bytes(self) -> int:
        """Size of one sample's pixels."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def parse_manifest(attributes: Mapping[str, Any], root: object) -> Manifest:
    """The manifest from a group's attributes.

    Raises:
        ArchiveError: It is not there, of another format, or packing was not finished.
    """
    stored = attributes.get(KEY)
    if not isinstance(stored, Mapping):
        raise ArchiveError(f"{root} is not a packed store: its {GROUP} has no attribute {KEY!r}. Make one with pack.")
    if stored.get("format") != FORMAT:
        raise ArchiveError(f"{root} has format {stored.get('format')}, this version reads {FORMAT}; pack it again.")
    if not stored.get("complete"):
        raise ArchiveError(f"{root}: packing was not finished; run the same command again.")
    try:
        return Manifest.model_validate(stored)
    except ValidationError as error:
        raise ArchiveError(f"{root}/{GROUP} is damaged: {error}. Pack the archive again.") from error


def is_packed_store(folder: Path) -> bool:
    """Whether a folder's Zarr group has the attribute of a packed store; an unfinished store counts."""
    try:
        return KEY in parse_metadata((folder / GROUP).read_bytes(), folder / GROUP)["attributes"]
    except (OSError, TypeError, KeyError, SampleError):
        return False


def read_attributes(root: Path) -> Mapping[str, Any]:
    """The attributes of a local group.

    Raises:
        ArchiveError: There is no group, or its metadata cannot be read.
    """
    path = root / GROUP
    try:
        attributes: Mapping[str, Any] = parse_metadata(path.read_bytes(), path)["attributes"]
    except FileNotFoundError as error:
        raise ArchiveError(f"{root} is not a packed store: there is no {path}. Make one with pack.") from error
    except (OSError, KeyError, SampleError) as error:
        raise ArchiveError(f"{path} cannot be read: {error}. Pack the archive again.") from error
    return attributes


# ------------------------------------------------------------------- decoding

ZARRS: dict[str, Any] = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}
"""zarr configuration that decodes in compiled code."""
_ONE_THREAD = {"threading.max_workers": 1, "codec_pipeline.chunk_concurrent_maximum": 1}
_IMPORTED_BY = os.getpid()


def zarrs_config() -> dict[str, Any]:
    """Zarr configuration that decodes in compiled code: in many threads, but in one after a fork.

    A forked process inherits the pool of threads that its parent may have started, and none of the threads: it would
    wait for them for ever.
    """
    return ZARRS if os.getpid() == _IMPORTED_BY else ZARRS | _ONE_THREAD


# ---------------------------------------------------------------------- arrays


@dataclass(frozen=True)
class StoreLayout:
    """The arrays of a store.

    Attributes:
        arrays: Type and shape of one sample, by key of the sensor.
        chunk: Samples a chunk, the same for all arrays, so that one record says how far all of them are.
        compress: Whether a chunk is a shard of compressed single bands, or plain pixels.
    """

    arrays: Mapping[str, ArrayLayout]
    chunk: int
    compress: bool

    def dimensions(self, key: str) -> tuple[str, str, str, str]:
        """Names of the dimensions of one sensor's array.

        To xarray a name means one length throughout a group: ``sample`` is common to all arrays, bands are
        each sensor's own, rows and columns are common where all sensors have the same size.
        """
        common = len({layout.shape[1:] for layout in self.arrays.values()}) == 1
        suffix = "" if common else f"_{key}"
        return ("sample", f"band_{key}", f"y{suffix}", f"x{suffix}")


def chunk_path(key: str, number: int) -> str:
    """Where in a store the file of a chunk of a sensor lies: all its bands, rows and columns are in one."""
    return f"{key}/c/{number}/0/0/0"


def is_reserved(key: str) -> bool:
    """Whether a sensor's key would collide with the store's other names."""
    return key == "id" or key.startswith(("band_", ".")) or "/" in key


def plan_arrays(archive: Archive, limits: QualityLimits, quarantine: Quarantine) -> dict[str, ArrayLayout]:
    """Layouts by sensor key, after the archive's first good sample.

    Args:
        archive: Samples are read in order, up to the first that is good.
        limits: How much may be missing from a sample that is good.
        quarantine: Lists all samples where none is good; otherwise it is left as it is.

    Raises:
        ArchiveError: No sample is good, or a sensor's key is one of the store's own names.
    """
    if reserved := [key for key in archive.sensors if is_reserved(key)]:
        raise ArchiveError(f"A packed store cannot have a sensor with the key {reserved[0]!r}; give it another.")
    flaws: list[Rejection] = []
    for index in range(len(archive)):
        pixels = {}
        try:
            for key, sensor in archive.sensors.items():
                pixels[key] = archive.read(index, key)
                check(pixels[key], sensor, limits)
        except SampleError as error:
            asset = next(iter(archive.files(np.array([index]))), "")
            flaws.append(Rejection.from_error(str(archive.ids[index]), key, asset, error))
            continue
        return {
            key: ArrayLayout(dtype=values.dtype.newbyteorder("<").str, shape=values.shape)
            for key, values in pixels.items()
        }
    quarantine.extend(flaws)
    quarantine.write()
    reason = f"{flaws[-1].reason} All are listed in {quarantine.path}." if flaws else "it is empty."
    raise ArchiveError(f"{source_place(archive.source)} has no good sample: {reason}")


def check_fits(pixels: NDArray[Any], layout: ArrayLayout) -> None:
    """Refuse what cannot be stored as the first good sample is.

    Args:
        pixels: Pixels of one sensor of a sample, shape ``(bands, height, width)``.
        layout: Type and shape that all samples of the sensor have.

    Raises:
        SampleError: The shape or the type is another.
    """
    if pixels.shape != layout.shape:
        raise FlawError(
            Problem.GRID,
            f"Its shape {pixels.shape} is not {layout.shape}, that of the first good sample; pack one size at a time.",
        )
    if not np.can_cast(pixels.dtype, layout.dtype, "safe"):
        raise FlawError(
            Problem.UNIT,
            f"Its type {pixels.dtype} does not fit into {layout.dtype}, that of the first good sample; convert it.",
        )


def create_arrays(out: Path, sensors: Mapping[str, Sensor], layout: StoreLayout, samples: int) -> None:
    """Make the group and its arrays, in place of those that an earlier run may have left.

    Args:
        out: Folder of the store.
        sensors: The archive's, by the keys of the layout.
        layout: Types, shapes and chunks of the arrays.
        samples: The most samples that there can be. Arrays are made a whole number of chunks long, so that
            every chunk is written whole, whatever lay there before; ``trim`` makes them fit.
    """
    group = zarr.open_group(out, mode="a", zarr_format=3)
    # Said first, so that a store is never taken for whole before the manifest takes this place.
    group.attrs[KEY] = {"format": FORMAT, "complete": False}
    for key, array in layout.arrays.items():
        chunk = (layout.chunk, *array.shape)
        size = np.dtype(array.dtype).itemsize
        compressor = BloscCodec(cname="zstd", clevel=5, shuffle=BloscShuffle.shuffle, typesize=size)
        sensor = sensors[key]
        units = [band.unit for band in sensor.bands]
        group.create_array(
            key,
            shape=(-(-samples // layout.chunk) * layout.chunk, *array.shape),
            dtype=array.dtype,
            # A shard is one file; inside it each band of each sample is compressed, and can be read, by itself.
            chunks=(1, 1, *array.shape[1:]) if layout.compress else chunk,
            shards=chunk if layout.compress else None,
            filters=None,
            compressors=compressor if layout.compress else None,
            fill_value=0,
            dimension_names=layout.dimensions(key),
            attributes={"coordinates": "id", "sensor": sensor.name, "bands": list(sensor.names), "units": units},
            overwrite=True,
        )


def open_arrays(out: Path, layout: StoreLayout) -> dict[str, Any]:
    """The arrays by sensor key, to write to.

    Shards are compressed in one thread: several would lay their bands in the order in which they finish, and a store
    that is packed twice, or in parts, has the same bytes.

    Plain chunks go through zarr's own pipeline, which also writes a chunk of zeros, as it will be mapped like
    any other; zarrs would leave it out.
    """
    pipeline = ZARRS | _ONE_THREAD if layout.compress else {"array.write_empty_chunks": True}
    with zarr.config.set(pipeline):
        group = zarr.open_group(out, mode="r+", zarr_format=3, use_consolidated=False)
        return {key: group[key] for key in layout.arrays}


def trim(arrays: Mapping[str, Any], samples: int) -> None:
    """Cut the arrays to the samples that they hold."""
    for array in arrays.values():
        array.resize((samples, *array.shape[1:]))


def write_coordinates(out: Path, sensors: Mapping[str, Sensor], ids: Sequence[str]) -> None:
    """Names of samples and bands, which xarray takes for coordinates."""
    group = zarr.open_group(out, mode="r+", zarr_format=3, use_consolidated=False)
    coordinates = {"id": ("sample", ids)} | {f"band_{key}": (f"band_{key}", s.names) for key, s in sensors.items()}
    for name, (dimension, values) in coordinates.items():
        array = group.create_array(
            name, shape=(len(values),), chunks=(len(values),), dtype=str, dimension_names=[dimension], overwrite=True
        )
        array[:] = np.array(values, dtype=object)


def publish(out: Path, manifest: Manifest) -> None:
    """Put the manifest and all arrays' metadata into the group's own file, in one move."""
    with warnings.catch_warnings():
        # Consolidated metadata is not in the text of Zarr 3 yet; readers that do not know it ignore it.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(out, zarr_format=3)
    _write_manifest(out, manifest)


def replace_catalogue(out: Path, table: pa.Table) -> None:
    """Put another table in the place of that of a finished store; a kill leaves one of the two, and a store that opens.

    Args:
        out: Folder of the store.
        table: A row for each sample, in the store's order; columns as ``Archive.table``, and more.

    Raises:
        ArchiveError: It is no finished store.
        WriteError: The system refused it.
    """
    manifest = parse_manifest(read_attributes(out), out)
    # Without a digest in between, as no file can change in the very moment that another does.
    _write_manifest(out, manifest.model_copy(update={"catalogue": None}))
    write_geoparquet(table, out / CATALOGUE, {})
    digest_of_it = digest_bytes((out / CATALOGUE).read_bytes())
    _write_manifest(out, manifest.model_copy(update={"catalogue": digest_of_it}))


def _write_manifest(out: Path, manifest: Manifest) -> None:
    group = dict(parse_metadata((out / GROUP).read_bytes(), out / GROUP))
    group["attributes"] = {**group["attributes"], KEY: manifest.model_dump(mode="json")}
    write_text(out / GROUP, json.dumps(group))
