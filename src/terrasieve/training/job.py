"""What to train, and how a run ended: the values that go into and come out of the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrasieve.archive.protocol import Archive
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.methods.base import Method
from terrasieve.models.backbone import Encoder
from terrasieve.runs import StartingWeights
from terrasieve.training.spec import CurationSpec, TrainSpec
from terrasieve.views.places import Places
from terrasieve.views.plan import ViewPlanner
from terrasieve.views.render import Normaliser

Evaluator = Callable[[Encoder], Mapping[str, float]]
"""Measures an encoder while it trains; it must leave the encoder and all generators as they were."""


@dataclass(frozen=True)
class Curation:
    """How the pool of a run is drawn anew.

    Attributes:
        spec: When the pool is drawn anew, from what features and by what rule.
        inputs: What the encoder is shown in a pass over the archive, resolved; their vectors are joined.
    """

    spec: CurationSpec
    inputs: tuple[EncoderInput, ...]


@dataclass(frozen=True)
class TrainingJob:
    """What to train, on what, and where the results go.

    Attributes:
        method: The method, with initial weights; training changes it in place.
        archive: The archive that pixels are read from.
        pool: Archive indices to train on, ascending; with curation, those that a pool is chosen from.
        planner: Draws which bands, windows and augmentations the views of each step have.
        normaliser: Turns raw pixels into what the encoder sees.
        spec: How long and with which optimiser to train, and how often the periodic jobs run.
        folder: The run folder; checkpoints and logs go below it.
        config: The resolved configuration, compared when a run is resumed.
        resolved: The whole resolved configuration as YAML, kept in the run folder as ``config.yaml``.
        export: Writes the encoder as it is after that many steps.
        evaluate: The online probe of the encoder that is exported, if there is a labelled archive.
        evaluate_counterpart: The same of the other one of student and teacher; None leaves that one unmeasured.
        memory: Share of its initial weights that the teacher holds before the first step and after each,
            ``(steps + 1,)``; None where there is no teacher.
        warnings: What is unusual about the run, a sentence each, to be said before it begins.
        curation: How the pool changes; None where it never does.
        places: Which samples of the pool show one place, where views show it at other times; None where none does.
        start: The pretrained weights that the method's encoder has; None where they are random.
    """

    method: Method
    archive: Archive
    pool: NDArray[np.int64]
    planner: ViewPlanner
    normaliser: Normaliser
    spec: TrainSpec
    folder: Path
    config: Mapping[str, Any]
    resolved: str
    export: Callable[[Encoder, int], None]
    evaluate: Evaluator | None = None
    evaluate_counterpart: Evaluator | None = None
    memory: NDArray[np.float64] | None = None
    warnings: tuple[str, ...] = ()
    curation: Curation | None = None
    places: Places | None = None
    start: StartingWeights | None = None


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        steps: How many optimiser steps the whole run has.
        checkpoint: The folder of the last checkpoint.
        metrics: The last value of every logged number, by its name in the log.
    """

    steps: int
    checkpoint: Path
    metrics: Mapping[str, float]
