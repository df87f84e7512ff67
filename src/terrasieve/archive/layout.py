"""What a layout is: the way in which a data set lies on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrasieve.archive.protocol import Archive
from terrasieve.schema import Spec


@dataclass(frozen=True)
class Recognition:
    """Why a folder is taken to be of a layout.

    Attributes:
        confidence: From 0 to 1: 1 where names that only this layout has were found, less where another could look so.
        evidence: What was found.
        spec: How the folder would be opened.
    """

    confidence: float
    evidence: str
    spec: Spec


@dataclass(frozen=True)
class Layout:
    """A layout that can be opened.

    Attributes:
        name: As ``layout`` in YAML and after ``--layout``.
        title: The data set's name.
        spec: Its options; has ``layout`` and ``root``.
        build: Opens a spec.
        recognise: Looks at a folder, reading names and no pixels; None where it is something else.
    """

    name: str
    title: str
    spec: type[Spec]
    build: Callable[[Any], Archive]
    recognise: Callable[[Path], Recognition | None]
