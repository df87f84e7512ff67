"""Lines of the documentation as tests run them: in this process, with what takes long made small."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from typer.testing import CliRunner, Result

from doc_pages import fences
from terrasieve.cli import app

SMALL = (
    "model.name=test_resnet",
    "views.branches.*.size=32",
    "train.batch_size=8",
    "train.precision=32",
    "train.workers=0",
    "train.collapse_rank=0",
)
"""What makes a recipe run in a second; a page's own settings come before."""
SMALL_HEAD = ("method.hidden=64", "method.prototypes=64")
"""The same of a published head, which alone fills hundreds of megabytes of a checkpoint."""


def run(line: str) -> Result:
    """Run a line of a page, its training and simulations made small."""
    words = shlex.split(line, comments=True)[1:]
    words = [re.sub(r"^(simulated(?:-ocean)?:\d+):\d+$", r"\1:48", word) for word in words]
    if words[0] == "pretrain":
        own = [i for i, word in enumerate(words) if word.startswith(("train.epochs=", "train.batch_size="))]
        words = [word for i, word in enumerate(words) if i not in own and i + 1 not in own]
        # What curates needs passes before its first round, ten of them by the recipes of the paper.
        length = "train.epochs=4" if "--curate" in words else "train.steps=2"
        length = "train.epochs=12" if words[1].startswith("oceansar") else length
        head = SMALL_HEAD if words[1].startswith("oceansar-1") else ()
        words += [word for setting in (*SMALL, *head, length) for word in ("--set", setting)]
    words = ["1" if i and words[i - 1] == "--fine-tune" else word for i, word in enumerate(words)]
    if words[0] in {"probe", "bench"} and "--probe" not in words:
        words += ["--probe", "knn"]
    words += {"bench": ["--scratch-epochs", "0"], "segment": ["--size", "64"]}.get(words[0], [])
    return CliRunner().invoke(app, words, prog_name="terrasieve")


def write_named(text: str) -> None:
    """Write the YAML files that a page shows with their names in the first line."""
    for body in fences(text, "yaml"):
        if named := re.match(r"# (\w+\.yaml)\b", body):
            Path(named[1]).write_text(body)


def make_room(line: str) -> None:
    """Remove what was put where the line is about to make the same."""
    found = re.search(r" (?:--out|-o) (\S+)", line)
    if found is None or "--resume" in line:
        return
    out = Path(found[1])
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink(missing_ok=True)
