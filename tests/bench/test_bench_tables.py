"""A benchmark fills every cell once, goes on after a stop, and writes the papers' forms with what they printed."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from terrasieve.archive.protocol import Archive
from terrasieve.bench import running
from terrasieve.bench.cells import run_cells
from terrasieve.bench.comparing import comparisons
from terrasieve.bench.forms import bands_by_models, models_by_targets
from terrasieve.bench.planning import BenchPlan, make_plan
from terrasieve.bench.published import OCEANSAR, RS_BYOL, lines_for
from terrasieve.bench.running import run_plan
from terrasieve.bench.suites import oceansar, rs_byol
from terrasieve.errors import ArchiveError, BandError, ConfigError
from terrasieve.probes.results import ProbeRow

CPU = torch.device("cpu")
LINES = ["s2:B04", "s1:VV", "s2:rgb"]


def plan_of(labelled: Archive, run_folders: dict[str, Path], scratch: int = 0) -> BenchPlan:
    named = [f"one={run_folders['one-0']}", f"one={run_folders['one-1']}", str(run_folders["three"])]
    return make_plan(labelled, named, ["again=random:test_resnet"], LINES, ["knn"], None, scratch, CPU)


@pytest.mark.slow
def test_a_table_of_bands_by_models(labelled: Archive, run_folders: dict[str, Path], tmp_path: Path) -> None:
    result = rs_byol(plan_of(labelled, run_folders, scratch=1), tmp_path, CPU)
    (table,) = result.tables
    assert table.columns == ("input", "one", "three", "again", "random init", "image statistics", "from scratch")
    assert [line[0].text for line in table.rows] == ["s2:B04", "s1:VV", "s2:B04,B03,B02"]
    marks = [[cell.mark for cell in line[1:]] for line in table.rows]
    assert marks == [["", "+", "+", "", "", "*"]] * 2 + [["", "", "", "", "", "*"]]
    assert "mean of 2 seeds" in table.title
    rows = json.loads((tmp_path / "probe.json").read_text())
    # Each line: seeds 0 and 1 of one, of the untrained network, of scratch and of what has no seed; three has one seed.
    assert len(rows) == 3 * (2 + 1 + 2 + 2 + 2 + 2)
    with (tmp_path / "table.csv").open() as file:
        written = list(csv.DictReader(file))
    assert {line["source"] for line in written} == {"this run"}
    first = rows[0]
    assert float(written[0]["value"]) == first["metrics"]["accuracy"]
    assert [path.name for path in result.files] == ["table.md", "table.csv", "table.tex", "report.html"]
    assert all(path.stat().st_size > 0 for path in result.files)
    words = (tmp_path / "table.md").read_text()
    assert "p = " in words
    assert "over 3 bands" in words


@pytest.mark.slow
def test_cells_are_kept_and_measured_again_only_when_something_changed(
    labelled: Archive, run_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    real = running.compare

    def spy(candidates: Any, inputs: Any, task: Any) -> Any:
        measured.append(f"{candidates[0].name} {inputs[0]}")
        if len(measured) == 3:
            raise KeyboardInterrupt
        return real(candidates, inputs, task)

    monkeypatch.setattr(running, "compare", spy)
    plan = replace(plan_of(labelled, run_folders), inputs=plan_of(labelled, run_folders).inputs[:1])
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, tmp_path, CPU)
    assert len(list((tmp_path / "cells").glob("*.json"))) == 2
    first = run_plan(plan, tmp_path, CPU)
    assert len(measured) == 3 + 5  # the cell that was cut off comes again, the two before it do not
    again = run_plan(plan, tmp_path, CPU)
    assert len(measured) == 8
    assert [one.row for one in again] == [one.row for one in first]
    assert all(np.array_equal(a.predicted, b.predicted) for a, b in zip(again, first, strict=True))
    run_plan(replace(plan, settings=plan.settings.model_copy(update={"size": 16})), tmp_path, CPU)
    assert len(measured) == 8 + 7
    (tmp_path / "pixels.tif").write_bytes(b"new")
    monkeypatch.setattr(type(labelled), "files", lambda *_: [tmp_path / "pixels.tif"])
    run_plan(plan, tmp_path, CPU)
    assert len(measured) == 8 + 7 + 7


def test_a_damaged_cell_is_named(labelled: Archive, run_folders: dict[str, Path], tmp_path: Path) -> None:
    plan = replace(plan_of(labelled, run_folders), entries=plan_of(labelled, run_folders).entries[:1])
    run_plan(plan, tmp_path, CPU)
    cell = next((tmp_path / "cells").glob("*.json"))
    cell.write_text(cell.read_text()[:50])
    with pytest.raises(ArchiveError, match=f"{cell.name} is damaged.*Remove it"):
        run_plan(plan, tmp_path, CPU)
    assert run_cells([], tmp_path / "cells") == []


def test_a_table_of_models_by_targets(labelled: Archive, run_folders: dict[str, Path], tmp_path: Path) -> None:
    plan = make_plan(labelled, [str(run_folders["one-0"])], [], ["s1:VV"], ["knn"], None, 0, CPU)
    result = oceansar(plan, ["label"], tmp_path, CPU)
    assert result.tables[0].columns == ("model", "label, kNN: accuracy in per cent")
    assert [line[0].text for line in result.tables[0].rows] == [
        "one, s1:VV",
        "random init, s1:VV",
        "image statistics, s1:VV",
    ]
    assert "83.6" in result.tables[0].notes[0]
    assert "0.63" in result.tables[0].notes[0]


def row(model: str, bands: str, value: float, probe: str = "MLP", seed: int = 0) -> ProbeRow:
    return ProbeRow(
        model=model,
        inputs=bands,
        sensor=bands.partition(":")[0],
        bands=tuple(bands.partition(":")[2].split("+")),
        probe=probe,
        protocol="p",
        data="d",
        metrics={"macro_f1": value},
        ci95={"macro_f1": (value - 0.1, value + 0.1)},
        chosen={},
        n_train=1,
        n_test=1,
        seed=seed,
    )


def test_published_numbers_stand_beside_ours_and_say_so() -> None:
    table = bands_by_models([row("ours", "s2:B04+B03+B02", 0.8)], "MLP", "macro_f1", "eurosat")
    assert table.columns[-1] == "published F1 (Jain et al. 2022, Table II)"
    assert "EuroSAT7K RGB: scratch 80.0" in table.rows[0][-1].text
    assert "RS-BYOL-3 S1S2 88.0" in table.rows[0][-1].text
    assert any("not a comparison" in note for note in table.notes)
    assert len(lines_for("eurosat", ["B02", "B03", "B04"])) == 2
    assert not lines_for("eurosat", ["B04"])


def test_what_was_published_is_what_the_paper_printed() -> None:
    scratch = [line.values["scratch"] for line in RS_BYOL]
    assert scratch == [0.80, 0.86, 0.92, 0.91, 0.66, 0.69, 0.52, 0.91]
    assert [line.values["OceanSAR-1 ResNet50"] for line in OCEANSAR] == [0.755, 0.75, 1.62]


def test_models_are_compared_over_the_conditions_that_all_share() -> None:
    values = {"ours": (0.8, 0.7, 0.9), "floor": (0.5, 0.45, 0.62), "scratch": (0.6, 0.6, 0.6)}
    bands = ("s2:B02", "s2:B03", "s2:B04")
    rows = [
        row(model, band, value + 0.01 * seed, "end-to-end" if model == "scratch" else "MLP", seed)
        for model, line in values.items()
        for band, value in zip(bands, line, strict=True)
        for seed in (0, 1)
    ]
    rows.append(row("ours", "s2:B08", 0.1))
    found = comparisons(rows, "MLP", "macro_f1", ["ours"])
    assert [(one.over, one.n) for one in found] == [("bands", 3)] * 2 + [("seeds", 2)] * 2
    floor = next(one for one in found if {one.name_a, one.name_b} == {"ours", "floor"})
    assert abs(floor.difference) == pytest.approx(np.mean([0.3, 0.25, 0.28]))
    assert floor.t is not None
    assert floor.t.family == 2


def test_what_cannot_be_benched_is_named(labelled: Archive, run_folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="No model is named"):
        make_plan(labelled, [], [], LINES, [], None, 0, CPU)
    with pytest.raises(ConfigError, match="different backbones; write NAME=FOLDER"):
        make_plan(labelled, [f"a={run_folders['one-0']}", f"a={run_folders['three']}"], [], LINES, [], None, 0, CPU)
    with pytest.raises(BandError, match="takes 5 bands, and none of the inputs"):
        make_plan(labelled, [str(run_folders["one-0"])], ["random:test_resnet:5"], LINES, [], None, 0, CPU)


def test_the_models_by_targets_form_takes_each_target_by_its_own_metric() -> None:
    wave = row("ours", "s1:VV", 0.5, "ridge").model_copy(
        update={"target": "swh", "metrics": {"rmse": 0.63}, "ci95": {"rmse": (0.6, 0.7)}}
    )
    kind = row("ours", "s1:VV", 0.5, "kNN").model_copy(
        update={"metrics": {"accuracy": 0.8}, "ci95": {"accuracy": (0.7, 0.9)}}
    )
    table = models_by_targets([kind, wave])
    assert table.columns == ("model", "label, kNN: accuracy in per cent", "swh, ridge: RMSE")
    (cells,) = table.rows
    assert [str(cell) for cell in cells] == ["ours, s1:VV", "80.0 (70.0\u201390.0)", "0.63 (0.6\u20130.7)"]
