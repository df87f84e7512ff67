"""Does an archive that prunes and rebalances itself make a better encoder? The curation study.

From the train split of ``eurosat_rgb_full`` a redundant, long-tailed archive is made (``longtail.py``): 30,000 samples,
94 % of them near-copies of water. One learner, LeJEPA or DINO, is trained on it for equal numbers of steps, on pools
that differ by arm:

- uncurated: the whole archive;
- random: one random subset;
- static: one subset chosen with the uncurated run's encoder, whose cost is counted;
- static-once: one subset chosen by the model being trained after its warm-up, the first round of dynamic;
- dynamic: subsets chosen anew by the model being trained;
- dynamic-dedup: the same, near duplicates removed before balancing;
- dynamic-spread: subsets of what is least alike (SemDeDup), seen in its own size: found after the plan;
- oracle: one subset balanced by the true labels, the ceiling.

Measured are kNN and linear accuracy over the nine classes that are not water, on validation and test together. What is
compared and what counts as a win was written down first: ``docs/curation-study.md``, section "Plan".

Usage: ``python benchmarks/curation_study.py [--learner lejepa] [--data DIR] [--jobs 2]``. Each arm and seed is a run in
a process of its own; run it again to go on after an interruption. ``--quick`` shows in six minutes that all parts run.
``--try-curator 'balanced diversity=0'`` says what the pool of a curator holds, by finished uncurated and dynamic runs.
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
from typing import Any, get_args

import yaml
from rich.console import Console

import study_overhead
import study_radar
import study_report
from study_arms import run
from study_pools import try_curators
from study_settings import ARMS, QUICK, Learner, Settings, Split, Study
from study_statistics import Results, accuracy, summarise
from terrasieve.console import console
from terrasieve.errors import ConfigError, TerrasieveError

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "curation-study.md"
RECORD = DOCS / "curation-study.json"
QUICK_ARMS = ("uncurated", "dynamic", "oracle")
_NAMES: Mapping[Learner, str] = {"lejepa": "LeJEPA", "dino": "DINO"}


def main() -> None:
    """Train what is missing, then report."""
    arguments = parse()
    study = Study(arguments.data, arguments.out, make_settings(arguments))
    if arguments.one:
        arm, seed = arguments.one
        run(study, arm, int(seed))
        return
    remember(study)
    classes = study.make_archive().counts()
    for name, (originals, samples) in classes.items():
        console.print(f"{name:22} {originals:4} originals, {samples:5} samples", highlight=False)
    cells = plan_cells(arguments.arms, arguments.seeds)
    if not arguments.report:
        run_all(study, cells, arguments.jobs)
    parts: dict[str, Any] = {}
    if arguments.try_curator:
        parts["curators"] = try_curators(study, arguments.try_curator, arguments.seeds[0])
    if arguments.overhead:
        parts |= study_overhead.run(study, study.out / "overhead")
    if arguments.radar:
        parts["radar"] = study_radar.run(study, study.out / "radar")
    print(json.dumps(report(study, arguments, classes, parts)))


# ---------------------------------------------------------------- the command line


def parse() -> argparse.Namespace:
    """The command line; every setting of the study is an option."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("TERRASIEVE_DATA", "../shared/data")
    parser.add_argument("--learner", choices=get_args(Learner), default="lejepa")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that all parts run")
    parser.add_argument("--data", type=Path, default=Path(default), help="holds eurosat_rgb_full and la_texas_pairs")
    parser.add_argument("--out", type=Path, help="the runs' folder (runs/curation-study-LEARNER)")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), help="all, or uncurated, dynamic and oracle (--quick)")
    parser.add_argument("--seeds", nargs="+", type=int, help="0 1 2, or 0 (--quick)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each with one thread")
    parser.add_argument("--split", choices=get_args(Split), help="both; val while settings are chosen")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--keep", type=float)
    parser.add_argument("--study", action="append", default=[], metavar="KEY=VALUE", help="any other setting")
    parser.add_argument("--set", action="append", default=[], dest="recipe", help="as in terrasieve pretrain")
    parser.add_argument("--try-curator", action="append", default=[], metavar="'NAME KEY=VALUE'", help="see above")
    parser.add_argument("--overhead", action="store_true", help="the cost of the default plan too")
    parser.add_argument("--radar", action="store_true", help="the real radar scenes too")
    parser.add_argument("--docs", action="store_true", help="write figure, record and results into docs/")
    parser.add_argument("--report", action="store_true", help="train nothing, report the runs that are finished")
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help="train one run, as the study itself does")
    arguments = parser.parse_args()
    quick = arguments.quick
    arguments.out = arguments.out or Path(f"runs/curation-study-{arguments.learner}{'-quick' if quick else ''}")
    arguments.arms = arguments.arms or list(QUICK_ARMS if quick else ARMS)
    arguments.seeds = arguments.seeds or ([0] if quick else [0, 1, 2])
    if quick and arguments.docs:
        parser.error("--quick says nothing about curation; its results do not belong into docs/.")
    return arguments


