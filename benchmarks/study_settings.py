"""What the curation study computes and where it keeps it: its arms, settings, folders and classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from longtail import LongTailArchive, LongTailSpec
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.protocol import Archive
from terrasieve.device import Precision, resolve_precision
from terrasieve.schema import Spec

Learner = Literal["lejepa", "dino"]
Split = Literal["val", "test", "both"]

ARMS: Mapping[str, str] = {
    "uncurated": "the whole archive",
    "random": "one random subset",
    "oracle": "one subset, balanced by the true labels",
    "dynamic": "subsets chosen anew with the model's own features",
    "dynamic-dedup": "the same, near duplicates removed before balancing",
    "dynamic-spread": "chosen anew: what is least alike, seen in its own size",
    "static-once": "the first subset of dynamic curation, kept to the end",
    "static": "one subset, chosen with the uncurated run's encoder",
}
"""What each arm trains on, in the order of the runs: static comes after the run that it waits for."""
DYNAMIC = ("dynamic", "dynamic-dedup", "dynamic-spread", "static-once")
"""The arms whose own model chooses while it trains."""
TAIL = 5
"""How many of the rarest classes are the tail."""
RESULT = "result.json"

SECONDS_A_STEP, SECONDS_A_MEASUREMENT = 0.45, 75.0
"""What DINO takes on one core of an AMD EPYC in bfloat16: for an estimate alone, until a finished run tells it."""


class Choice(Spec):
    """How a subset is chosen from the features of an encoder.

    Attributes:
        curator: Name of the curator with its settings behind it, such as ``balanced levels=[400,40] diversity=1``.
        size: Height and width in pixels at which the archive is embedded: 32 are those of the first view, 64 its own.
    """

    curator: str
    size: int = Field(default=32, ge=1)


_PLANNED = Choice(curator="balanced levels=[400,40] diversity=1")
_CHOICES: Mapping[str, Choice] = {
    "dynamic": _PLANNED,
    "dynamic-dedup": Choice(curator="deduplicated levels=[400,40] diversity=1 duplicates=0.9"),
    "dynamic-spread": Choice(curator="semdedup", size=64),
    "static-once": _PLANNED,
    "static": _PLANNED,
}


class Settings(Spec):
    """Everything that decides what the study computes.

    Attributes:
        learner: The method that is trained.
        precision: What networks compute in, in training, curation and probes alike; ``auto`` becomes what it means on
            this machine's processor, so that runs of two machines are not mixed unseen.
        steps: Length of every run.
        evaluations: Measurements a run, at equal distances.
        keep: Size of a pool as a share of the archive.
        split: What is scored: the validation split while settings are chosen, both splits together in the study.
        labels: Labelled images of each class that the probes learn from.
        scored: Images of each class of each split that are scored at most; null scores all.
        choices: Of each arm that curates, how its subsets are chosen.
        warmup_steps: Steps on the whole archive before the first round of dynamic curation.
        round_steps: Steps between two rounds.
        inputs: What the encoder is shown where curation embeds the archive; the vectors of several are joined.
        recipe: Settings of the recipe, as ``key=value``; they hold for all arms.
        archive: How the archive is skewed.
    """

    learner: Learner = "lejepa"
    precision: Precision = "auto"
    steps: int = Field(default=600, ge=2)
    evaluations: int = Field(default=2, ge=1)
    keep: float = Field(default=0.05, gt=0, le=1)
    split: Split = "both"
    labels: int = Field(default=315, ge=2)
    scored: int | None = Field(default=None, ge=1)
    choices: Mapping[str, Choice] = _CHOICES
    warmup_steps: int = Field(default=40, ge=1)
    round_steps: int = Field(default=90, ge=1)
    inputs: tuple[str, ...] = ("s2:B04",)
    recipe: tuple[str, ...] = ()
    archive: LongTailSpec = LongTailSpec(first="SeaLake")

    @model_validator(mode="before")
    @classmethod
    def _precision_is_known(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        return {**values, "precision": resolve_precision(values.get("precision", "auto"), torch.device("cpu"))}

    @model_validator(mode="after")
    def _measured_at_the_end(self) -> Self:
        if self.steps % self.evaluations:
            raise ValueError(f"{self.evaluations} evaluations do not divide {self.steps} steps")
        return self

    @property
    def recipe_file(self) -> Path:
        """The recipe of the learner."""
        return Path(__file__).with_name(f"curation_study_{self.learner}.yaml")


QUICK: Mapping[str, Any] = {
    "steps": 120,
    "evaluations": 1,
    "keep": 0.1,
    "labels": 60,
    "scored": 60,
    "choices": {arm: Choice(curator="balanced levels=[150,15] diversity=1") for arm in _CHOICES},
    "warmup_steps": 20,
    "round_steps": 50,
    "archive": {"first": "SeaLake", "samples": 6000, "most": 200, "fewest": 20},
}
"""Settings of ``--quick``, which shows that all parts run, and nothing about curation."""


@dataclass(frozen=True)
class Study:
    """The study's inputs and folder.

    Attributes:
        data: Folder that holds ``eurosat_rgb_full``.
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

    def labelled(self) -> Archive:
        """The archive with labels, from which the skewed one is made and on which encoders are measured."""
        return open_archive(self.data / "eurosat_rgb_full")

    def make_archive(self) -> LongTailArchive:
        """The skewed archive, packed where it is not yet."""
        archive = LongTailArchive(self.labelled(), self.settings.archive)
        pack(archive, self.store)
        return archive

    def seconds_left(self, cells: Sequence[tuple[str, int]], jobs: int) -> float:
        """About how long the unfinished ones of some runs take, by those that are finished or else by experience."""
        results = [self.result(*cell) for cell in cells]
        took = [one["wall_seconds"] for one in results if one]
        settings = self.settings
        expected = settings.steps * SECONDS_A_STEP + settings.evaluations * SECONDS_A_MEASUREMENT
        return results.count(None) * (float(np.mean(took)) if took else expected) / jobs


def labels_of(packed: Archive) -> NDArray[np.str_]:
    """The true class of every sample; for the oracle and for diagnostics only."""
    return np.array(packed.table()["label"].to_pylist())


def class_groups(packed: Archive) -> dict[str, list[str]]:
    """The classes that are averaged over: ``macro`` all but the most frequent, ``tail`` the rarest, ``head`` the first.

    Args:
        packed: The skewed archive.
    """
    classes, sizes = np.unique(labels_of(packed), return_counts=True)
    falling = classes[np.argsort(-sizes, kind="stable")].tolist()
    return {"macro": falling[1:], "tail": falling[-TAIL:], "head": falling[:1]}
