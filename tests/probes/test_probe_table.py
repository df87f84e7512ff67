"""The table fits 80 columns and marks the best; JSON and CSV keep every digit."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from terrasieve.probes.results import ProbeRow
from terrasieve.probes.row_tables import read_json, score_tables, write_csv, write_json


def row(model: str, inputs: str, probe: str, accuracy: float) -> ProbeRow:
    return ProbeRow(
        model=model,
        inputs=inputs,
        sensor="s2",
        bands=tuple(inputs.removeprefix("s2:").split("+")),
        probe=probe,
        protocol=f"{probe}: as it was fitted",
        data="data: memory",
        metrics={"accuracy": accuracy, "macro_f1": accuracy - 1 / 30},
        ci95={"accuracy": (accuracy - 0.02, accuracy + 0.02), "macro_f1": (accuracy - 0.06, accuracy)},
        chosen={"C": 1 / 3},
        n_train=45,
        n_test=30,
        is_floor=model in ("random init", "image statistics"),
        data_set="memory",
    )


ROWS = [
    row(model, inputs, probe, accuracy)
    for model, accuracy in [("rs-byol-3-rgb-s1s2", 0.61), ("random init", 0.48), ("image statistics", 0.55)]
    for inputs in ("s2:B03", "s2:B04+B03+B02")
    for probe in ("kNN", "logistic", "MLP")
]


def printed(rows: list[ProbeRow], ansi: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=ansi, color_system="standard" if ansi else None)
    console.print(*score_tables(rows))
    return stream.getvalue()


def test_everything_is_readable_in_eighty_columns() -> None:
    text = printed(ROWS)
    assert max(map(len, text.splitlines())) <= 80
    for shown in ("61.0", "59.0\u201363.0", "57.7", "s2:B04+B03+B02", "kNN: as it was fitted"):
        assert shown in text
    assert text.count("data: memory") == 1
    assert "…" not in text


def test_best_is_bold_and_floors_are_dim() -> None:
    ahead = printed(ROWS, ansi=True)
    assert "\x1b[1m61.0" in ahead
    assert "\x1b[2m48.0" in ahead
    behind = printed([row("rs-byol-1", "s2:B03", "kNN", 0.40), row("random init", "s2:B03", "kNN", 0.48)], ansi=True)
    assert "\x1b[1m48.0" in behind
    assert "\x1b[1m40.0" not in behind


@pytest.mark.parametrize(
    ("data", "simulated", "data_set"),
    [("SIMULATED data: simulated, 5 classes", True, "simulated"), ("data: eurosat EuroSAT_RGB, 10", False, "eurosat")],
)
def test_a_row_of_an_earlier_version_is_read_with_the_fields_that_it_lacks(
    tmp_path: Path, data: str, simulated: bool, data_set: str
) -> None:
    path = tmp_path / "probe.json"
    write_json([one.model_copy(update={"data": data}) for one in ROWS], path)
    new = ("sensor", "bands", "is_floor", "data_set", "simulated")
    old = [{name: value for name, value in one.items() if name not in new} for one in json.loads(path.read_text())]
    path.write_text(json.dumps(old))
    assert read_json(path) == [
        one.model_copy(update={"data": data, "data_set": data_set, "simulated": simulated}) for one in ROWS
    ]


def test_json_and_csv_hold_every_digit_and_the_protocol(tmp_path: Path) -> None:
    write_json(ROWS, tmp_path / "rows.json")
    write_csv(ROWS, tmp_path / "rows.csv")
    loaded = json.loads((tmp_path / "rows.json").read_text())
    with (tmp_path / "rows.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(loaded) == len(lines) == len(ROWS)
    for expected, one, line in zip(ROWS, loaded, lines, strict=True):
        assert one["metrics"]["macro_f1"] == float(line["macro_f1"]) == expected.metrics["macro_f1"]
        assert one["ci95"]["accuracy"] == [float(line["accuracy_low"]), float(line["accuracy_high"])]
        assert one["protocol"] == line["protocol"] == expected.protocol
        assert json.loads(line["chosen"])["C"] == pytest.approx(1 / 3, abs=0)
