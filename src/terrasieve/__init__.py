"""Turn an archive of unlabelled satellite imagery into a foundation model of that archive.

The main job in a few calls; nothing is imported before it is used::

    import terrasieve as ts

    archive = ts.open("EuroSAT_RGB")
    run = ts.pretrain("lejepa-small", archive, "runs/first", train__epochs=5)
    table = run.encoder.embed(archive, "rgb")
    table.nearest(0)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from terrasieve import former_names

if TYPE_CHECKING:
    from terrasieve.embeddings.scene_maps.map_reading import DenseMap as DenseMap
    from terrasieve.embeddings.scene_maps.map_reading import open_maps as open_maps
    from terrasieve.embeddings.table import EmbeddingTable as EmbeddingTable
    from terrasieve.embeddings.table import read_embeddings as read_embeddings
    from terrasieve.library.pretrained import PretrainedEncoder as PretrainedEncoder
    from terrasieve.library.pretrained import load_pretrained as load_encoder
    from terrasieve.library.sources import open_source as open
    from terrasieve.library.tasks import curate as curate
    from terrasieve.library.tasks import pretrain as pretrain
    from terrasieve.library.tasks import probe as probe
    from terrasieve.library.tasks import report as report
    from terrasieve.library.trained_run import TrainedRun as Run
    from terrasieve.sensors import Band as Band
    from terrasieve.sensors import Sensor as Sensor

__version__ = "0.1.0"

_OFFERED = {
    "Band": ("terrasieve.sensors", "Band"),
    "DenseMap": ("terrasieve.embeddings.scene_maps.map_reading", "DenseMap"),
    "EmbeddingTable": ("terrasieve.embeddings.table", "EmbeddingTable"),
    "PretrainedEncoder": ("terrasieve.library.pretrained", "PretrainedEncoder"),
    "Run": ("terrasieve.library.trained_run", "TrainedRun"),
    "Sensor": ("terrasieve.sensors", "Sensor"),
    "curate": ("terrasieve.library.tasks", "curate"),
    "load_encoder": ("terrasieve.library.pretrained", "load_pretrained"),
    "open": ("terrasieve.library.sources", "open_source"),
    "open_maps": ("terrasieve.embeddings.scene_maps.map_reading", "open_maps"),
    "pretrain": ("terrasieve.library.tasks", "pretrain"),
    "probe": ("terrasieve.library.tasks", "probe"),
    "read_embeddings": ("terrasieve.embeddings.table", "read_embeddings"),
    "report": ("terrasieve.library.tasks", "report"),
}
"""Module and name of what is offered here, loaded when it is first asked for."""

__all__ = [
    "Band",
    "DenseMap",
    "EmbeddingTable",
    "PretrainedEncoder",
    "Run",
    "Sensor",
    "__version__",
    "curate",
    "load_encoder",
    "open",
    "open_maps",
    "pretrain",
    "probe",
    "read_embeddings",
    "report",
]


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module 'terrasieve' has no attribute {name!r}")
    module, own = _OFFERED[name]
    return getattr(import_module(module), own)


def __dir__() -> list[str]:
    return sorted({*globals(), *_OFFERED})


former_names.install(__getattr__)
