"""Run folders made for tests, whole or in parts."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from PIL import Image

from terrasieve.explain.record import (
    BandAttribution,
    Explanation,
    Neighbour,
    NeighbourGallery,
    Point,
    Projection,
    Query,
    Saliency,
    SaliencyGallery,
    SaliencyMap,
    Thumbnail,
    write_explanation,
)
from terrasieve.explain.training_views import ShownPicture, ShownSample, TrainingViews, write_training_views
from terrasieve.models.backbone import BackboneSpec
from terrasieve.models.export import EncoderCard
from terrasieve.probes.metrics import bootstrap_intervals, classification_metrics, confusion_matrix
from terrasieve.probes.results import ProbeRow
from terrasieve.probes.row_tables import write_json
from terrasieve.probes.significance import Comparison, compare_all
from terrasieve.probes.statements import write_comparisons
from terrasieve.runs import RunFolder
from terrasieve.sensors import SENSORS, BandStatistics

CLASSES = ("Forest", "River", "SeaLake")
INPUTS = ("s2:B04", "s2:B04+B03+B02")
FLOORS = ("random init", "image statistics")
PROTOCOL = "kNN v1: cosine similarity, k = 20"


def probe_row(model: str, inputs: str, share: float, n: int = 300, **changes: Any) -> tuple[ProbeRow, np.ndarray]:
    """A row of a model that gets about ``share`` of the samples right, and what it said of each."""
    rng = np.random.default_rng(sum(map(ord, model + inputs)))
    truth = np.arange(n) % len(CLASSES)
    predicted = np.where(rng.uniform(size=n) < share, truth, (truth + 1) % len(CLASSES))
    confusion = confusion_matrix(truth, predicted)
    values: dict[str, Any] = {
        "model": model,
        "inputs": inputs,
        "sensor": inputs.partition(":")[0],
        "bands": tuple(inputs.partition(":")[2].split("+")),
        "probe": "kNN",
        "protocol": PROTOCOL,
        "data": "data: eurosat, 3 classes",
        "metrics": classification_metrics(confusion),
        "ci95": bootstrap_intervals(confusion),
        "chosen": {},
        "n_train": 500,
        "n_test": n,
        "classes": CLASSES,
        "confusion": tuple(map(tuple, confusion.tolist())),
        "is_floor": model in FLOORS,
        "data_set": "eurosat",
    }
    return ProbeRow(**{**values, **changes}), predicted


def comparison_rows(trained: float = 0.85, **changes: Any) -> list[ProbeRow]:
    shares = {"rs-byol-1": trained, "random init": 0.6, "image statistics": 0.7}
    return [probe_row(model, inputs, share, **changes)[0] for model, share in shares.items() for inputs in INPUTS]


def regression_rows() -> list[ProbeRow]:
    values = {"rs-byol-1": 0.62, "random init": 0.74}
    return [
        ProbeRow(
            model=model,
            inputs="s1:VV",
            sensor="s1",
            bands=("VV",),
            probe="ridge",
            protocol="ridge v1",
            data="data: waves",
            metrics={"rmse": rmse, "mae": rmse * 0.8, "bias": -0.021, "scatter_index": 0.1534, "r2": 0.812},
            ci95={"rmse": (rmse - 0.05, rmse + 0.05), "bias": (-0.05, 0.01)},
            chosen={"alpha": 1.0},
            n_train=500,
            n_test=400,
            target="swh",
            task="regression",
            is_floor=model in FLOORS,
            data_set="waves",
        )
        for model, rmse in values.items()
    ]


def picture(value: int = 128, size: int = 8) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, dtype=np.uint8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumbnail(position: int, label: str | None = None, name: str | None = None) -> Thumbnail:
    known = CLASSES[position % len(CLASSES)] if label is None else label
    return Thumbnail(id=name or f"{known}_{position}", label=known, picture=picture(20 + position))


def explanation(**changes: Any) -> Explanation:
    rng = np.random.default_rng(1)
    points = tuple(
        Point(x=float(x), y=float(y), sample=thumbnail(i)) for i, (x, y) in enumerate(rng.normal(size=(30, 2)))
    )
    maps = (
        SaliencyMap(method="FullGrad", picture=picture(90), completeness_error=3e-7),
        SaliencyMap(method="Grad-CAM", picture=picture(95)),
    )
    items = tuple(
        Saliency(sample=thumbnail(i), predicted=CLASSES[0], probability=0.71, maps=maps) for i in range(len(CLASSES))
    )
    near = tuple(Neighbour(sample=thumbnail(i), similarity=0.9 - 0.1 * i) for i in range(3))
    values: dict[str, Any] = {
        "model": "rs-byol-1",
        "data": "data: eurosat",
        "projection": Projection(method="t-SNE: perplexity 30, seed 0.", inputs="s2:B04", points=points),
        "saliency": SaliencyGallery(method="FullGrad of the logistic probe.", inputs="s2:B04", items=items),
        "neighbours": NeighbourGallery(
            method="Cosine.",
            inputs="s2:B04",
            queries=tuple(Query(sample=thumbnail(i), neighbours=near) for i in (0, 1)),
        ),
        "bands": BandAttribution(
            method="Permutation.",
            meaning="Loss of recall",
            bands=("s2:B04", "s2:B03"),
            classes=CLASSES,
            shares=((0.41, 0.02), (0.1, 0.2), (0.0, 0.05)),
        ),
        "notes": ("No attention maps: resnet18 has no attention.",),
    }
    return Explanation(**{**values, **changes})


def write_log(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns), *(",".join(str(row.get(name, "")) for name in columns) for row in rows)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def log_rows(**last: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "step": step,
            "epoch": step / 50,
            "loss": 4 - step / 100,
            "learning_rate": 0.2 * (1 - step / 101),
            "images_per_s": 50 + step % 3,
            "feature_std": 0.5,
            "effective_rank": 80 - step / 10,
            "seconds": 2.5 * step,
            "teacher_entropy": 5.0,
        }
        for step in range(10, 101, 10)
    ]
    rows[4]["knn_accuracy"] = 0.561
    rows[-1] |= {"knn_accuracy": 0.586} | last
    return rows


def encoder_card(**provenance: Any) -> EncoderCard:
    sensor = SENSORS["s2-l2a"].select("B04", "B03")
    data = {"layout": "eurosat", "root": "/somewhere/eurosat_rgb", "simulated": False, "fingerprint": "66c2"}
    statistics = tuple(
        BandStatistics(band=band, count=9, mean=1234.5, std=321.25, minimum=0, maximum=9000) for band in sensor.names
    )
    return EncoderCard(
        backbone=BackboneSpec(name="resnet18", channels=1),
        method="byol",
        recipe="rs-byol-1",
        image_size=32,
        sensors={"s2": sensor},
        view_bands=(("s2:B04", "s2:B03"), ("s2:B04", "s2:B03")),
        statistics={"s2": statistics},
        provenance={"terrasieve": "0.1.0", "data": data, "step": 100, "samples": 16000, **provenance},
        weights_sha256="ab" * 32,
    )


def write_encoder(folder: Path, card: EncoderCard) -> None:
    (folder / "encoder").mkdir(parents=True)
    (folder / "encoder" / "encoder.json").write_text(card.model_dump_json(), encoding="utf-8")


def write_round(folder: Path, number: int, ids: Sequence[str], classes: bool = True) -> None:
    """A round that keeps the samples ``ids`` of 100."""
    (folder / "curation").mkdir(parents=True, exist_ok=True)
    counts = {"Forest": 80, "River": 20}
    balance = {"counts": counts, "entropy": 0.7}
    after = {"counts": {"Forest": 6, "River": 4}, "entropy": 0.97}
    record = {
        "round": number,
        "step": 40 * number,
        "candidates": 100,
        "pool": len(ids),
        "inputs": ["s2:B04"],
        "seconds": {"embed": 2.0, "choose": 0.5},
        "diagnostics": {
            "n": 100,
            "kept": len(ids),
            "occupancy_before": {"groups": 3, "effective": 1.75, "largest": 0.7},
            "occupancy_after": {"groups": 3, "effective": 2.9, "largest": 0.4},
            "nearest_neighbour": 0.1,
            "coverage_mean": 0.056,
            "coverage_p95": 0.1,
            "compared": len(ids),
            "turnover": None if number == 1 else 0.25,
            "classes_before": balance if classes else None,
            "classes_after": after if classes else None,
        },
        "selection": {},
        "group_sizes": [10, 70, 20],
        "quotas": [4, 3, 3],
    }
    stem = folder / "curation" / f"round-{number:05d}"
    stem.with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
    pq.write_table(pa.table({"index": range(len(ids)), "id": list(ids)}), stem.with_suffix(".parquet"))


def write_views(folder: Path) -> None:
    """Two samples that two sensors saw, one of them with two views."""
    seen = tuple(
        ShownPicture(name=key, bands=(f"{key}:{band}",), picture=picture())
        for key, band in (("s2", "B04"), ("s1", "VV"))
    )
    views = (
        ShownPicture(name="optical", bands=("s2:B03",), picture=picture(60)),
        ShownPicture(name="radar", bands=("s1:VH",), picture=picture(70)),
    )
    sheet = tuple(ShownSample(id=f"tile-{i}", sensors=seen) for i in (0, 1))
    viewed = (ShownSample(id="tile-0", sensors=seen, views=views),)
    write_training_views(TrainingViews(samples=1600, sheet=sheet, viewed=viewed), folder)


def write_embeddings(
    folder: Path, ids: Sequence[str], placed: int | None = None, labels: Sequence[str] | None = None
) -> None:
    """Samples along the 48th parallel; those from ``placed`` on have no place."""
    shapes = [shapely.box(0.1 * i, 48, 0.1 * i + 0.02, 48.02).wkb for i in range(len(ids))]
    geometry = [shape if placed is None or i < placed else None for i, shape in enumerate(shapes)]
    labels = labels or [CLASSES[i % len(CLASSES)] for i in range(len(ids))]
    table = pa.table({"id": list(ids), "geometry": pa.array(geometry, pa.binary()), "label": labels})
    pq.write_table(table, folder / "embeddings.parquet")


def write_predictions(folder: Path, rows: Sequence[ProbeRow], n: int = 300) -> None:
    """What :func:`probe_row` drew for these rows."""
    truth = [CLASSES[i % len(CLASSES)] for i in range(n)]
    tables = []
    for row in rows:
        share = {"rs-byol-1": 0.85, "random init": 0.6, "image statistics": 0.7}[row.model]
        codes = probe_row(row.model, row.inputs, share, n)[1]
        facts = {"model": row.model, "inputs": row.inputs, "probe": row.probe, "target": row.target}
        columns: dict[str, Any] = {name: [value] * n for name, value in facts.items()}
        columns |= {
            "train_share": [row.train_share] * n,
            "seed": [row.seed] * n,
            "id": [f"t{i}" for i in range(n)],
            "truth": truth,
        }
        tables.append(pa.table(columns | {"predicted": [CLASSES[code] for code in codes]}))
    pq.write_table(pa.concat_tables(tables), RunFolder(folder).predictions)


def paired(second: str = "random init") -> Comparison:
    """The trained model above another over ten bands, as one of two comparisons."""
    values = {"rs-byol-1": [0.81 + 0.01 * (i % 3) for i in range(10)], second: [0.71] * 10, "other": [0.8] * 10}
    return compare_all(values, "rs-byol-1", "bands", "points", 100.0)[0]


def write_run(folder: Path, trained: float = 0.85) -> Path:
    """A run with every part that the page knows."""
    folder.mkdir(parents=True)
    ids = [f"s{i}" for i in range(100)]
    config = "name: rs-byol-1\ntrain:\n  steps: 100\n  seed: 7\n  precision: '32'\n  collapse_std: 0.02\n"
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    write_log(folder, log_rows())
    write_encoder(folder, encoder_card())
    write_json([*comparison_rows(trained), *regression_rows()], folder / "probe.json")
    write_explanation(explanation(), folder)
    write_comparisons([paired()], RunFolder(folder).comparisons)
    write_views(folder)
    write_round(folder, 1, ids[:10])
    write_round(folder, 2, ids[5:15])
    write_embeddings(folder, ids)
    return folder
