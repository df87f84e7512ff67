"""The cells of a benchmark's table: each is measured once, kept, and read back when the benchmark goes on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from terrasieve import __version__
from terrasieve.archive.source_state import source_state
from terrasieve.console import console
from terrasieve.errors import ArchiveError
from terrasieve.files.writing import write_text
from terrasieve.probes.compare import ProbeTask
from terrasieve.probes.results import Measured, ProbeRow
from terrasieve.schema import read_json


@dataclass(frozen=True)
class BenchCell:
    """One model on one input and target, with every probe.

    Attributes:
        model: Name of the model, which heads its column.
        inputs: What the model is shown, in text form.
        target: Column of the archive's table that is predicted.
        seed: Seed of the weights, of the draws and of the splits.
        key: Everything that the numbers depend on; when it changes, the cell is measured again.
        measure: Function that measures the cell, with every probe of the benchmark.
    """

    model: str
    inputs: str
    target: str
    seed: int
    key: Mapping[str, Any]
    measure: Callable[[], list[Measured]]

    @property
    def name(self) -> str:
        """A file name; the key's digest is in it, so that cells that differ never share one."""
        text = re.sub(r"[^A-Za-z0-9.+-]+", "-", f"{self.model} {self.inputs} {self.target} seed{self.seed}")
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()
        return f"{text}-{digest[:12]}.json"


def run_cells(cells: Sequence[BenchCell], folder: Path) -> list[Measured]:
    """Measure every cell that the folder does not hold yet; each is written as soon as it is known.

    Args:
        cells: The cells in the order of the table.
        folder: Folder that keeps a JSON file for each measured cell; it is made.

    Returns:
        The results of all cells in order.

    Raises:
        ArchiveError: A kept cell is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, cell in enumerate(cells, start=1):
        path = folder / cell.name
        known = path.is_file()
        heading = f"{cell.model} on {cell.inputs}" + (f", seed {cell.seed}" if cell.seed else "")
        console.print(f"[bold]cell {number}/{len(cells)}[/] {heading}{' (kept)' if known else ''}", highlight=False)
        if not known:
            rows = [
                {"row": one.row.model_dump(mode="json"), "predicted": np.asarray(one.predicted).tolist()}
                for one in cell.measure()
            ]
            write_text(path, json.dumps({"key": cell.key, "measured": rows}))
        found += _read(path)
    return found


def model_key(model: nn.Module) -> str:
    """A digest of all parameters and buffers of a network, by name."""
    state = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        state.update(name.encode())
        state.update(tensor.detach().cpu().contiguous().flatten().float().numpy().tobytes())
    return state.hexdigest()


def task_key(task: ProbeTask) -> dict[str, Any]:
    """What the numbers of a comparison depend on beside the model."""
    samples = np.concatenate([task.splits.train, task.splits.val, task.splits.test]).astype("<i8")
    return {
        "version": __version__,
        "data": task.data,
        "fingerprint": task.archive.source.get("fingerprint"),
        "sources": source_state(task.archive, task.archive.table()),
        "samples": hashlib.sha256(samples.tobytes()).hexdigest(),
        "probes": [str(probe.protocol) for probe in task.probes],
        "train_shares": list(task.train_shares),
        "settings": task.settings.model_dump(),
        "target": task.splits.target.column,
        "seed": task.seed,
    }


def _read(path: Path) -> list[Measured]:
    try:
        kept = read_json(path)["measured"]
        return [Measured(ProbeRow.model_validate(one["row"]), np.array(one["predicted"])) for one in kept]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArchiveError(f"{path} is damaged: {error}. Remove it; the benchmark measures that cell again.") from error
