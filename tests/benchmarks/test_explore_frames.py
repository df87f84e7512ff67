"""The benchmark of the explorer's frames, on a small page: its figures, whatever their size."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="the benchmark drives a browser by playwright")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import explore

SAMPLES = 300


def test_the_made_samples_have_places_classes_and_times() -> None:
    table = explore.make_subject(SAMPLES).table
    assert len(set(table.ids.tolist())) == len(table) == SAMPLES
    assert all(table.columns[name].null_count == 0 for name in ("geometry", "label", "time"))
    # Each sample is most like those of its own group: the plane has clusters, as that of an encoder does.
    labels = table.columns["label"].to_numpy()
    assert all((labels[table.nearest(row, 5)["row"]] == labels[row]).all() for row in (0, 100, 200))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="the benchmark needs chromium on the PATH")
def test_a_run_ends_in_one_line_of_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(explore, "SECONDS", 0.3)
    monkeypatch.setattr(sys, "argv", ["explore.py", "--samples", str(SAMPLES), "--rounds", "1"])
    explore.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    named = ["explore_frames", "map_frames", "empty_frames", "frames_vs_empty", "map_frames_vs_empty"]
    assert set(named) <= found.keys()
    assert all(found[name] > 0 for name in named)
    assert found["frames_vs_empty"] == pytest.approx(found["explore_frames"] / found["empty_frames"], abs=2e-3)
    # Nothing can be left out of so few.
    assert found["moving_points"] == found["moving_map_points"] == found["samples"] == SAMPLES
