"""Data cubes: arrays over time, band, y and x, in NetCDF, in Zarr or in memory."""
