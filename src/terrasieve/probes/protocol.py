"""What every probe is: fitted on frozen vectors, scored with intervals, able to state its protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from terrasieve.errors import ConfigError
from terrasieve.probes.metrics import bootstrap_intervals, classification_metrics, confusion_matrix

Features = NDArray[np.floating]
Labels = NDArray[np.int64]


class Labelled(NamedTuple):
    """Vectors ``(n, features)`` and their class codes ``(n,)``, integers from 0."""

    features: Features
    labels: Labels


@dataclass(frozen=True)
class ProbeResult:
    """What a probe reached on a test split.

    Attributes:
        metrics: ``accuracy`` and ``macro_f1``, each from 0 to 1.
        ci95: Lower and upper bound of the bootstrap 95 % interval of each metric.
        protocol: How the probe was fitted and scored, in one line.
        chosen: Settings that were chosen on the validation split, for example ``C``.
    """

    metrics: Mapping[str, float]
    ci95: Mapping[str, tuple[float, float]]
    protocol: str
    chosen: Mapping[str, float] = field(default_factory=dict)


class Probe(ABC):
    """A classifier of frozen vectors; whatever it learns, it learns from the train split."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def protocol(self) -> str:
        """Every setting that a reader needs to repeat the probe, in one line."""

    @property
    def chosen(self) -> Mapping[str, float]:
        """Settings that fitting chose on the validation split."""
        return {}

    @abstractmethod
    def fit(self, features: Features, labels: Labels, validation: Labelled | None = None) -> Self:
        """Learn from the train split.

        Args:
            features: Train vectors, shape ``(n, features)``.
            labels: Their class codes, shape ``(n,)``, integers from 0.
            validation: Only to choose settings, never to fit weights or the standardisation.

        Raises:
            ConfigError: The vectors and labels do not fit together.
        """

    @abstractmethod
    def predict(self, features: Features) -> Labels:
        """Class codes, shape ``(n,)``, of vectors ``(n, features)``."""

    def score(self, features: Features, labels: Labels) -> ProbeResult:
        """Accuracy and macro-F1 on a test split, each with its bootstrap 95 % interval."""
        confusion = confusion_matrix(labels, self.predict(features))
        return ProbeResult(
            classification_metrics(confusion), bootstrap_intervals(confusion), self.protocol, dict(self.chosen)
        )


def check_labelled(features: Features, labels: Labels) -> None:
    """Refuse vectors and labels that cannot be fitted.

    Raises:
        ConfigError: Wrong shapes, no sample, fewer than two classes, or a vector that is not finite.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ConfigError(
            f"Probes need vectors (n, features) and n labels, got {features.shape} and {labels.shape}; match them."
        )
    if len(np.unique(labels)) < 2:
        raise ConfigError(
            f"The train split holds {len(np.unique(labels))} class(es) in {len(labels)} samples; "
            "a probe needs at least two classes."
        )
    if not np.isfinite(features).all():
        bad = int((~np.isfinite(features).all(axis=1)).sum())
        raise ConfigError(
            f"{bad} of {len(features)} vectors hold NaN or infinity; embed with precision 32, or check the encoder."
        )
