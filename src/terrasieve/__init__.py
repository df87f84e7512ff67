"""Turn an archive of unlabelled satellite imagery into a foundation model of that archive."""

from __future__ import annotations

__version__ = "0.1.0"
