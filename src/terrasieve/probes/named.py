"""Which probes there are for which kind of target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from terrasieve.errors import ConfigError, nearest
from terrasieve.probes.knn import KnnMultilabel, KnnProbe, KnnRegression
from terrasieve.probes.linear.logistic import LogisticProbe
from terrasieve.probes.linear.multilabel import MultilabelLogistic
from terrasieve.probes.linear.ridge import RidgeProbe
from terrasieve.probes.metrics import Task
from terrasieve.probes.mlp import MlpProbe
from terrasieve.probes.probe import Probe

_PROBES: Mapping[Task, Mapping[str, Callable[[], Probe]]] = {
    "classification": {"knn": KnnProbe, "logistic": LogisticProbe, "mlp": MlpProbe},
    "multilabel": {"knn": KnnMultilabel, "logistic": MultilabelLogistic},
    "regression": {"knn": KnnRegression, "ridge": RidgeProbe},
}
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
    known = _PROBES[task]
    for name in names:
        if name.lower() not in known:
            raise ConfigError(f"There is no probe {name!r} for {task}.{nearest(name, known)}")
    return tuple(known[name]() for name in dict.fromkeys(name.lower() for name in names or QUICK[task]))
