"""One run of one arm of the curation study, from its recipe to its result."""

from __future__ import annotations

import csv
import json
import math
import time
from pathlib import Path
from typing import Any

from machine import describe
from study_pools import describe_pool, final_pool, make_pool
from study_probe import StudyProbe, read_measurements
from study_settings import DYNAMIC, RESULT, Settings, Study, class_groups
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.config import RunConfig, load_config
from terrasieve.files.writing import write_text
from terrasieve.pretraining import pretrain
from terrasieve.training.loop import make_fabric


def run(study: Study, arm: str, seed: int) -> None:
    """Train and measure one arm with one seed, from where it stopped; write ``result.json`` at the end."""
    settings, folder = study.settings, study.folder(arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    packed = PackedArchive(study.store)
    config = configure(settings, arm, seed, len(packed))
    pool = make_pool(study, packed, arm, seed)
    choosing = time.monotonic() - began
    probe = StudyProbe(study.labelled(), class_groups(packed), settings, folder / "measurements.jsonl")
    fabric = make_fabric(config.train, "cpu")
    fabric.launch()
    pretrain(config, packed, folder, fabric, resume=True, evaluate=probe, subset=pool)
    result = {"arm": arm, "seed": seed, "steps": settings.steps, "on": describe(seed)}
    result |= _times(study, arm, seed, choosing)
    result["wall_seconds"] = round(time.monotonic() - began, 1)
    result["evaluations"] = _evaluations(folder)
    result["pool"] = describe_pool(packed, final_pool(folder, pool, len(packed)))
    write_text(folder / RESULT, json.dumps(result, indent=1))


def configure(settings: Settings, arm: str, seed: int, samples: int) -> RunConfig:
    """The recipe of a run; only the arms whose own model chooses add to it.

    Args:
        settings: Of the study.
        arm: Name of the arm.
        seed: Of the run.
        samples: Size of the whole archive.
    """
    between = settings.steps // settings.evaluations
    values = [
        f"train.steps={settings.steps}",
        f"train.evaluate_steps={between}",
        # The log says the seconds at its own steps, which have to include those of the measurements.
        f"train.log_every={math.gcd(between, 20)}",
        f"train.precision={settings.precision}",
        f"train.seed={seed}",
        *settings.recipe,
    ]
    if arm in DYNAMIC:
        batch = load_config(settings.recipe_file, settings.recipe).train.batch_size
        every = settings.round_steps * batch / round(settings.keep * samples)
        choice = settings.choices[arm]
        curator, *further = choice.curator.split()
        values += [
            f"curation.warmup={settings.warmup_steps * batch / samples}",
            f"curation.every={'null' if arm == 'static-once' else every}",
            f"curation.keep={settings.keep}",
            f"curation.inputs=[{','.join(settings.inputs)}]",
            f"curation.size={choice.size}",
            f"curation.curator.name={curator}",
            *(f"curation.curator.{one}" for one in further),
        ]
    return load_config(settings.recipe_file, values)


# ----------------------------------------------------------------------- results


def _evaluations(folder: Path) -> list[dict[str, Any]]:
    """Each measurement with the step and the training seconds (curation included) at which it was made."""
    with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["knn_accuracy"]]
    measured = read_measurements(folder / "measurements.jsonl")
    return [
        {"step": int(row["step"]), "seconds": round(float(row["seconds"]), 1), **one}
        for row, one in zip(rows, measured, strict=True)
    ]


def _times(study: Study, arm: str, seed: int, choosing: float) -> dict[str, Any]:
    """Seconds of training with its rounds, of the rounds alone, and of what has to be done before."""
    folder = study.folder(arm, seed)
    with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
        seconds = float([row["seconds"] for row in csv.DictReader(file) if row["seconds"]][-1])
    rounds = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "curation").glob("round-*.json"))
    ]
    spent = sum(sum(one["seconds"].values()) for one in rounds)
    before: dict[str, Any] = {}
    if arm == "static":
        first = study.result("uncurated", seed)
        assert first is not None, "static curation waits for its first model"
        spent, before = choosing, {"first_model_seconds": first["seconds"]}
    return {"seconds": round(seconds, 1), "curation_seconds": round(spent, 1), "rounds": len(rounds), **before}
