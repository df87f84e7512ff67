"""From the files that the library writes to numbers that can be compared.

Names of files and of fields that may change stand in :data:`FILES` and :data:`FIELDS`, and nowhere else. Where a name
changes, write a tuple with the new one first: what an old tree wrote is read through the same tables.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray
from safetensors.numpy import load_file

FILES: Mapping[str, str | tuple[str, ...]] = {
    "log": "log.csv",
    "weights": "encoder/encoder.safetensors",
    "rounds": "curation/round-*.parquet",
    "round records": "curation/round-*.json",
    "probe rows": "probe.json",
    "predictions": "probe-predictions.parquet",
    "segmentation": "segment",
    "report": "report.html",
    "store": "zarr.json",
    "store catalogue": "catalogue.parquet",
    "quarantine": ".quarantine.csv",
    "suspicions": ".suspicions.json",
}
"""Below a run folder or a store; the last two are what follows the name of an output."""

FIELDS: Mapping[str, str | tuple[str, ...]] = {
    "model": "model",
    "inputs": "inputs",
    "probe": "probe",
    "target": "target",
    "metrics": "metrics",
    "interval": "ci95",
    "chosen": "chosen",
    "confusion": "confusion",
    "train": "n_train",
    "test": "n_test",
    "truth": "truth",
    "predicted": "predicted",
    "index": "index",
    "group": "group",
    "id": "id",
    "vector": "embedding",
    "step": "step",
    "candidates": "candidates",
    "pool": "pool",
    "group sizes": "group_sizes",
    "quotas": "quotas",
    "diagnostics": "diagnostics",
    "kind": "kind",
    "ids": "ids",
    "attributes": "terrasieve",
    "version": "version",
    "digests": "chunks",
}
"""Of a probe row, a prediction, a selection, an embedding, a round's record, a suspicion and a store's metadata."""

CLOCKS = {"images_per_s", "data_wait", "curation_seconds", "seconds"}
"""Columns of the log that measure time."""

PLACE = "{FOLDER}"
"""Stands for the folder that files were made in."""


def find(folder: Path, name: str) -> Path:
    """The file of :data:`FILES` in a folder; under its newest name where there is none."""
    paths = [folder / each for each in _alternatives(FILES[name])]
    return next((path for path in paths if path.exists()), paths[0])


def beside(out: Path, name: str) -> Path:
    """The file of :data:`FILES` beside an output, which begins with the output's own name."""
    paths = [out.with_name(f"{out.name}{each}") for each in _alternatives(FILES[name])]
    return next((path for path in paths if path.exists()), paths[0])


def field(record: Mapping[str, Any], name: str) -> Any:
    """A value by the name of :data:`FIELDS` that the record has."""
    return record[_present(record, name)]


def _present(names: Iterable[str], name: str) -> str:
    return next(each for each in _alternatives(FIELDS[name]) if each in names)


