"""JSON from elsewhere: nesting without end is one clear line of whoever reads it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import save_file

import terrasieve
from terrasieve.archive.layouts.bigearthnet import BigEarthNetSpec
from terrasieve.archive.selection import read_selection
from terrasieve.archive.stac.items import read_items
from terrasieve.baselines.hugging_face import read_config, timm_network
from terrasieve.curation.hierarchy import HierarchicalKMeans
from terrasieve.embeddings.embedding_file import Parts, embedding_collection
from terrasieve.embeddings.table import read_embeddings
from terrasieve.embeddings.vectors import open_vectors
from terrasieve.errors import TerrasieveError
from terrasieve.explain.record import read_explanation
from terrasieve.models.export import read_card
from terrasieve.probes.row_tables import read_json as read_rows
from terrasieve.probes.statements import read_comparisons
from terrasieve.runs import RunFolder
from terrasieve.schema import MOST_LEVELS, NestingError, parse_json, read_json
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec
from terrasieve.training.checkpoints import read_facts

DEEP = '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}"


def _parquet(path: Path, key: str, **columns: Any) -> Path:
    table = pa.table({"id": ["a"], "index": [0], "embedding": pa.array([[1.0]], pa.list_(pa.float32())), **columns})
    pq.write_table(table.replace_schema_metadata({key: DEEP}), path)
    return path


def _named(folder: Path, name: str) -> Path:
    (folder / name).write_text(DEEP)
    return folder


def _tree(folder: Path) -> Path:
    save_file({}, folder / "tree.safetensors", {"tree": DEEP})
    return folder / "tree.safetensors"


def _patches(folder: Path) -> Path:
    name = "S2A_MSIL2A_20170717T113321_29_83"
    (folder / "BigEarthNet-S2" / name).mkdir(parents=True)
    _named(folder / "BigEarthNet-S2" / name, f"{name}_labels_metadata.json")
    return folder


READERS: dict[str, Callable[[Path], Any]] = {
    "selection": lambda folder: read_selection(
        _parquet(folder / "x.parquet", "selection"), SimulatedArchive(SimulatedSpec(samples=1, size=32))
    ),
    "embeddings": lambda folder: read_embeddings(_parquet(folder / "x.parquet", "emb")),
    "vectors": lambda folder: open_vectors(_parquet(folder / "x.parquet", "emb"), folder),
    "embeddings' collection": lambda folder: embedding_collection(_parquet(folder / "x.parquet", "emb")),
    "embeddings' parts": lambda folder: _unfinished(folder),
    "tree": lambda folder: HierarchicalKMeans.load(_tree(folder)),
    "checkpoint": lambda folder: read_facts(_named(folder, "state.json")),
    "encoder's card": lambda folder: read_card(_named(folder, "encoder.json") / "encoder.json"),
    "network of Hugging Face": lambda folder: read_config(_named(folder, "config.json")),
    "network of timm": lambda folder: timm_network(_named(folder, "config.json")),
    "explanation": lambda folder: read_explanation(_named(folder, "explanation.json")),
    "comparisons": lambda folder: read_comparisons(_named(folder, "x.json") / "x.json"),
    "probe rows": lambda folder: read_rows(_named(folder, "x.json") / "x.json"),
    "rounds": lambda folder: _rounds(folder),
    "items": lambda folder: read_items(_named(folder, "x.json") / "x.json"),
    "labels": lambda folder: BigEarthNetSpec(root=_patches(folder)).open(),
}


def _unfinished(folder: Path) -> Any:
    target = folder / "x.parquet"
    place = Parts(target).folder
    place.mkdir(parents=True)
    _named(place, "provenance.json")
    return Parts.resume(target, {})


def _rounds(folder: Path) -> Any:
    run = RunFolder(folder)
    run.round_record(1).parent.mkdir(parents=True)
    run.round_record(1).write_text(DEEP)
    return run.rounds()


@pytest.mark.parametrize("kind", READERS)
def test_whoever_reads_it_says_so_in_one_error(tmp_path: Path, kind: str) -> None:
    with pytest.raises(TerrasieveError) as raised:
        READERS[kind](tmp_path)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, DEEP, "[" * 66 + "]" * 66])
def test_nesting_without_end_is_refused(text: str) -> None:
    with pytest.raises(NestingError, match="more than 64 levels"):
        parse_json(text)


@pytest.mark.parametrize("value", ["[" * MOST_LEVELS + "]" * MOST_LEVELS, '{"a": "[[[[["}', "3", "null", "[]"])
def test_what_is_flat_enough_is_read(value: str) -> None:
    assert parse_json(value) == parse_json(value.encode())


def test_a_file_without_content_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.json").open("wb") as out:
        out.truncate(60 * 10**9)
    with pytest.raises(ValueError, match="it has 60,000,000,000 bytes"):
        read_json(tmp_path / "x.json")


def test_json_and_yaml_are_parsed_in_one_place_alone() -> None:
    root = Path(terrasieve.__file__).parent
    parsers = re.compile(r"\bjson\.loads?\(|\byaml\.(?!YAMLError|safe_dump)\w+")
    found = {path.name for path in root.rglob("*.py") if parsers.search(path.read_text(encoding="utf-8"))}
    assert found == {"schema.py"}
