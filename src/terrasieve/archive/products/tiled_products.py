"""Archives of products: each is cut into tiles where it lies, and tiles over nothing are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from terrasieve.archive.layout import ArchiveSpec
from terrasieve.archive.patches.listing import Listing, PatchesArchive
from terrasieve.archive.quality.limits import FlawError, Problem, Rejection
from terrasieve.archive.readers.patch_reader import PatchReader
from terrasieve.archive.scenes.survey import Edge, edge_share, origins
from terrasieve.archive.stac.tiles import TileReader
from terrasieve.errors import ArchiveError
from terrasieve.processes.parallel import map_threads
from terrasieve.sensors import Sensor


class Named(Protocol):
    """What a product is read from: a path, or the files that share a name."""

    @property
    def name(self) -> str:
        """How the list of what was rejected calls it."""


T = TypeVar("T", bound=Named)


class ProductsSpec(ArchiveSpec):
    """Products and how to cut them.

    Attributes:
        root: A folder with products at any depth, or one product.
        tile: Rows and columns of a sample, in pixels of the finest band.
        stride: Pixels from one sample to the next; ``tile`` when None.
        edge: ``drop`` leaves out what remains at the far edges, ``overlap`` covers it with a last tile.
        max_nodata: Highest share, 0 to 1, of a tile that may lie over no-data; one with more is left out and counted.
            The default is that by which samples are judged when they are indexed.
    """

    root: Path
    tile: int = Field(default=256, ge=1)
    stride: int | None = Field(default=None, ge=1)
    edge: Edge = "drop"
    max_nodata: float = Field(default=0.05, ge=0, le=1)


@dataclass(frozen=True)
class Product:
    """A product that can be cut.

    Attributes:
        name: Unique within the archive.
        path: Its folder or zip.
        height: Rows of the finest band.
        width: Columns of the finest band.
        scenes: By sensor key, what its reader needs to know of the product.
        empty: Where nothing was measured, on a grid of any resolution over the whole product.
        time: When it was taken, in UTC; None where its metadata does not say it.
        columns: What else is known, the same for all tiles of it.
        tile_columns: What is known of each tile, one value for each of some first rows and columns, shape ``(n, 2)``.
    """

    name: str
    path: Path
    height: int
    width: int
    scenes: Mapping[str, Any]
    empty: NDArray[np.bool_]
    time: datetime | None
    columns: Mapping[str, Any] = field(default_factory=dict)
    tile_columns: Callable[[NDArray[np.int64]], Mapping[str, pa.Array]] = field(default=lambda corners: {})


class ProductsArchive(PatchesArchive):
    """Tiles of products; a sample's id is ``<product>/<row>_<column>`` of its first pixel.

    Metadata are read when it is opened, and one band at a low resolution, which tells where nothing was measured; tiles
    left out for that are counted under ``tiles_without_data`` in ``source``.

    Args:
        spec: How products are cut; its root is whole.
        found: Products, and reasons why others are none.
        readers: By key of the sensor, what reads its tiles from the products; called with products by name.

    Raises:
        ArchiveError: No product can be used, two have one name, or all tiles lie over no-data.
    """

    def __init__(
        self,
        spec: ProductsSpec,
        found: Sequence[Product | Rejection],
        readers: Callable[[Mapping[str, Product]], Mapping[str, PatchReader]],
    ) -> None:
        products = [one for one in found if isinstance(one, Product)]
        stride = spec.stride or spec.tile
        corners = {one.name: origins(one.height, one.width, spec.tile, stride, spec.edge) for one in products}
        kept = {
            one.name: corners[one.name][shares_over(one.empty, corners[one.name], spec.tile, one) <= spec.max_nodata]
            for one in products
        }
        _check_once(products)
        owners = [one for one in products for _ in kept[one.name]]
        ids = [f"{one.name}/{row}_{column}" for one in products for row, column in kept[one.name].tolist()]
        made = readers({one.name: one for one in products})
        names = sorted({name for one in products for name in one.columns})
        super().__init__(
            spec,
            Listing(
                ids=ids,
                addresses=dict.fromkeys(made, ids),
                columns={
                    "time": [one.time for one in owners],
                    "product": [one.name for one in owners],
                    **{name: [one.columns.get(name) for one in owners] for name in names},
                    **_joined([one.tile_columns(kept[one.name]) for one in products]),
                },
                rejected=(
                    *(one for one in found if isinstance(one, Rejection)),
                    *(_too_small(one, spec) for one in products if not len(corners[one.name])),
                ),
                facts={
                    "products": len(found),
                    "tiles_without_data": sum(len(corners[name]) - len(kept[name]) for name in kept),
                },
                edges=edge_share([(one.height, one.width) for one in products], spec.tile, stride, spec.edge),
            ),
            made,
        )


def read_all(things: Sequence[T], read: Callable[[T], Product], key: str) -> list[Product | Rejection]:
    """Read the metadata of products; one that cannot be used gives its reason.

    Args:
        things: What tells where each product lies; its text, or its name, says so in the list of what was rejected.
        read: Makes a product of one; raises a sample error where it cannot be used.
        key: Of the sensor that a product is lost to.
    """

    def try_one(thing: T) -> Product | Rejection:
        try:
            return read(thing)
        except FlawError as error:
            return Rejection.from_error(thing.name, key, str(getattr(thing, "folder", thing)), error)

    return list(map_threads(try_one, list(things), "Products"))


def tile_readers(
    sensors: Mapping[str, Sensor], tile: int
) -> Callable[[Mapping[str, Product]], Mapping[str, PatchReader]]:
    """What reads tiles of products whose scenes are of files of bands.

    Args:
        sensors: By key.
        tile: Rows and columns of a tile.
    """
    return lambda products: {
        key: TileReader(sensor, {name: one.scenes[key] for name, one in products.items()}, tile)
        for key, sensor in sensors.items()
    }


def none_found(root: Path, what: str, look: str) -> ArchiveError:
    """The error of a folder without a product.

    Args:
        root: The folder that was searched.
        what: Name of the products.
        look: What their names look like.
    """
    return ArchiveError(f"{root} holds no {what}, called {look}; name the folder that holds the products.")


def shares_over(
    empty: NDArray[np.bool_], corners: NDArray[np.int64], tile: int, product: Product
) -> NDArray[np.float64]:
    """Share of each tile that lies over pixels of a mask, whose resolution may be lower.

    Args:
        empty: The mask, over the whole product.
        corners: First row and column of each tile, shape ``(n, 2)``.
        tile: Rows and columns of a tile.
        product: Its height and width are those of the grid that tiles are cut from.

    Returns:
        0 to 1, shape ``(n,)``.
    """
    # Sums over rectangles are differences of the running sum.
    running = np.pad(np.cumsum(np.cumsum(empty, axis=0, dtype=np.int64), axis=1), ((1, 0), (1, 0)))
    scale = np.array(empty.shape) / (product.height, product.width)
    first = np.floor(corners * scale).astype(np.int64)
    last = np.ceil((corners + tile) * scale - 1e-9).astype(np.int64)
    (top, left), (bottom, right) = first.T, last.T
    inside = running[bottom, right] - running[top, right] - running[bottom, left] + running[top, left]
    shares: NDArray[np.float64] = inside / np.maximum(1, np.prod(last - first, axis=1))
    return shares


def _joined(columns: Sequence[Mapping[str, pa.Array]]) -> dict[str, pa.Array]:
    """The columns of several products below each other."""
    names = list(columns[0]) if columns else []
    return {name: pa.concat_arrays([one[name] for one in columns]) for name in names}


def _check_once(products: Sequence[Product]) -> None:
    seen: dict[str, Product] = {}
    for one in products:
        other = seen.setdefault(one.name, one)
        if other is not one:
            raise ArchiveError(f"{other.path} and {one.path} are one product, {one.name}; keep one of them.")


def _too_small(product: Product, spec: ProductsSpec) -> Rejection:
    reason = (
        f"{product.path} is {product.height}x{product.width} px, less than a tile of {spec.tile}; choose a "
        "smaller tile."
    )
    return Rejection(product.name, "", str(product.path), reason, Problem.GRID)
