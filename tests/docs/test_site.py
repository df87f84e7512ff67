"""The site of the documentation: every page has its place in the navigation, and nothing is asked of another host.

Whether links and anchors hold is checked by `make docs`, which builds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import terrasieve

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Loader(yaml.SafeLoader):
    """Takes what a plug-in of MkDocs builds by a tag for a mapping."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, _, node: loader.construct_mapping(node))


def settings() -> dict[str, Any]:
    loaded = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), Loader)
    assert isinstance(loaded, dict)
    return loaded


def in_navigation(entries: Any) -> Iterator[str]:
    match entries:
        case str():
            yield entries
        case list():
            for entry in entries:
                yield from in_navigation(entry)
        case dict():
            yield from in_navigation(list(entries.values()))


def reference() -> dict[str, dict[str, Any]]:
    loaded = yaml.safe_load((DOCS / "site" / "reference.yaml").read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_every_page_is_in_the_navigation_once() -> None:
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    pages += [path.relative_to(DOCS).with_suffix(".md").as_posix() for path in DOCS.rglob("*.ipynb")]
    pages += [f"reference/{name}.md" for name in reference()]
    pages += re.findall(r'"(project/[\w-]+\.md)"', (DOCS / "site" / "pages.py").read_text("utf-8"))
    assert sorted(in_navigation(settings()["nav"])) == sorted(set(pages))


def test_the_reference_shows_what_exists() -> None:
    shown = [name for page in reference().values() for name in page["shows"]]
    assert len(shown) == len(set(shown)) > 40
    assert [name for name in shown if not is_there(name)] == []


def is_there(name: str) -> bool:
    """Whether a name is that of a module, or of something that the package itself offers."""
    return name.removeprefix("terrasieve.") in terrasieve.__all__ or find_spec(name) is not None


def test_nothing_comes_from_another_host_and_all_that_is_broken_fails() -> None:
    site = settings()
    assert site["theme"]["font"] is False
    assert site["strict"] is True
    assert set(site["validation"]["links"].values()) == {"warn"}
    local = [*site["extra"]["polyfills"], *site["extra_css"]]
    assert [name for name in (*local, *site.get("extra_javascript", ())) if not (DOCS / name).is_file()] == []
    # Without a script of this name the plug-in loads its own from elsewhere.
    assert any("iframe-worker" in name for name in local)
