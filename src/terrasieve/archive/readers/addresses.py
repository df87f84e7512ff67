"""Addresses of patches that share a file: the file, and their place in it."""

from __future__ import annotations


def inside(file: str, *place: int) -> str:
    """The address of a place in a file, such as ``training.h5#17``.

    Args:
        file: Relative to the root.
        place: Counted from 0, the outermost dimension first.
    """
    return f"{file}#{','.join(map(str, place))}"


def split_inside(address: str) -> tuple[str, tuple[int, ...]]:
    """The file and the place in it that an address names."""
    file, _, place = address.rpartition("#")
    return file, tuple(int(number) for number in place.split(","))
