"""What every probe is: fitted on frozen vectors, scored with intervals, able to state its protocol; and all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from terrasieve.device import PRECISION_NAMES
from terrasieve.draws import stratified_holdout
from terrasieve.errors import ConfigError, nearest
from terrasieve.probes.metrics import Score, Task, score_predictions
from terrasieve.registry import Registry

VALIDATION_SHARE = 0.1
"""Of a train split, where no validation split is published or given."""

Features = NDArray[np.floating]
Labels = NDArray[np.int64]


class Labelled(NamedTuple):
    """Vectors ``(n, features)`` and their targets: class codes or numbers ``(n,)``, or labels ``(n, classes)``."""

    features: Features
    labels: NDArray[Any]


@dataclass(frozen=True)
class Protocol:
    """A way of measuring that has a name; whatever changes its numbers raises its version.

    Attributes:
        name: Name of the probe.
        version: Counts the changes after which numbers are not comparable with earlier ones.
        settings: Every setting that a reader needs to repeat it, in one line.
    """

    name: str
    version: int
    settings: str

    def in_precision(self, what: str, precision: str) -> Self:
        """The same with what the network computed in, for example ``vectors`` in ``bf16``."""
        return replace(self, settings=f"{self.settings}, {what} in {PRECISION_NAMES[precision]}")

    def __str__(self) -> str:
        return f"{self.name} v{self.version}: {self.settings}"


@dataclass(frozen=True)
class ProbeResult:
    """What a probe reached on a test split.

    Attributes:
        score: Metrics, intervals and confusion.
        predicted: Predictions of the test samples in the order of the split, as :meth:`Probe.predict` gave them.
        protocol: How the probe was fitted and scored.
        chosen: Settings that were chosen on the validation split, for example ``C``.
    """

    score: Score
    predicted: NDArray[Any]
    protocol: Protocol
    chosen: Mapping[str, float] = field(default_factory=dict)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Each metric by name, as :data:`terrasieve.probes.metrics.METRIC_INFO` describes them."""
        return self.score.metrics

    @property
    def ci95(self) -> Mapping[str, tuple[float, float]]:
        """Lower and upper bound of the bootstrap 95 % interval of each metric."""
        return self.score.ci95


class StatesProtocol(ABC):
    """A way of measuring that can say what it is.

    Attributes:
        name: The probe's name, as tables show it.
        version: Counts the changes after which numbers are not comparable with earlier ones.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1

    @property
    @abstractmethod
    def settings(self) -> str:
        """Every setting that a reader needs to repeat the probe, in one line."""

    @property
    def protocol(self) -> Protocol:
        """Name, version and settings."""
        return Protocol(self.name, self.version, self.settings)


class Probe(StatesProtocol):
    """A predictor from frozen vectors; whatever it learns, it learns from the train split.

    Attributes:
        task: The kind of target that it predicts.
    """

    task: ClassVar[Task] = "classification"

    @property
    def chosen(self) -> Mapping[str, float]:
        """Settings that fitting chose on the validation split."""
        return {}

    @abstractmethod
    def fit(self, features: Features, labels: NDArray[Any], validation: Labelled | None = None) -> Self:
        """Learn from the train split.

        Args:
            features: Train vectors, shape ``(n, features)``.
            labels: Their targets, of the probe's task: class codes ``(n,)`` from 0, labels ``(n, classes)`` as
                booleans, or numbers ``(n,)``.
            validation: Only to choose settings, never to fit weights or the standardisation.

        Raises:
            ConfigError: The vectors and targets do not fit together.
        """

    @abstractmethod
    def predict(self, features: Features) -> NDArray[Any]:
        """Class codes ``(n,)``, a score for each label ``(n, classes)``, or numbers ``(n,)``, by the probe's task."""

    def score(self, features: Features, labels: NDArray[Any]) -> ProbeResult:
        """The metrics of the probe's task on a test split, each with its bootstrap 95 % interval."""
        predicted = self.predict(features)
        return ProbeResult(score_predictions(self.task, labels, predicted), predicted, self.protocol, dict(self.chosen))


def check_labelled(features: Features, labels: NDArray[Any]) -> None:
    """Refuse vectors and class codes that cannot be fitted.

    Raises:
        ConfigError: Wrong shapes, no sample, fewer than two classes, or a vector that is not finite.
    """
    check_vectors(features, labels)
    if labels.ndim != 1:
        raise ConfigError(f"Class codes have shape (n,), got {labels.shape}; several labels need a multi-label probe.")
    if len(np.unique(labels)) < 2:
        raise ConfigError(
            f"The train split holds {len(np.unique(labels))} class(es) in {len(labels)} samples; "
            "a probe needs at least two classes."
        )


def check_vectors(features: Features, labels: NDArray[Any]) -> None:
    """Refuse vectors that do not go with their targets.

    Raises:
        ConfigError: Wrong shapes, no sample, or a vector that is not finite.
    """
    if features.ndim != 2 or not len(features) or labels.shape[:1] != features.shape[:1]:
        raise ConfigError(
            f"Probes need vectors (n, features) and n labels, got {features.shape} and {labels.shape}; match them."
        )
    if not np.isfinite(features).all():
        bad = int((~np.isfinite(features).all(axis=1)).sum())
        raise ConfigError(
            f"{bad} of {len(features)} vectors hold NaN or infinity; embed with precision 32, or check the encoder."
        )


def hold_back(train: Labelled, strata: Labels, seed: int) -> tuple[Labelled, Labelled]:
    """Part a train split into what is fitted on and a seeded tenth to choose settings on, where nobody gives one.

    Args:
        train: Vectors and their targets.
        strata: Class code of each sample, shape ``(n,)``, of which each part gets its share.
        seed: Seed of the draw.

    Raises:
        ConfigError: No class has two samples, so that none can be spared.
    """
    kept, held = stratified_holdout(strata, VALIDATION_SHARE, seed)
    if not held.size:
        raise ConfigError(
            f"None of the {len(strata)} train samples can be held back to choose settings on, because no class has "
            "two; pass a validation split."
        )
    return Labelled(train.features[kept], train.labels[kept]), Labelled(train.features[held], train.labels[held])


# ------------------------------------------------------------------ by name

PROBES: Registry[Probe] = Registry(
    kind="probe",
    base=Probe,
    places=("terrasieve.probes.knn", "terrasieve.probes.linear", "terrasieve.probes.mlp"),
    group="terrasieve.probes",
    name_of=lambda probe: f"{probe.task}.{probe.name.lower()}",
)
"""Every probe of frozen vectors by ``TASK.NAME``, such as ``classification.knn``."""

QUICK: Mapping[Task, tuple[str, ...]] = {
    "classification": ("knn", "logistic"),
    "multilabel": ("knn", "logistic"),
    "regression": ("knn", "ridge"),
}
"""What is fitted when nobody names a probe."""


def probes_named(names: Sequence[str], task: Task = "classification") -> tuple[Probe, ...]:
    """Probes with their defaults by name, in any case; :data:`QUICK` where none is named.

    Raises:
        ConfigError: There is no such probe for this kind of target.
    """
    known = {name.removeprefix(f"{task}."): probe for name, probe in PROBES.items() if probe.task == task}
    for name in names:
        if name.lower() not in known:
            raise ConfigError(f"There is no probe {name!r} for {task}.{nearest(name, known)}")
    return tuple(known[name]() for name in dict.fromkeys(name.lower() for name in names or QUICK[task]))
