"""Builds of torchvision may not match torch: who imports one has to let ``terrasieve._torchvision`` do so first."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[1] / "src" / "terrasieve"
IMPORT_IT = {"timm", "torchvision"}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [node.module or ""]
    return [name.name for name in node.names] if isinstance(node, ast.Import) else []


def _comes_too_early(source: str) -> bool:
    """Whether a package that imports torchvision is imported before the cure, or without it."""
    found = [(node.lineno, name) for node in ast.walk(ast.parse(source)) for name in _imported(node)]  # type: ignore[attr-defined]  # an import has a line
    cure = min((line for line, name in found if name == "terrasieve._torchvision"), default=len(source))
    return any(line < cure for line, name in found if name.partition(".")[0] in IMPORT_IT)


def test_who_imports_torchvision_lets_it_be_mended_first() -> None:
    paths = set(SOURCES.rglob("*.py")) - {SOURCES / "_torchvision.py"}
    assert [path for path in sorted(paths) if _comes_too_early(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize(
    ("source", "early"),
    [
        ("import terrasieve._torchvision\nimport timm", False),
        ("import timm\nimport terrasieve._torchvision", True),
        ("from timm.layers import DropPath", True),
        ("def late():\n    import torchvision", True),
        ("import torch", False),
    ],
)
def test_the_order_is_seen(source: str, early: bool) -> None:
    assert _comes_too_early(source) is early
