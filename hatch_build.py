"""What hatch does when it packs the project: gives the README the links that a package index can follow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)]+)\)")
"""A link or picture whose target is a file of the checkout."""


class ReadmeHook(MetadataHookInterface):
    """Sets ``readme``: relative links become absolute by the one address that the project states for itself.

    That address is ``Repository`` in ``[project.urls]``. Without it the text of a link stays and its target goes, since
    an index shows neither files nor pictures of a checkout.
    """

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README to the metadata."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        metadata["readme"] = {"content-type": "text/markdown", "text": readme(text, repository)}


def readme(text: str, repository: str | None) -> str:
    """The text without relative links."""

    def there(link: re.Match[str]) -> str:
        mark, words, target = link.groups()
        if repository is None:
            return "" if mark else words
        return f"{mark}[{words}]({repository.rstrip('/')}/{'raw' if mark else 'blob'}/main/{target})"

    return LINK.sub(there, text)
