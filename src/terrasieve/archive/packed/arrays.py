"""The Zarr side of writing a packed store: layout of the arrays, coordinates, and the group's metadata."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle

from terrasieve.archive.packed.manifest import FORMAT, GROUP, KEY, ArrayLayout, Manifest, write_json
from terrasieve.archive.packed.reading import zarrs_config
from terrasieve.archive.protocol import Archive, source_place
from terrasieve.archive.quality.limits import FlawError, Problem, QualityLimits, check
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.sensors import Sensor


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


def is_reserved(key: str) -> bool:
    """Whether a sensor's key would collide with the store's other names."""
    return key == "id" or key.startswith(("band_", ".")) or "/" in key


def plan_arrays(archive: Archive, limits: QualityLimits) -> dict[str, ArrayLayout]:
    """Layouts by sensor key, after the archive's first good sample.

    Args:
        archive: Samples are read in order, up to the first that is good.
        limits: How much may be missing from a sample that is good.

    Raises:
        ArchiveError: No sample is good, or a sensor's key is one of the store's own names.
    """
    if reserved := [key for key in archive.sensors if is_reserved(key)]:
        raise ArchiveError(f"A packed store cannot have a sensor with the key {reserved[0]!r}; give it another.")
    reason: SampleError | str = "it is empty."
    for index in range(len(archive)):
        try:
            pixels = {key: archive.read(index, key) for key in archive.sensors}
            for key, sensor in archive.sensors.items():
                check(pixels[key], sensor, limits)
        except SampleError as error:
            reason = error
            continue
        return {
            key: ArrayLayout(dtype=values.dtype.newbyteorder("<").str, shape=values.shape)
            for key, values in pixels.items()
        }
    raise ArchiveError(f"{source_place(archive.source)} has no good sample: {reason}")


def check_fits(pixels: NDArray[Any], layout: ArrayLayout) -> None:
    """Refuse what cannot be stored as the first good sample is.

    Args:
        pixels: Of one sensor of a sample, shape ``(bands, height, width)``.
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

    Plain chunks go through zarr's own pipeline, which also writes a chunk of zeros, as it will be mapped like
    any other; zarrs would leave it out.
    """
    pipeline = zarrs_config() if layout.compress else {"array.write_empty_chunks": True}
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
    group = json.loads((out / GROUP).read_text(encoding="utf-8"))
    group["attributes"] = {**group["attributes"], KEY: manifest.model_dump(mode="json")}
    write_json(out / GROUP, group)
