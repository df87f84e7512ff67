"""Where a tile of a larger raster lies, as the header of a file of its own would say."""

from __future__ import annotations

from terrasieve.archive.readers.geotiff import Header

Affine6 = tuple[float, float, float, float, float, float]


def moved_origin(transform: Affine6, row: int, column: int) -> Affine6:
    """An affine with its origin moved to a pixel.

    Args:
        transform: The affine a-f from (column, row) to coordinates.
        row: Row of the new first pixel.
        column: Column of the new first pixel.
    """
    a, b, c, d, e, f = transform
    return a, b, c + a * column + b * row, d, e, f + d * column + e * row


def tile_header(
    name: str, crs: str | None, transform: Affine6, *, bands: int, tile: int, row: int, column: int
) -> Header:
    """The header of a square tile; it states no type, value or metadata, which belong to the raster.

    Args:
        name: The raster, as messages name it.
        crs: Reference system of the raster; None where unknown.
        transform: The raster's affine a-f from (column, row) to coordinates.
        bands: Number of bands.
        tile: Rows and columns of the tile.
        row: Row of its first pixel in the raster.
        column: Column of its first pixel in the raster.
    """
    return Header(
        name=name,
        bytes=-1,
        height=tile,
        width=tile,
        count=bands,
        dtype="",
        crs=crs,
        transform=moved_origin(transform, row, column),
        nodata=None,
        descriptions=(),
        block=(tile, tile),
        tags={},
    )
