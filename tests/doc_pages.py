"""The pages of the documentation, as tests take them apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fences(text: str, *languages: str) -> Iterator[str]:
    """The bodies of the fenced blocks of these languages."""
    return (body for language, body in FENCE.findall(text) if language in languages)


def shell_lines(text: str) -> Iterator[str]:
    """What a page shows that a shell is to be given; a line that goes on in the next is one."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for body in fences(joined, "bash"):
        yield from body.splitlines()
    for body in fences(joined, "console"):
        yield from (line.removeprefix("$ ") for line in body.splitlines() if line.startswith("$ "))
    yield from re.findall(r"^    (terrasieve .*)$", text, re.MULTILINE)
