"""Turn an archive of unlabelled satellite imagery into a foundation model of that archive."""

from __future__ import annotations

from terrasieve import former_names

__version__ = "0.1.0"

former_names.install()
