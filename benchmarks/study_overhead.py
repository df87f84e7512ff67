"""What curation costs with the default plan: the seconds of a round over those of the training between two rounds.

The study's own runs are so short that they have to curate far more often than anybody would; their share of seconds
is in their records. Here one round is timed after the default warm-up, a pass over the whole archive, then a few more
steps; the steps that lie between two rounds of the default plan are counted, not run.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

from study_settings import Study
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.config import load_config
from terrasieve.curation.pacing import CurationPlan
from terrasieve.pretraining import pretrain
from terrasieve.training.loop import make_fabric

SOURCES = ("clean", "bank")
_BEYOND = 0.2
"""Passes over the pool after the round, so that its last step is not the run's."""


def run(study: Study, out: Path, seed: int = 0) -> dict[str, float]:
    """Train with each source of features, where that is not done yet; ``overhead_clean`` and ``overhead_bank``.

    Args:
        study: The study, whose archive and recipe are used.
        out: The runs' folder.
        seed: Of the runs.
    """
    plan = CurationPlan()
    assert plan.every is not None, "the default plan has rounds"
    settings, packed = study.settings, PackedArchive(study.store)
    length = [
        f"train.epochs={plan.warmup + _BEYOND}",
        f"train.seed={seed}",
        f"train.precision={settings.precision}",
        *settings.recipe,
    ]
    found = {}
    for source in SOURCES:
        config = load_config(settings.recipe_file, [*length, f"curation.features={{name: {source}}}"])
        fabric = make_fabric(config.train, "cpu")
        fabric.launch()
        pretrain(config, packed, out / source, fabric, resume=True)
        between = plan.pool_size(len(packed)) * plan.every / config.train.batch_size
        found[f"overhead_{source}"] = round(_share(out / source, between), 4)
    return found


def _share(folder: Path, between: float) -> float:
    """Seconds of a round over those of so many training steps, as the run's log and its records tell them."""
    rounds = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "curation").glob("round-*.json"))
    ]
    curating = sum(_seconds(one) for one in rounds)
    with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
        last = [row for row in csv.DictReader(file) if row["seconds"]][-1]
    step = (float(last["seconds"]) - curating) / int(last["step"])
    return curating / len(rounds) / (between * step)


def _seconds(record: Mapping[str, Mapping[str, float]]) -> float:
    return sum(record["seconds"].values())
