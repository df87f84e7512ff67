"""Paths in the form that no library takes for an address, and what is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_ADDRESS = re.compile(r".*://|/vsi|//|\\\\", re.DOTALL)
"""An address of any scheme, also behind others; a file system of GDAL's; a share of another machine."""


def local_path(path: str | Path) -> Path:
    """The absolute path of a file on this machine, which is what every path given to pyarrow has to be.

    pyarrow takes a relative name with a colon, such as ``s2:B03.parquet`` or ``run-10:00/c.parquet``, for the address
    of a remote file system, and refuses its scheme. An absolute path begins with a slash, and so has no scheme.

    Args:
        path: The file, which need not exist.
    """
    return Path(path).absolute()


def find_address(values: Any) -> str | None:
    """The first text among values from a file that is an address elsewhere, and not a path on this machine.

    Whoever reads what a foreign file names asks for it: what is on the net is asked for when a user names it herself.

    Args:
        values: Plain values, as of YAML or JSON, nested at will.

    Returns:
        The address, of which there may be more; None where there is none.
    """
    if isinstance(values, str):
        return values if _ADDRESS.match(values) else None
    parts = values.values() if isinstance(values, dict) else values if isinstance(values, list | tuple) else ()
    return next((found for part in parts if (found := find_address(part)) is not None), None)