def make_settings(arguments: argparse.Namespace) -> Settings:
    """The study's settings from the command line; what is not given has its default."""
    named = {key: value for key in ("split", "steps", "keep") if (value := getattr(arguments, key)) is not None}
    other = {key: yaml.safe_load(value) for key, value in (one.split("=", 1) for one in arguments.study)}
    if arguments.recipe:
        named["recipe"] = tuple(arguments.recipe)
    base = QUICK if arguments.quick else {}
    return Settings.model_validate({**base, "learner": arguments.learner, **named, **other})


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


# ------------------------------------------------------------------------ the runs


def plan_cells(arms: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Arm and seed of each run, in their order: seed by seed, so that an interrupted study has whole pairs.

    Static curation comes after the uncurated run that it waits for, which is added where it was not asked for.
    """
    needed = {*arms, *(["uncurated"] if "static" in arms else [])}
    return [(arm, seed) for seed in seeds for arm in ARMS if arm in needed]


def run_all(study: Study, cells: Sequence[tuple[str, int]], jobs: int) -> None:
    """Every run that is not finished, several at a time.

    Raises:
        TerrasieveError: A run failed.
    """
    precision = study.settings.precision
    console.print(f"{_left(study, cells, jobs)}, {jobs} at a time, in precision {precision}", highlight=False)
    with ThreadPoolExecutor(jobs) as workers:
        begun: dict[tuple[str, int], Future[None]] = {}
        for arm, seed in cells:
            # A run is begun after what it waits for, so that waiting cannot fill all places.
            first = begun.get(("uncurated", seed)) if arm == "static" else None
            begun[arm, seed] = workers.submit(_run_and_tell, study, (arm, seed), first, cells, jobs)
        try:
            for future in begun.values():
                future.result()
        except BaseException:
            # Interrupted or failed: what has not begun must not begin now.
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def _run_and_tell(
    study: Study, cell: tuple[str, int], first: Future[None] | None, cells: Sequence[tuple[str, int]], jobs: int
) -> None:
    """One run, unless it is finished, and a line of what it found and what is left."""
    if first is not None:
        first.result()
    if study.result(*cell) is not None:
        return
    arm, seed = cell
    console.print(f"{arm}, seed {seed}: begun", highlight=False)
    result = _run_apart(study, arm, seed)
    last = result["evaluations"][-1]
    console.print(
        f"{arm}, seed {seed}: macro kNN {accuracy(last, 'knn'):.3f}, linear {accuracy(last, 'linear'):.3f}, "
        f"{result['wall_seconds']:.0f} s; {_left(study, cells, jobs)}",
        highlight=False,
    )


def _run_apart(study: Study, arm: str, seed: int) -> dict[str, Any]:
    """One run in a process of its own with one thread."""
    folder = study.folder(arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
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
    return result


def _left(study: Study, cells: Sequence[tuple[str, int]], jobs: int) -> str:
    missing = sum(study.result(*cell) is None for cell in cells)
    return f"{missing} of {len(cells)} runs left, about {study.seconds_left(cells, jobs) / 60:.0f} minutes"


# ---------------------------------------------------------------------- the report


def report(
    study: Study, arguments: argparse.Namespace, classes: Mapping[str, tuple[int, int]], parts: Mapping[str, Any]
) -> dict[str, Any]:
    """Print the tables, draw the figure, write the record; returns the summary.

    Args:
        study: What was run.
        arguments: The command line.
        classes: Originals and samples of each class.
        parts: What the optional parts found.
    """
    results = finished(study, arguments.arms, arguments.seeds)
    terminal = Console(width=170)
    terminal.print(study_report.as_table(study_report.arm_rows(results), "After the last step"))
    terminal.print(study_report.as_table(study_report.gain_rows(results), "Differences, with 95 % intervals"))
    machines = "; ".join(sorted({one["on"].rpartition("; ")[0] for runs in results.values() for one in runs}))
    machine = f"{machines}; precision {study.settings.precision}; seeds {', '.join(map(str, arguments.seeds))}"
    print(machine)
    summary = {"learner": study.settings.learner, **summarise(results), **parts}
    figure = (DOCS / "figures" if arguments.docs else study.out) / f"curation-study-{study.settings.learner}.png"
    title = f"{_NAMES[study.settings.learner]} on a long-tailed, redundant EuroSAT: {study.settings.steps} steps"
    study_report.draw(results, figure, title)
    record = {
        "machine": machine,
        "settings": study.settings.model_dump(mode="json"),
        "classes": {name: {"originals": pair[0], "samples": pair[1]} for name, pair in classes.items()},
        "summary": summary,
        "runs": [one for runs in results.values() for one in runs],
    }
    study_report.write_record(RECORD if arguments.docs else study.out / RECORD.name, study.settings.learner, record)
    if arguments.docs:
        section = study_report.results_section(results, summary, figure.relative_to(DOCS).as_posix(), machine)
        study_report.fill_page(PAGE, study.settings.learner, section)
    return summary


def finished(study: Study, arms: Sequence[str], seeds: Sequence[int]) -> Results:
    """The results of the finished runs by arm; arms without any are left out."""
    found = {arm: [one for seed in seeds if (one := study.result(arm, seed))] for arm in ARMS if arm in arms}
    return {arm: runs for arm, runs in found.items() if runs}


if __name__ == "__main__":
    main()
