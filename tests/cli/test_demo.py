"""The demo end to end on a small simulated archive."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import torch
from rich.console import Console, RenderableType
from torch import nn

from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.demo import end_to_end as demo
from terrasieve.embeddings import read_embeddings, stream
from terrasieve.errors import ConfigError
from terrasieve.models.export import load_encoder
from terrasieve.simulation.sea import SENSOR_KEY

TINY = ["model.name=test_resnet", "train.steps=10", "train.batch_size=16", "train.log_every=2"]


def run(out: Path, data: Path | None = None, *, overwrite: bool = False) -> RenderableType:
    return demo.run_demo(data, out, overwrite=overwrite, seed=0, device="cpu", settings=TINY)


def printed(made: RenderableType) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(made)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def weights(network: nn.Module) -> tuple[float, ...]:
    """What a network is told by: its first few weights, in the precision of inference."""
    first = next(network.parameters(), torch.empty(0))
    return tuple(first.detach().bfloat16().flatten()[:16].tolist())


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[tuple[float, ...], str, int]]:
    """How often each sample was embedded once the training was over, by network, input and index."""
    counted: Counter[tuple[tuple[float, ...], str, int]] = Counter()
    embed_batch, pretrain = stream.embed_batch, demo.pretrain

    def spy(frozen: Any, batch: Any, inputs: Any, *rest: Any) -> Any:
        for network, one in zip(frozen, inputs, strict=True):
            counted.update((weights(network), str(one), int(index)) for index in batch.indices)
        return embed_batch(frozen, batch, inputs, *rest)

    def trained(*args: Any, **named: Any) -> Any:
        pretrain(*args, **named)
        counted.clear()

    monkeypatch.setattr(stream, "embed_batch", spy)
    monkeypatch.setattr(demo, "pretrain", trained)
    return counted


def of_the_trained(passes: Counter[tuple[tuple[float, ...], str, int]], run: Path) -> Counter[tuple[str, int]]:
    """How often the trained encoder of a run embedded each sample, by input and index."""
    own = weights(load_encoder(run)[0])
    return Counter({key[1:]: times for key, times in passes.items() if key[0] == own})


@pytest.mark.slow
def test_it_packs_trains_embeds_and_probes_simulated_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: Counter[tuple[tuple[float, ...], str, int]]
) -> None:
    monkeypatch.setattr(demo, "_SIMULATED", 160)
    out = tmp_path / "run"
    closing = printed(run(out))
    assert "SIMULATED" in closing
    assert f"Report: {out / 'report.html'}" in "".join(closing.split("\n"))
    assert all(column in closing for column in ("rs-lejepa-1-small", "random init", "image statistics"))
    rows = json.loads((out / "probe.json").read_text())
    assert {row["model"] for row in rows} == {"rs-lejepa-1-small", "random init", "image statistics"}
    assert len(geopandas.read_parquet(out / "embeddings.parquet")) == 80
    inputs = ["s2:B04", "s2:B03", "s2:B02", "s1:VV", "s1:VH"]
    assert of_the_trained(passes, out) == Counter((shown, index) for shown in inputs for index in range(80))
    assert [str(one) for one in read_embeddings(out / "embeddings.parquet").inputs] == ["s2:B04", "s2:B03", "s2:B02"]
    assert "SIMULATED" in (out / "report.html").read_text()
    assert not [path.name for path in out.iterdir() if path.suffix in (".png", ".md")]
    with pytest.raises(ConfigError, match="--overwrite"):
        run(out)
    demo._clear(out, overwrite=True)
    assert not any(out.iterdir())


@pytest.mark.slow
def test_it_shows_the_rounds_of_a_run_that_curates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_SIMULATED", 160)
    settings = [*TINY[:1], *TINY[2:], "method.prototypes=32", "train.steps=16", "curation.curator.levels=[12]"]
    made = demo.run_demo(
        None, tmp_path, overwrite=True, seed=0, device="cpu", method="dino", curate="dynamic", settings=settings
    )
    rounds = sorted(path.name for path in (tmp_path / "curation").glob("*.json"))
    # After 5 steps of warm-up, and then after each pass over a pool of 3 batches.
    assert rounds == [f"round-0000{number}.json" for number in (1, 2, 3, 4)]
    said = capsys.readouterr().err
    assert "Curation round 1 before step 5: 48 of 160 samples" in " ".join(said.split())
    last = next(line.split() for line in printed(made).splitlines() if line.split()[:1] == ["4"])
    assert last[:5] == ["4", "14", "48", "of", "160"]


@pytest.mark.slow
def test_the_ocean_is_sieved_and_probed_for_class_waves_and_wind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: Counter[tuple[tuple[float, ...], str, int]]
) -> None:
    monkeypatch.setattr(demo, "_OCEAN", 240)
    settings = [*TINY[:1], "train.batch_size=32", "train.steps=16", "train.evaluate_steps=8"]
    settings += ["curation.warmup=0.5", "curation.every=1"]
    made = demo.run_ocean_demo(
        tmp_path, overwrite=True, seed=0, device="cpu", settings=[*settings, "curation.curator.levels=[12]"]
    )
    closing = printed(made)
    assert "SIMULATED" in closing
    # Waves and wind are known of the same samples, fewer than those of which the class is known.
    known = np.flatnonzero(PackedArchive(tmp_path / "labelled.zarr").table()["swh"].is_valid().to_numpy())
    labelled = len(PackedArchive(tmp_path / "labelled.zarr"))
    once = Counter((f"{SENSOR_KEY}:VV", index) for index in range(labelled))
    assert 0 < len(known) < labelled
    again = Counter((f"{SENSOR_KEY}:VV", int(index)) for index in known)
    # Vectors of the archive itself are what the map shows.
    learnt = PackedArchive(tmp_path / "packed.zarr")
    mapped = Counter((f"{SENSOR_KEY}:VV", index) for index in range(len(learnt)))
    assert of_the_trained(passes, tmp_path) == once + again + mapped
    assert set(geopandas.read_parquet(tmp_path / "embeddings.parquet")["id"]) == set(learnt.ids)
    page = (tmp_path / "report.html").read_text()
    assert '"name": "kept"' in page
    assert '"name": "coast"' in page
    rows = json.loads((tmp_path / "probe.json").read_text())
    measured = {(row["target"], row["probe"], row["model"]) for row in rows}
    models = ("oceansar-lejepa-small", "random init", "image statistics")
    linear = {"label": "logistic", "swh": "ridge", "wind_speed": "ridge"}
    assert measured == {
        (target, probe, m) for target, name in linear.items() for probe in ("kNN", name) for m in models
    }
    waves = [row for row in rows if row["target"] == "swh"]
    assert all({"rmse", "bias", "scatter_index"} <= row["metrics"].keys() for row in waves)
    assert all("SIMULATED" in row["data"] for row in rows)
    assert all(said in closing for said in ("ridge of swh, RMSE", "ridge of wind_speed, RMSE", "Rounds of curation"))
    assert (tmp_path / "report.html").read_text().count("SIMULATED") > 0
    assert list((tmp_path / "curation").glob("round-*.parquet"))


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="not a demo"):
        run(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_a_folder_without_the_scenes_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"la_texas_pairs does not exist.*--data"):
        run(tmp_path / "run", tmp_path)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_thinned_archive_keeps_the_published_split(data_dir: Path, seed: int) -> None:
    real = demo.real_samples(data_dir, seed)
    splits = real.labelled.table()["split"].to_pylist()
    assert {name: splits.count(name) for name in set(splits)} == {"train": 1500, "val": 500, "test": 1000}
