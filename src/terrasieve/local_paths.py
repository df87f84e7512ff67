"""Paths in the form that no library takes for an address."""

from __future__ import annotations

from pathlib import Path


def local_path(path: str | Path) -> Path:
    """The absolute path of a file on this machine, which is what every path given to pyarrow has to be.

    pyarrow takes a relative name with a colon, such as ``s2:B03.parquet`` or ``run-10:00/c.parquet``, for the address
    of a remote file system, and refuses its scheme. An absolute path begins with a slash, and so has no scheme.

    Args:
        path: The file, which need not exist.
    """
    return Path(path).absolute()