def _alternatives(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def read_run(run: Path) -> Any:
    """The log without its clocks, the exported weights and the rounds."""
    rows = read_csv(find(run, "log"), run)
    columns = [name for name in rows[0] if name not in CLOCKS]
    pools, records = (
        sorted(path for pattern in _alternatives(FILES[name]) for path in run.glob(pattern))
        for name in ("rounds", "round records")
    )
    told = ("step", "candidates", "pool", "group sizes", "quotas", "diagnostics")
    return {
        "log": {name: [float(row[name]) if row[name] else None for row in rows] for name in columns},
        "weights": {name: summary(values) for name, values in sorted(load_file(find(run, "weights")).items())},
        "pools": [read_selection(path) for path in pools],
        "rounds": [{name: field(json.loads(path.read_text()), name) for name in told} for path in records],
    }


def read_selection(path: Path) -> Any:
    """Indices, groups and, where the vectors had names, ids."""
    table = pq.read_table(path).to_pydict()
    named = any(each in table for each in _alternatives(FIELDS["id"]))
    return {name: field(table, name) for name in ("index", "group", *(("id",) if named else ()))}


def read_embeddings(path: Path) -> Any:
    """Ids and vectors."""
    table = pq.read_table(path).to_pydict()
    return {"ids": field(table, "id"), "vectors": summary(np.array(field(table, "vector"), dtype=np.float32))}


def read_probes(folder: Path) -> Any:
    """Numbers of each row by what was measured, and what was predicted of each sample."""
    rows = json.loads(find(folder, "probe rows").read_text())
    told = ("metrics", "interval", "chosen", "confusion", "train", "test")
    found = {_measured(row): {name: field(row, name) for name in told} for row in rows}
    path = find(folder, "predictions")
    for row in pq.read_table(path).to_pylist() if path.is_file() else ():
        said = [field(row, "id"), *(_value(field(row, name)) for name in ("truth", "predicted"))]
        found[_measured(row)].setdefault("predictions", []).append(said)
    return found


def _value(text: str) -> str | float:
    """A number where it was written as text, as predictions are."""
    try:
        return float(text)
    except ValueError:
        return text


def _measured(row: Mapping[str, Any]) -> str:
    parts = [field(row, name) for name in ("target", "inputs", "probe", "model")]
    return " | ".join(part if isinstance(part, str) else "+".join(part) for part in parts)


def read_store(store: Path) -> Any:
    """Digests of all files of pixels, the arrays, the metadata but for the version, and the catalogue."""
    described = field(json.loads(find(store, "store").read_text())["attributes"], "attributes")
    del described[_present(described, "version")]
    digests = described.pop(_present(described, "digests"))
    pixels = sorted(path for path in store.rglob("*") if path.is_file() and path.suffix not in (".json", ".parquet"))
    return {
        "chunks": {str(path.relative_to(store)): {"bytes_sha256": _sha256(path.read_bytes())} for path in pixels},
        "arrays": read_arrays(store),
        "attributes": described,
        "digests": {"bytes_sha256": digests},
        "catalogue": read_table(find(store, "store catalogue"), store),
    }


def read_csv(path: Path, folder: Path) -> list[dict[str, str]]:
    """Rows; paths below a folder without it."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{key: value.replace(str(folder), PLACE) for key, value in row.items()} for row in csv.DictReader(file)]


def read_arrays(store: Path) -> Any:
    """A summary of every array of a store."""
    group = zarr.open_group(str(store), mode="r")
    return {name: summary(np.asarray(group[name])) for name in sorted(group.array_keys())}  # type: ignore[index]


def read_table(path: Path, folder: Path) -> Any:
    """Columns of a catalogue, without the hidden ones, which hold times of files; paths below a folder without it."""
    table = pq.read_table(path)
    shown = [name for name in table.column_names if not name.startswith("terrasieve:")]
    return {name: [_plain(value, folder) for value in table[name].to_pylist()] for name in shown}


def _plain(value: Any, folder: Path) -> Any:
    if isinstance(value, bytes):
        # Well-known binary of one polygon: its corners follow 13 bytes of kind and counts.
        return np.frombuffer(value[13:], "<f8").tolist()
    if isinstance(value, str):
        return value.replace(str(folder), PLACE)
    return value if value is None or isinstance(value, bool | int | float | list | dict) else str(value)


def summary(values: NDArray[Any]) -> Any:
    """Shape, type and a digest of all values; where they may differ by machine, also a few and their moments."""
    told: dict[str, Any] = {"shape": list(values.shape), "dtype": str(values.dtype)}
    if values.dtype.kind in "OUST":
        lines = "\n".join(map(str, values.ravel().tolist()))
        return told | {"dtype": "text", "sha256": _sha256(lines.encode())}
    digest = _sha256(np.ascontiguousarray(values).tobytes())
    # Reflectance is computed in floats and then rounded: its last digit may differ as theirs.
    if values.dtype.kind != "f" and values.dtype != np.uint16:
        return told | {"sha256": digest}
    flat = values.ravel().astype(np.float64)
    some = flat[np.linspace(0, len(flat) - 1, min(6, len(flat))).astype(int)]
    return told | {"bytes_sha256": digest, "mean": float(flat.mean()), "std": float(flat.std()), "some": some.tolist()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
