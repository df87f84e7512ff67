"""The arms of the curation study: which pool each of them trains on, and one run of one of them."""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from longtail import LongTailArchive, LongTailSpec
from study_probe import Split, StudyProbe, read_measurements
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive
from terrasieve.config import RunConfig, load_config, load_curator
from terrasieve.curation.diagnostics import diagnose
from terrasieve.curation.sampling import water_fill
from terrasieve.embeddings.inputs import EncoderInput, join
from terrasieve.embeddings.stream import EmbedSettings, embed_vectors
from terrasieve.models.export import load_encoder
from terrasieve.pretrain import pretrain
from terrasieve.schema import Spec
from terrasieve.training.loop import make_fabric
from terrasieve.views.render import Normaliser
from terrasieve.writing import write_text

ARMS: Mapping[str, str] = {
    "uncurated": "the whole archive",
    "random": "one random subset",
    "static": "one subset, chosen with the uncurated run's encoder",
    "dynamic": "subsets chosen anew with the model's own features, clean pass",
    "dynamic-bank": "the same from the feature bank",
    "oracle": "one subset, balanced by the true labels",
}
TAIL = 5
"""How many of the rarest classes are the tail."""
RECIPE = Path(__file__).with_name("curation_study.yaml")
RESULT = "result.json"


class Settings(Spec):
    """Everything that decides what the study computes.

    Attributes:
        steps: Length of every run.
        evaluations: Measurements a run, at equal distances.
        keep: Size of a pool as a share of the archive.
        split: What is scored.
        curator: Settings of the curator of static and dynamic curation, as ``key=value``.
        warmup_steps: Steps on the whole archive before the first round of dynamic curation.
        round_steps: Steps between two rounds.
        refresh: Share of the feature bank that is embedded anew before a round.
        inputs: What the encoder is shown where curation embeds the archive; the vectors of several are joined.
        recipe: Settings of the recipe, as ``key=value``; they hold for all arms.
        archive: How the archive is skewed.
    """

    steps: int = Field(default=300, ge=2)
    evaluations: int = Field(default=2, ge=1)
    keep: float = Field(default=0.05, gt=0, le=1)
    split: Split = "test"
    curator: tuple[str, ...] = ("levels=[400,40]", "diversity=1")
    warmup_steps: int = Field(default=40, ge=0)
    round_steps: int = Field(default=90, ge=1)
    refresh: float = Field(default=0.1, ge=0, le=1)
    inputs: tuple[str, ...] = ("s2:B04",)
    recipe: tuple[str, ...] = ()
    archive: LongTailSpec = LongTailSpec()

    @model_validator(mode="after")
    def _measured_at_the_end(self) -> Self:
        if self.steps % self.evaluations:
            raise ValueError(f"{self.evaluations} evaluations do not divide {self.steps} steps")
        return self


@dataclass(frozen=True)
class Study:
    """The study's inputs and folder.

    Attributes:
        data: Folder that holds ``eurosat_rgb``.
        out: The study's folder.
        settings: What it computes.
    """

    data: Path
    out: Path
    settings: Settings

    @property
    def store(self) -> Path:
        """The packed archive."""
        return self.out / "longtail.zarr"

    def folder(self, arm: str, seed: int) -> Path:
        """The folder of one run."""
        return self.out / f"{arm}-{seed}"

    def result(self, arm: str, seed: int) -> dict[str, Any] | None:
        """What a finished run found; None while it is not finished."""
        path = self.folder(arm, seed) / RESULT
        found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        return found

    def make_archive(self) -> LongTailArchive:
        """The skewed archive, packed where it is not yet."""
        archive = LongTailArchive(open_archive(self.data / "eurosat_rgb"), self.settings.archive)
        pack(archive, self.store)
        return archive


# ------------------------------------------------------------------------ one run


