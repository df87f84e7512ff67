"""The notebooks run from top to bottom, each in a process of its own, and what they show can be shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apart import run_apart

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"

SHOW = """
import ast, sys, json
from pathlib import Path

names = {}
for cell in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["cells"]:
    if cell["cell_type"] != "code":
        continue
    tree = ast.parse("".join(cell["source"]))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        for form in ("_repr_html_", "_repr_png_", "__repr__"):
            if hasattr(value, form):
                assert getattr(value, form)(), f"{form} of {value!r} shows nothing"
"""
"""What a notebook does with cells, as far as their values count: the last expression of each is shown in every form."""


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_its_values(notebook: Path, tmp_path: Path) -> None:
    ended = run_apart(SHOW, notebook, folder=tmp_path)
    assert ended.code == 0, ended.errors[-3000:]


def test_there_are_four_without_outputs_of_some_machine() -> None:
    notebooks = [json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.ipynb")]
    assert len(notebooks) == 4
    cells = [cell for notebook in notebooks for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not [cell for cell in cells if cell["outputs"] or cell["execution_count"]]
