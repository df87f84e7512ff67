"""The ten things that somebody tries first in a notebook, each in at most five lines, with what they give.

Each is run as it stands here, in one session, on simulated data or on arrays made on the spot; one that fails is
reported with its error and the rest go on. ``imports_ms`` and ``help_ms`` are CPU times of ``import terrasieve`` and of
``terrasieve --help``, ``bare_ms`` that of ``python -c pass``, the least of several turns of each; ``import_ratio`` and
``help_ratio`` are the first two over the last.

Usage: ``python benchmarks/notebook_api.py``. The last line is JSON: ``done`` of ``tried``, ``longest_lines`` and the
ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import traceback
from typing import Any

from rich.console import Console
from rich.syntax import Syntax

from machine import describe

SNIPPETS = {
    "open an archive and look at it": """
import terrasieve as ts
archive = ts.open("simulated:0:200")
print(archive)
print(archive.plot().save("sheet.png"))
""",
    "one sample": """
sample = archive[0]
print(sample, sample["s2"].shape, sample.columns["label"])
""",
    "train a model of it": """
run = ts.pretrain("rs-byol-1-small", archive, "runs/first", train__steps=20, train__batch_size=16, device="cpu")
print(run)
print(run.log[["step", "loss", "effective_rank"]])
""",
    "embed it": """
table = run.encoder.embed(archive, "s2:rgb", progress=False)
print(table)
print(table.to_pandas(vectors=True).head(3))
""",
    "find what is alike": """
print(table.nearest(0, k=3)[["rank", "id", "similarity", "label"]])
""",
    "clusters and a picture": """
clusters = table.cluster(6)
print(table.plot(clusters).save("clusters.png"))
""",
    "measure it beside the floors": """
scores = ts.probe(run, "simulated:1:200", bands="s2:B03", probes=["knn"])
print(scores[["model", "accuracy", "accuracy_low", "accuracy_high"]])
""",
    "an array of one's own": """
import numpy as np
pixels = np.random.default_rng(0).integers(1, 4000, (32, 3, 64, 64), dtype=np.uint16)
mine = ts.open(pixels, sensor="s2-l2a", bands=["B04", "B03", "B02"])
print(run.encoder.embed(mine, "s2:B04", progress=False).vectors.shape)
""",
    "a smaller, more even archive": """
kept = ts.curate(table, 0.25, levels=[20, 5]).selection.indices
print(archive[kept])
""",
    "an encoder as torch's, and the archive, too": """
from torch.utils.data import DataLoader
batch = next(iter(DataLoader(archive.as_torch("s2", ["B03"]), batch_size=8)))
print(run.encoder(run.encoder.preprocess(batch["image"], "s2:B03")).shape)
""",
}
"""Title and lines of each, in the order in which they are tried."""

TURNS = 5


def main() -> None:
    """Try them one after the other, then time the imports."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    shown, names, failed = Console(width=120), {}, []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for number, (title, code) in enumerate(SNIPPETS.items(), 1):
            shown.rule(f"{number} {title}", align="left")
            shown.print(Syntax(code.strip(), "python", background_color="default"))
            said, error = attempt(code, names)
            shown.print(said.rstrip(), highlight=False, markup=False)
            if error:
                failed.append(title)
                shown.print(error, style="red", markup=False)
    bare, imports, helps = (cpu_ms(command) for command in commands())
    print(describe(0))
    print(
        json.dumps(
            {
                "tried": len(SNIPPETS),
                "done": len(SNIPPETS) - len(failed),
                "longest_lines": max(len(code.strip().splitlines()) for code in SNIPPETS.values()),
                "bare_ms": round(bare, 1),
                "imports_ms": round(imports, 1),
                "help_ms": round(helps, 1),
                "import_ratio": round(imports / bare, 2),
                "help_ratio": round(helps / bare, 2),
            }
        )
    )


def attempt(code: str, names: dict[str, Any]) -> tuple[str, str]:
    """What some lines print, and the traceback of what they raise, empty where they raise nothing.

    Args:
        code: The lines.
        names: What earlier lines have defined; goes on to be filled.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            exec(compile(code, "<notebook>", "exec"), names)  # the lines above, which are ours
        except Exception:
            return said.getvalue(), traceback.format_exc()
    return said.getvalue(), ""


def commands() -> tuple[list[str], list[str], list[str]]:
    """An interpreter that does nothing, one that imports the library, and the help of the command line."""
    python = sys.executable
    return (
        [python, "-c", "pass"],
        [python, "-c", "import terrasieve"],
        [python, "-c", "import sys; sys.argv = ['terrasieve', '--help']; from terrasieve.cli import main; main()"],
    )


def cpu_ms(command: list[str]) -> float:
    """CPU time of a command in milliseconds, the least of several turns."""
    found = []
    for _ in range(TURNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append((after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime))
    return 1000 * min(found)


if __name__ == "__main__":
    main()
