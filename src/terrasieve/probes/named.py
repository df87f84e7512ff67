"""Which probes there are for which kind of target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from terrasieve.errors import ConfigError, nearest
from terrasieve.probes.metrics import Task
from terrasieve.probes.probe import Probe
from terrasieve.registry import Registry

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
