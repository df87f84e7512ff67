"""Does an archive that prunes and rebalances itself make a better encoder? The curation study.

From the train split of ``eurosat_rgb`` a redundant, long-tailed archive is made (``longtail.py``). Then DINO is trained
on it for equal numbers of steps, on pools that differ by arm:

- uncurated: the whole archive;
- random: one random subset;
- static: one subset chosen with the uncurated run's encoder, whose cost is counted;
- dynamic, dynamic-bank: subsets chosen anew by the model being trained, from a clean pass or from the feature bank;
- oracle: one subset balanced by the true labels, the ceiling.

Measured are kNN and linear accuracy on the balanced test split, all, head and tail classes apart. Settings were chosen
on the validation split (``--split val``).

Usage: ``python benchmarks/curation_study.py [--data DIR] [--jobs 2]``. Run it again to go on after an interruption.
``--overhead`` adds what curation costs with the default plan, ``--radar`` the 25 radar scenes with unlabelled
diagnostics. Figure and record go beside the runs, and into ``docs/`` with ``--docs``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

import study_overhead
import study_radar
import study_report
from machine import describe
from study_arms import ARMS, RECIPE, Settings, Study, run
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.console import console
from terrasieve.errors import ConfigError, TerrasieveError

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "docs" / "figures" / "curation-study.png"
RECORD = ROOT / "docs" / "curation-study.json"


def main() -> None:
    """Train what is missing, then report."""
    arguments = parse()
    study = Study(arguments.data, arguments.out, make_settings(arguments))
    if arguments.one:
        arm, seed = arguments.one
        run(study, arm, int(seed))
        return
    remember(study)
    archive = study.make_archive()
    for name, (originals, samples) in archive.counts().items():
        console.print(f"{name:22} {originals:4} originals, {samples:5} samples", highlight=False)
    if not arguments.report:
        run_all(study, arguments.arms, arguments.seeds, arguments.jobs)
    parts: dict[str, Any] = {}
    if arguments.overhead:
        parts |= study_overhead.run(PackedArchive(study.store), RECIPE, study.settings.recipe, study.out / "overhead")
    if arguments.radar:
        parts["radar"] = study_radar.run(arguments.data, arguments.out / "radar")
    print(json.dumps(report(study, arguments, archive.counts(), parts)))


def parse() -> argparse.Namespace:
    """The command line; every setting of the study is an option."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TERRASIEVE_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default), help="holds eurosat_rgb and la_texas_pairs")
    parser.add_argument("--out", type=Path, default=Path("runs/curation-study"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each with one thread")
    parser.add_argument("--split", choices=["val", "test"], default="test", help="val while settings are chosen")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--keep", type=float)
    parser.add_argument("--study", action="append", default=[], metavar="KEY=VALUE", help="any other setting")
    parser.add_argument("--curator", action="append", default=[], metavar="KEY=VALUE", help="of the curator")
    parser.add_argument("--set", action="append", default=[], dest="recipe", help="as in terrasieve pretrain")
    parser.add_argument("--overhead", action="store_true", help="the cost of the default plan too")
    parser.add_argument("--radar", action="store_true", help="the real radar scenes too")
    parser.add_argument("--docs", action="store_true", help="write figure and record into docs/")
    parser.add_argument("--report", action="store_true", help="train nothing, report the runs that are finished")
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help="train one run, as the study itself does")
    return parser.parse_args()


def make_settings(arguments: argparse.Namespace) -> Settings:
    """The study's settings from the command line; what is not given has its default."""
    given = {key: value for key in ("steps", "keep") if (value := getattr(arguments, key)) is not None}
    other = {key: yaml.safe_load(value) for key, value in (one.split("=", 1) for one in arguments.study)}
    lists = {key: tuple(value) for key in ("curator", "recipe") if (value := getattr(arguments, key))}
    return Settings.model_validate({"split": arguments.split, **given, **other, **lists})


def remember(study: Study) -> None:
    """Keep the settings beside the runs, which must not be mixed with those of other settings.

    Raises:
        ConfigError: The folder holds runs of other settings.
    """
    path, own = study.out / "settings.json", study.settings.model_dump(mode="json")
    if path.is_file() and (stored := json.loads(path.read_text(encoding="utf-8"))) != own:
        differing = [key for key in own if stored.get(key) != own[key]]
        raise ConfigError(f"{study.out} holds a study with other {', '.join(differing)}; choose another --out.")
    study.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(own, indent=1), encoding="utf-8")


def run_all(study: Study, arms: Sequence[str], seeds: Sequence[int], jobs: int) -> None:
    """Every run that is not finished, several at a time; static curation after its first model.

    Raises:
        TerrasieveError: A run failed.
    """
    needed = [*(["uncurated"] if "static" in arms else []), *arms]
    ordered = sorted(dict.fromkeys(needed), key=list(ARMS).index)
    with ThreadPoolExecutor(jobs) as workers:
        begun: dict[tuple[str, int], Future[None]] = {}
        # A run is begun after what it waits for, so that waiting cannot fill all places.
        for arm in sorted(ordered, key=lambda arm: arm == "static"):
            for seed in seeds:
                first = begun.get(("uncurated", seed)) if arm == "static" else None
                begun[arm, seed] = workers.submit(_run_apart, study, arm, seed, first)
        try:
            for future in begun.values():
                future.result()
        except BaseException:
            # Interrupted or failed: what has not begun must not begin now.
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def _run_apart(study: Study, arm: str, seed: int, first: Future[None] | None) -> None:
    """One run in a process of its own with one thread, unless it is finished."""
    if first is not None:
        first.result()
    if study.result(arm, seed) is not None:
        return
    folder = study.folder(arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    console.print(f"{arm}, seed {seed}: begun", highlight=False)
    own = sys.argv[1:]
    with (folder / "run.log").open("a") as log:
        done = subprocess.run(
            [sys.executable, __file__, *own, "--one", arm, str(seed)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    if done.returncode:
        raise TerrasieveError(f"{arm} with seed {seed} failed; see {folder / 'run.log'}, then run the study again.")
    result = study.result(arm, seed)
    assert result is not None
    console.print(f"{arm}, seed {seed}: {json.dumps(result['evaluations'][-1])}", highlight=False)


def report(
    study: Study, arguments: argparse.Namespace, classes: Mapping[str, tuple[int, int]], parts: Mapping[str, Any]
) -> dict[str, Any]:
    """Print the table, draw the figure, write the record; returns the summary.

    Args:
        study: What was run.
        arguments: The command line.
        classes: Originals and samples of each class.
        parts: What the optional parts found.
    """
    finished = {
        arm: [found for seed in arguments.seeds if (found := study.result(arm, seed))]
        for arm in ARMS
        if arm in arguments.arms
    }
    results = {arm: runs for arm, runs in finished.items() if runs}
    Console(width=150).print(study_report.table(results))
    if "uncurated" in results:
        Console(width=150).print(study_report.ahead_table(results))
    summary = {**study_report.summarise(results), **parts}
    on = describe(arguments.seeds[0])
    print(on)
    figure, record = (FIGURE, RECORD) if arguments.docs else (study.out / FIGURE.name, study.out / RECORD.name)
    study_report.draw(results, figure, f"DINO on a long-tailed, redundant EuroSAT: {study.settings.steps} steps")
    stored = {
        "machine": on,
        "settings": study.settings.model_dump(mode="json"),
        "classes": {name: {"originals": pair[0], "samples": pair[1]} for name, pair in classes.items()},
        "summary": summary,
        "runs": [one for runs in results.values() for one in runs],
    }
    record.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return summary


if __name__ == "__main__":
    main()
