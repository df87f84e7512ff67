"""How well a plan from a short run tells what a run of ten times its length takes.

Each stage of ``terrasieve plan`` is measured for a few seconds, on a simulated ocean and with a small recipe, in one
process and one thread. Then the same stage runs ten times as long, and what was foretold is divided by what it took:

- ``index_ratio``, ``pack_ratio``, ``embed_ratio``: samples checked, packed, embedded;
- ``training_ratio``: steps of the largest batch that the time was enough for.

Seconds are those of the processor, which other work on the machine lengthens less than those of the clock, though it
does: it takes the cache, and the share of a core that two threads get. Ratios that move by a tenth from one run to the
next are the machine's.

    python benchmarks/plan_check.py
    python benchmarks/plan_check.py --full

``--full`` measures about a minute together instead of six seconds a stage. The last line is JSON: the ratios, and
``within_20_percent``, whether each lies from 0.8 to 1.2.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from rich.table import Table

from machine import describe
from terrasieve.config import load_config
from terrasieve.console import console
from terrasieve.estimates.attempts import attempts_at, timed
from terrasieve.estimates.trial_results import Pace
from terrasieve.estimates.trials import Trials

TIMES = 10
"""How many times as long the run is that a short one foretells."""
FULL = {"index": 9.0, "pack": 9.0, "embed": 12.0, "training": 24.0}
"""Seconds of each stage in the minute that ``terrasieve plan`` takes by default."""


class Check(NamedTuple):
    """A stage, measured shortly and then ten times as long.

    Attributes:
        pace: What a unit takes by the short run.
        foretold: Processor seconds of the long run by the short one, what a run takes whatever its length included.
        long: The long run.
    """

    pace: Pace
    foretold: float
    long: Pace

    @property
    def ratio(self) -> float:
        """Processor seconds foretold over those found."""
        return self.foretold / self.long.processor


def check(prepare: Callable[[int], Callable[[], float]], seconds: float, most: int) -> Check:
    """Measure a stage for so many seconds, and then over ten times as many units.

    Args:
        prepare: Gives work of so many units, ready to begin.
        seconds: About how long the short run takes, with its attempts.
        most: Units that there are for the long run.
    """
    short = attempts_at(prepare, seconds, 4, most // TIMES)
    units = TIMES * int(short.longest.units)
    foretold = short.longest.processor + short.pace.each("processor") * (units - short.longest.units)
    return Check(short.pace, foretold, timed(prepare(units)))


def check_training(trials: Trials, seconds: float) -> Check:
    """The same of steps of the largest batch that the time is enough for."""
    steps = trials.training(seconds)
    batch = max(steps)
    long = trials.steps(batch, TIMES * steps[batch].seconds)
    return Check(steps[batch], steps[batch].each("processor") * long.units, long)


def check_all(trials: Trials, seconds: Mapping[str, float]) -> dict[str, Check]:
    """Every stage, one after the other; those that read the store read what was packed last."""
    samples = len(trials.archive)
    return {
        "index": check(trials.indexing, seconds["index"], samples),
        "pack": check(trials.packing, seconds["pack"], samples),
        "embed": check(trials.embedding(), seconds["embed"], 2**31),
        "training": check_training(trials, seconds["training"]),
    }


def figures(found: Mapping[str, Check]) -> dict[str, float | bool]:
    """The figures of the last line."""
    ratios = {f"{stage}_ratio": round(one.ratio, 3) for stage, one in found.items()}
    return {**ratios, "within_20_percent": all(0.8 <= ratio <= 1.2 for ratio in ratios.values())}


def table_of(found: Mapping[str, Check], title: str) -> Table:
    table = Table("stage", "ms a unit", "units, long", "s foretold", "s found", "foretold / found", title=title)
    for stage, one in found.items():
        each = 1e3 * one.pace.each("processor")
        sides = f"{one.foretold:.1f}", f"{one.long.processor:.1f}", f"{one.ratio:.3f}"
        table.add_row(stage, f"{each:.2f}", f"{one.long.units:,.0f}", *sides)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each stage's short run")
    parser.add_argument("--full", action="store_true", help="a minute for all short runs together")
    parser.add_argument("--samples", type=int, default=10_000, help="of the simulated archive")
    parser.add_argument("--recipe", default="oceansar-small")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="change one setting of the recipe")
    options = parser.parse_args()
    torch.set_num_threads(1)
    others = os.getloadavg()[0]
    if others > 1:
        console.print(f"Other work takes {others:.1f} cores: ratios move with it.", highlight=False)
    seconds = FULL if options.full else dict.fromkeys(FULL, options.seconds)
    config = load_config(options.recipe, options.settings)
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(f"simulated-ocean:0:{options.samples}", config, Path(folder), "cpu")
        found = check_all(trials, seconds)
    console.print(table_of(found, f"Processor seconds, load {others:.1f}; {describe(0)}"))
    print(json.dumps(figures(found)))


if __name__ == "__main__":
    main()
