"""Docstrings as the site shows them: their cross-references as links."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:\w+:)?\w+:`~?([\w.]+)`")


def linked(docstring: str) -> str:
    """The text with each reference, such as one to a class, as a link where the site has its target."""
    text = ROLE.sub(
        lambda found: f'<autoref optional identifier="{found[1]}"><code>{found[1].rpartition(".")[2]}</code></autoref>',
        docstring,
    )
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


class Roles(griffe.Extension):
    """Rewrites every docstring once, when its module has been read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute, before its sections are parsed."""
        if obj.docstring:
            obj.docstring.value = linked(obj.docstring.value)
