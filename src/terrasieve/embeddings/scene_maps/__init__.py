"""Maps of vectors: every place of a scene, computed tile by tile, written as Zarr and GeoTIFF, and read again."""
