"""Small data sets in their true layouts, for tests of a layout and for what every archive promises.

A module is for a layout, or for a few that are alike. It writes files as the data set ships them, of pixels that the
caller gives, and has a maker under ``@makes(LAYOUT)``: a function that writes two or more samples into an empty folder
and opens them. The contract in ``tests/archive/test_archive_contract.py`` runs over every archive so made. A new module
is found by lying here; a plug-in adds its own, as ``tests/extension/plugin/tests/small_fieldwork.py`` does.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from importlib import import_module

from small_archives.making import MAKERS, Maker


def all_makers() -> Mapping[str, Sequence[Maker]]:
    """Those of every module here and of plug-ins, by layout."""
    for found in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{found.name}")
    return MAKERS
