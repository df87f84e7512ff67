"""The benchmark of large archives, on a small one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import large
import large_store
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.errors import SampleError

ROWS = 1000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_store, "_ROWS", 300)
        large_store.make_store(folder / "store.zarr", ROWS)
    return folder


def test_the_store_is_whole_but_for_its_pixels(folder: Path) -> None:
    archive = PackedArchive(folder / "store.zarr")
    table = archive.table()
    assert len(archive) == len(set(archive.ids.tolist())) == ROWS
    assert table["id"].to_pylist() == archive.ids.tolist()
    assert table["geometry"].null_count == table["time"].null_count == 0
    with pytest.raises(SampleError, match="cannot be mapped"):
        archive.read(0, large_store.KEY)


def test_the_steps_come_one_after_the_other(folder: Path) -> None:
    for step in large.STEPS.values():
        step(folder)()
    chosen = np.load(folder / "pool.npy")
    assert len(chosen) == len(set(chosen.tolist())) == round(0.3 * ROWS)
    assert (folder / "run/curation/round-00001.parquet").exists()
    assert [path.name for path in (folder / "run/checkpoints").iterdir()] == ["step-00000001"]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is what Linux says of a process")
def test_growth_counts_what_was_let_go_again() -> None:
    def work() -> None:
        np.ones(2**25)

    found = large.measure(work)
    assert 0.2 < found["gib"] < 0.4
    assert found["peak"] > found["gib"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is what Linux says of a process")
def test_a_step_is_measured_in_a_process_of_its_own(folder: Path) -> None:
    assert large.measure_apart("open", folder)["s"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="memory is what Linux says of a process")
def test_a_run_ends_in_one_line_of_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Every process of its own would import torch anew.
    monkeypatch.setattr(large, "measure_apart", lambda step, folder: large.measure(large.STEPS[step](folder)))
    monkeypatch.setattr(sys, "argv", ["large.py", "--rows", "500", "--folder", str(tmp_path)])
    large.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found.keys() == {f"{step}_{unit}" for step in large.STEPS for unit in ("s", "gib")} | {"peak_gib"}
    assert found["open_s"] > 0
