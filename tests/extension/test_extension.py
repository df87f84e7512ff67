"""What another distribution registers is used by every command, as if it were ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from terrasieve.archive.opening import open_archive
from terrasieve.errors import ConfigError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def indexed(terrasieve: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with catalogues of the data set, named in four ways, and what was said."""
    folder = tmp_path_factory.mktemp("indexed")
    (folder / "field.yaml").write_text(f"layout: fieldwork\nroot: {data}\n", encoding="utf-8")
    said = terrasieve(
        [
            ["index", data, "--out", "recognised.parquet"],
            ["index", data, "--layout", "fieldwork", "--out", "option.parquet"],
            ["index", f"fieldwork:{data}", "--out", "prefix.parquet"],
            ["index", "field.yaml", "--out", "yaml.parquet"],
            ["pack", "recognised.parquet", "--out", "packed.zarr"],
            ["info", "packed.zarr"],
        ],
        folder,
    )
    return folder, said


def test_a_layout_is_recognised_and_named(indexed: tuple[Path, str]) -> None:
    folder, said = indexed
    assert "Layout: Fieldwork (fieldwork), 90% sure: samples.csv beside a folder npy." in said
    tables = [pq.read_table(folder / f"{name}.parquet") for name in ("recognised", "option", "prefix", "yaml")]
    assert [len(table) for table in tables] == [60] * 4
    assert all(table.schema.metadata[b"terrasieve"] == tables[0].schema.metadata[b"terrasieve"] for table in tables)
    assert json.loads(tables[0].schema.metadata[b"terrasieve"])["spec"]["layout"] == "fieldwork"


def test_a_plugin_that_cannot_be_used_is_named_and_left_out(indexed: tuple[Path, str]) -> None:
    _, said = indexed
    warnings = sorted(line for line in said.splitlines() if line.startswith("Warning:"))
    assert warnings == [
        "Warning: layout 'eurosat' of broken 2.0 is left out: terrasieve registers that name already; rename it, or "
        "uninstall one.",
        "Warning: layout 'lost' of broken 2.0 is left out: ModuleNotFoundError: No module named 'nowhere'; update or "
        "uninstall broken 2.0.",
    ]


def test_without_the_plugin_the_layout_is_named(indexed: tuple[Path, str]) -> None:
    folder, _ = indexed
    with pytest.raises(ConfigError, match=r"recognised\.parquet has layout 'fieldwork'\. Known: .*eurosat"):
        open_archive(folder / "recognised.parquet")


def test_a_catalogue_opens_again_and_everything_follows(terrasieve: Any, indexed: tuple[Path, str]) -> None:
    folder, _ = indexed
    said = terrasieve(
        [
            ["info", "recognised.parquet"],
            ["recipes"],
            ["pretrain", "fieldwork-small", "--data", "recognised.parquet", "--out", "run"],
            ["embed", "run", "--data", "recognised.parquet", "--input", "s2:B03", "--out", "vectors.parquet"],
            ["curate", "vectors.parquet", "-o", "chosen.parquet", "--curator", "northern", "--set", "strength=1"],
            ["probe", "run", "--data", "recognised.parquet", "--probe", "Centroid", "--input", "s2:B03"],
            ["report", "run", "--out", "report.html"],
            ["card", "run", "--out", "README.md"],
        ],
        folder,
    )
    assert "fieldwork-small" in said
    run = yaml.safe_load((folder / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert run["method"] == {"name": "simsiam", "hidden": 16, "output": 16}
    assert run["curation"]["curator"] == {"name": "northern", "strength": 3.0}
    (record,) = (folder / "run" / "curation").glob("round-*.json")
    assert '"northern"' in record.read_text(encoding="utf-8")
    assert len(pq.read_table(folder / "vectors.parquet")) == 60
    assert len(pq.read_table(folder / "chosen.parquet")) == 6
    rows = json.loads((folder / "run" / "probe.json").read_text(encoding="utf-8"))
    probed = [row for row in (rows["rows"] if isinstance(rows, dict) else rows) if row["model"] == "fieldwork-small"]
    assert [row["probe"] for row in probed] == ["centroid"]
    assert probed[0]["metrics"]["accuracy"] > 0.5
    assert "centroid" in (folder / "report.html").read_text(encoding="utf-8")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "@misc{chen2021simsiam," in card
    assert "@misc{fieldwork," in card
