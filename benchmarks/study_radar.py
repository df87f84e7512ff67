"""Dynamic curation of the 25 real radar scenes, which have no labels: what the pool becomes, told by the vectors alone.

The study's learner is trained on the 6,400 tiles of 64 pixels (Sentinel-1 VH) twice, on all of them and with dynamic
curation. Both pools, and a random one of equal size, are then looked at through the same eyes, those of the uncurated
run's encoder: how evenly they occupy its clusters, and how far the tiles left out are from the nearest tile kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from study_pools import final_pool
from study_settings import Study
from terrasieve.archive.opening import open_archive, scenes_spec_from_options
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive
from terrasieve.config import load_config, load_curator
from terrasieve.curation.curator import Selection
from terrasieve.curation.diagnostics import diagnose
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.stream import EmbedSettings, embed_vectors
from terrasieve.models.export import load_encoder
from terrasieve.pretraining import pretrain
from terrasieve.training.loop import make_fabric
from terrasieve.views.render import Normaliser

RADAR_VIEWS = ("views.branches.*.picks.0.sensor=radar", "views.branches.*.picks.0.bands=all")
"""What makes the study's recipe one of radar: every view shows the one radar band."""
KEEP = 0.3
ROUNDS = 4
STEPS = 150
"""Half as long as the study's runs: pools are compared here, not encoders."""


def run(study: Study, out: Path, steps: int = STEPS, seed: int = 0) -> dict[str, Any]:
    """Train both arms where they are not finished, print the table, and give the figures."""
    spec = scenes_spec_from_options(study.data / "la_texas_pairs", ["s1=s1-vh8"], 64, None, "stem")
    pack(open_archive(spec), out / "scenes.zarr")
    packed = PackedArchive(out / "scenes.zarr")
    keep = round(KEEP * len(packed))
    recipe, common = study.settings.recipe_file, [*RADAR_VIEWS, f"train.precision={study.settings.precision}"]
    batch = load_config(recipe).train.batch_size
    between = steps / (ROUNDS + 1)
    dynamic = [
        f"curation.keep={KEEP}",
        f"curation.warmup={between * batch / len(packed)}",
        f"curation.every={between * batch / keep}",
    ]
    for arm, settings in (("uncurated", []), ("dynamic", dynamic)):
        config = load_config(recipe, [*common, f"train.steps={steps}", f"train.seed={seed}", *settings])
        fabric = make_fabric(config.train, "cpu")
        fabric.launch()
        pretrain(config, packed, out / arm, fabric, resume=True)
    vectors = _vectors(packed, out / "uncurated")
    pools = {
        "all tiles": np.arange(len(packed)),
        "random": np.sort(np.random.default_rng(seed).permutation(len(packed))[:keep]),
        "dynamic, last round": final_pool(out / "dynamic", None, len(packed)),
    }
    figures = _compare(vectors, pools, keep, seed)
    records = sorted((out / "dynamic" / "curation").glob("round-*.json"))
    rounds = [json.loads(path.read_text(encoding="utf-8")) for path in records]
    figures["turnover"] = [one["diagnostics"].get("turnover") for one in rounds]
    figures["curation_seconds"] = round(sum(sum(one["seconds"].values()) for one in rounds), 1)
    Console().print(_table(figures["pools"]))
    (out / "radar.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return figures


def _vectors(packed: Archive, folder: Path) -> NDArray[np.float32]:
    encoder, card = load_encoder(folder)
    normaliser = Normaliser(packed.sensors, card.statistics)
    inputs = (EncoderInput.parse("s1:VH").resolve(packed.sensors),)
    settings = EmbedSettings(size=card.image_size)
    return embed_vectors(encoder, packed, inputs, normaliser, settings, np.arange(len(packed)), "radar")[:, 0]


def _compare(
    vectors: NDArray[np.float32], pools: Mapping[str, NDArray[np.int64]], keep: int, seed: int
) -> dict[str, Any]:
    """Diagnostics of each pool in one tree over the vectors."""
    balanced = load_curator("balanced").select(vectors, keep, seed)
    found = {}
    for name, pool in pools.items():
        quotas = np.bincount(balanced.leaves[pool], minlength=len(balanced.quotas))
        selection = Selection(pool, balanced.leaves, quotas, balanced.rejected, {})
        diagnostics = diagnose(vectors, selection, seed=seed)
        found[name] = {
            "tiles": len(pool),
            "effective_clusters": diagnostics.occupancy_after.effective,
            "share_of_the_fullest": diagnostics.occupancy_after.largest,
            "nearest_neighbour": diagnostics.nearest_neighbour,
            "left_out_mean": diagnostics.coverage_mean,
            "left_out_p95": diagnostics.coverage_p95,
        }
    return {"groups": len(balanced.quotas), "pools": found}


def _table(pools: Mapping[str, Mapping[str, Any]]) -> Table:
    shown = Table("pool", title="Radar tiles, seen by the uncurated run's encoder")
    for name in next(iter(pools.values())):
        shown.add_column(name.replace("_", " "))
    for pool, values in pools.items():
        shown.add_row(pool, *("" if value is None else f"{value:.4g}" for value in values.values()))
    return shown