def run(study: Study, arm: str, seed: int) -> None:
    """Train and measure one arm with one seed, from where it stopped; write ``result.json`` at the end."""
    settings, folder = study.settings, study.folder(arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    packed, labelled = PackedArchive(study.store), open_archive(study.data / "eurosat_rgb")
    config = configure(settings, arm, seed, len(packed))
    began = time.monotonic()
    pool = make_pool(study, packed, arm, seed)
    choosing = time.monotonic() - began
    probe = StudyProbe(labelled, tail_of(packed), settings.split, folder / "measurements.jsonl")
    fabric = make_fabric(config.train, "cpu")
    fabric.launch()
    pretrain(config, packed, folder, fabric, resume=True, evaluate=probe, subset=pool)
    result = {"arm": arm, "seed": seed, "steps": settings.steps, **_times(study, arm, seed, choosing)}
    result["evaluations"] = _evaluations(folder)
    result["pool"] = describe_pool(packed, final_pool(folder, pool, len(packed)))
    write_text(folder / RESULT, json.dumps(result, indent=1))


def configure(settings: Settings, arm: str, seed: int, samples: int) -> RunConfig:
    """The recipe of a run; only dynamic curation adds to it."""
    between = settings.steps // settings.evaluations
    values = [
        f"train.steps={settings.steps}",
        f"train.evaluate_steps={between}",
        # The log says the seconds at its own steps, which have to include those of the measurements.
        f"train.log_every={math.gcd(between, 20)}",
        f"train.seed={seed}",
        *settings.recipe,
    ]
    if arm.startswith("dynamic"):
        batch = load_config(RECIPE, settings.recipe).train.batch_size
        features = f"{{name: bank, refresh: {settings.refresh}}}" if arm == "dynamic-bank" else "{name: clean}"
        warmup = settings.warmup_steps * batch / samples
        values += [
            # The bank has to have seen every sample.
            f"curation.warmup={max(1, warmup) if arm == 'dynamic-bank' else warmup}",
            f"curation.every={settings.round_steps * batch / round(settings.keep * samples)}",
            f"curation.keep={settings.keep}",
            f"curation.features={features}",
            f"curation.inputs=[{','.join(settings.inputs)}]",
            "curation.curator.name=balanced",
            *(f"curation.curator.{one}" for one in settings.curator),
        ]
    return load_config(RECIPE, values)


# ------------------------------------------------------------------------- pools


def make_pool(study: Study, packed: PackedArchive, arm: str, seed: int) -> NDArray[np.int64] | None:
    """The fixed pool of a run; None for the whole archive, from which dynamic curation chooses itself."""
    path = study.folder(arm, seed) / "pool.npy"
    keep = round(study.settings.keep * len(packed))
    if arm not in ("random", "static", "oracle"):
        return None
    if not path.is_file():
        generator = np.random.default_rng([seed, 0])
        if arm == "random":
            pool = np.sort(generator.permutation(len(packed))[:keep])
        elif arm == "oracle":
            pool = balance_labels(labels_of(packed), keep, generator)
        else:
            pool = choose_once(study, packed, keep, seed)
        _save(path, pool)
    return np.asarray(np.load(path), dtype=np.int64)


def balance_labels(labels: NDArray[np.str_], keep: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """As many of each class as there are, up to a common level that makes ``keep`` of them together."""
    classes, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    quotas = water_fill(sizes, keep, generator.permutation(len(classes)))
    members = [generator.permutation(np.flatnonzero(codes == code)) for code in range(len(classes))]
    return np.sort(np.concatenate([own[:quota] for own, quota in zip(members, quotas, strict=True)]))


def choose_once(study: Study, packed: PackedArchive, keep: int, seed: int) -> NDArray[np.int64]:
    """Static curation: what the curator chooses from the vectors of the uncurated run's encoder."""
    encoder, card = load_encoder(study.folder("uncurated", seed))
    normaliser = Normaliser(packed.sensors, card.statistics)
    inputs = tuple(EncoderInput.parse(name).resolve(packed.sensors) for name in study.settings.inputs)
    settings = EmbedSettings(size=card.image_size, precision="32")
    vectors = join(embed_vectors(encoder, packed, inputs, normaliser, settings, np.arange(len(packed)), "first model"))
    selection = load_curator("balanced", study.settings.curator).select(vectors, keep, seed)
    found = diagnose(vectors, selection, labels=labels_of(packed), seed=seed).as_dict()
    write_text(study.folder("static", seed) / "diagnostics.json", json.dumps(found, indent=1))
    return selection.indices


def labels_of(packed: Archive) -> NDArray[np.str_]:
    """The true class of every sample; for the oracle and for diagnostics only."""
    return np.array(packed.table()["label"].to_pylist())


def tail_of(packed: Archive) -> list[str]:
    """The rarest classes."""
    classes, sizes = np.unique(labels_of(packed), return_counts=True)
    return [str(name) for name in classes[np.argsort(sizes, kind="stable")[:TAIL]]]


def final_pool(folder: Path, pool: NDArray[np.int64] | None, samples: int) -> NDArray[np.int64]:
    """The samples that a run trained on at its end."""
    rounds = sorted((folder / "curation").glob("round-*.parquet"))
    if not rounds:
        return np.arange(samples) if pool is None else pool
    import pyarrow.parquet as pq

    return np.asarray(pq.read_table(rounds[-1])["index"].to_numpy())


def describe_pool(packed: Archive, pool: NDArray[np.int64]) -> dict[str, Any]:
    """Size, distinct originals, counts per class and the class entropy over that of equal classes."""
    table = packed.table()
    labels = labels_of(packed)
    ids = np.array(table["id"].to_pylist())
    copy_of = table["copy_of"].to_pylist()
    originals = {copy_of[i] or ids[i] for i in pool.tolist()}
    _, sizes = np.unique(labels[pool], return_counts=True)
    shares = sizes / sizes.sum()
    entropy = -(shares * np.log(shares)).sum() / np.log(len(np.unique(labels)))
    tail = np.isin(labels[pool], tail_of(packed))
    return {
        "samples": len(pool),
        "originals": len(originals),
        "tail_samples": int(tail.sum()),
        "class_entropy": round(float(entropy), 4),
    }


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


def _save(path: Path, pool: NDArray[np.int64]) -> None:
    partial = path.with_suffix(".partial.npy")
    np.save(partial, pool)
    os.replace(partial, path)
