"""The packed store: a Zarr group that is read by memory map, and how it is written."""
