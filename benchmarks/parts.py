"""Index, pack, embed and curate in parts, by workers that are killed at random: equal to one machine, and at what cost.

Scenes of four tiles each (three bands of 32x32 bytes a tile, deflated; one of 500 scenes is spoilt) are written to a
temporary folder. Each command is run once as on one machine. Then workers do it in parts (``--claim``), some of which
are killed (SIGKILL) at random moments and started anew, as a cluster does, and ``terrasieve merge`` makes one result of
the parts. Every command is given what the one machine's earlier commands made, so that results are comparable byte for
byte. Workers are forked from a process that has imported everything: starting Python and importing torch, some seconds
for each worker, count on neither side.

The one machine's seconds are those of as many copies of the command, at the same time, as there are workers: what two
processes take from each other (caches, memory, the halves of one core) is no cost of parts, and stands on both sides.

    python benchmarks/parts.py --workers 2 --kill 8

The last line is JSON: ``equal``, whether every file that a command left is the one machine's; ``kills``;
``redone_share``, the processor's seconds that killed workers had spent since their last whole part, divided by all that
the one machine spent; ``overhead_vs_one``, the seconds of workers and merging less those that were lost by kills,
divided by those of the one machine; ``ray_overhead``, the seconds of the same parts on a local Ray cluster where none
is killed, with those of the driver and of Ray's own processes, divided by the seconds of plain workers less those that
were lost. Where Ray is not installed that is null, and ``ray_missing`` says why. The table has them for each command.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

import parts_on_ray
from faults import tree
from faults_commands import command
from machine import describe
from small_archives.making import write_tif
from terrasieve.archive.packed import packing
from terrasieve.console import console, progress_shown
from terrasieve.curation import kmeans
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.export import EncoderCard, save_encoder
from terrasieve.parts import sharing
from terrasieve.parts.shared_place import parts_folder
from terrasieve.sensors import SENSORS, BandStatistics

TILE = 32
TILES = 4
SPOILT = 500
"""One of so many scenes cannot be read."""
CHUNKS = 64
"""About how many chunks the packed store has; that of 64 MiB would hold all samples."""
RESULTS = {"index": "c.parquet", "pack": "p.zarr", "embed": "e.parquet", "curate": "s.parquet"}


@dataclass
class Spent:
    """Processor seconds, by what they went into.

    Attributes:
        one: One machine's, the mean of as many copies at the same time as there are workers.
        parts: Of workers and of merging, all together.
        lost: Those of ``parts`` that kills made worthless.
        kills: Number of workers that were killed.
        equal: Whether the results are the same.
        ray: Of all that does the same on Ray; None where it is not installed.
    """

    one: float = 0.0
    parts: float = 0.0
    lost: float = 0.0
    kills: int = 0
    equal: bool = True
    ray: float | None = None

    def row(self, name: str) -> list[str]:
        """Its row of the table."""
        overhead, redone = (self.parts - self.lost) / self.one, self.lost / self.one
        on_ray = "" if self.ray is None else f"{self.ray / (self.parts - self.lost):.3f}"
        return [name, f"{self.one:.1f}", f"{overhead:.3f}", f"{redone:.3f}", on_ray, str(self.kills), str(self.equal)]


@dataclass
class Worker:
    """A forked process that runs a command.

    Attributes:
        pid: Its number.
        done: Where it notes, whenever a part is whole, the seconds that it has spent so far.
    """

    pid: int
    done: Path

    @classmethod
    def start(cls, arguments: Sequence[object], logs: Path) -> Worker:
        """Fork it; what it prints goes to a file."""
        number = len(list(logs.glob("*.log")))
        log, done = logs / f"{number:04d}.log", logs / f"{number:04d}.done"
        log.touch()
        pid = os.fork()
        if pid:
            return cls(pid, done)
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        _note_parts(done)
        try:
            command(arguments)()
        except SystemExit as ended:
            os._exit(int(ended.code or 0))
        os._exit(1)

    def whole_parts(self) -> list[float]:
        """What it had spent when each of its parts was whole."""
        return [float(line) for line in self.done.read_text().splitlines()] if self.done.exists() else []

    def wait(self, hang: bool = True) -> tuple[int, float] | None:
        """Its exit status and the seconds it spent; None where it still runs and is not waited for."""
        pid, status, used = os.wait4(self.pid, 0 if hang else os.WNOHANG)
        return (os.waitstatus_to_exitcode(status), _seconds(used)) if pid else None


@dataclass
class Bench:
    """The folder that everything lies in.

    Attributes:
        root: It.
        parts: Number of parts of each command.
        workers: How many work at a time.
        rng: Decides when which worker is killed.
        spent: By command, filled as they are run.
    """

    root: Path
    parts: int
    workers: int
    rng: np.random.Generator
    spent: dict[str, Spent] = field(default_factory=dict)

    def commands(self) -> Mapping[str, list[object]]:
        """The words of each command, up to the value of ``--out``."""
        one, inputs, cpu = self.root / "one", self.root / "inputs", ("--device", "cpu", "--out")
        options = ("--workers", 0, "--out")
        return {
            "index": ["index", inputs / "scenes", "--sensor", "s2=s2-rgb8", "--tile", TILE, *options],
            "pack": ["pack", one / "c.parquet", *options],
            "embed": ["embed", inputs / "run", "--data", one / "p.zarr", "--input", "s2:B03", "--batch-size", 64, *cpu],
            "curate": ["curate", one / "e.parquet", "--keep", 0.2, *cpu],
        }

    def run(self, kills: int) -> None:
        """Run every command both ways, and kill as many workers in all."""
        shares = self.rng.multinomial(kills, [1 / len(RESULTS)] * len(RESULTS))
        for (name, words), share in zip(self.commands().items(), shares.tolist(), strict=True):
            spent = self.spent[name] = Spent()
            one, many = self.root / "one", self.root / name
            copies = [one, *(self.root / f"{name}-{number}" for number in range(1, self.workers))]
            spent.one = float(np.mean(self.together([[*words, copy / RESULTS[name]] for copy in copies])))
            self.by_processes([*words, many / RESULTS[name], "--claim"], many / RESULTS[name], share, spent)
            spent.parts += self.together([["merge", many / RESULTS[name]]])[0]
            spent.equal = _equal(many, one)
            if parts_on_ray.MISSING is None:
                on_ray, notes = self.root / f"{name}-on-ray", self.root / f"{name}-notes"
                notes.mkdir()
                asked = [*words, on_ray / RESULTS[name], "--parts", self.parts]
                spent.ray = parts_on_ray.spent_on_ray(asked, notes, self.workers)
                spent.equal &= _equal(on_ray, one)
            console.print(f"{name}: {spent}", highlight=False)

    def import_everything(self) -> None:
        """Run every command here, so that what it imports is there in every process that is forked."""
        for name, words in self.commands().items():
            try:
                command([*words, self.root / "one" / RESULTS[name]])()
            except SystemExit as ended:
                if ended.code:
                    raise RuntimeError(f"{name} fails.") from ended
        # A forked process whose collector went through all of that would copy it, page by page.
        gc.collect()
        gc.freeze()

    def together(self, commands: Sequence[Sequence[object]]) -> list[float]:
        """Seconds of each of some commands that run at the same time.

        Raises:
            RuntimeError: One of them fails.
        """
        spent = []
        for worker in [Worker.start(words, self._logs) for words in commands]:
            ended = worker.wait()
            assert ended is not None
            if ended[0]:
                raise RuntimeError(f"{commands[0][0]} fails: {self._last_words()}")
            spent.append(ended[1])
        return spent

    def by_processes(self, arguments: Sequence[object], out: Path, kills: int, spent: Spent) -> None:
        """Do all parts by plain processes; one that is killed is started anew."""
        words = [*arguments, "--parts", self.parts]
        running = [Worker.start(words, self._logs) for _ in range(self.workers)]
        # A kill comes at a random moment of the time in which a random part is done.
        at = sorted(self.rng.uniform(0, self.parts, kills).tolist())
        began, before = time.monotonic(), 0
        while running:
            whole = len(list(parts_folder(out).glob("part-*")))
            if whole != before:
                began, before, each = time.monotonic(), whole, time.monotonic() - began
            if at and whole >= int(at[0]) and time.monotonic() - began >= (at[0] % 1) * (each if whole else 0.2):
                at.pop(0)
                os.kill(running[int(self.rng.integers(len(running)))].pid, signal.SIGKILL)
            for worker in list(running):
                ended = worker.wait(hang=False)
                if ended is None:
                    continue
                running.remove(worker)
                spent.parts += ended[1]
                if ended[0] == -signal.SIGKILL:
                    spent.kills += 1
                    spent.lost += ended[1] - max(worker.whole_parts(), default=0.0)
                    running.append(Worker.start(words, self._logs))
                elif ended[0]:
                    raise RuntimeError(f"{arguments[0]} fails: {self._last_words()}")
            time.sleep(0.002)

    @property
    def _logs(self) -> Path:
        return self.root / "logs"

    def _last_words(self) -> str:
        return max(self._logs.glob("*.log")).read_text(errors="replace")[-1000:]


def _equal(many: Path, one: Path) -> bool:
    """Whether every file that a command left is the one machine's."""
    made, expected = tree(many), tree(one)
    ours = {path: content for path, content in made.items() if ".parts/" not in path}
    return bool(ours) and ours == {path: expected.get(path) for path in ours}


def _seconds(used: resource.struct_rusage) -> float:
    return used.ru_utime + used.ru_stime


def _note_parts(path: Path) -> None:
    """Let this process note in a file what it has spent whenever a part is whole."""
    do_part = sharing.do_part

    def noted(*arguments: object) -> bool:
        first = do_part(*arguments)  # type: ignore[arg-type]  # whatever it is called with
        with path.open("a") as file:
            file.write(f"{_seconds(resource.getrusage(resource.RUSAGE_SELF))}\n")
        return first

    sharing.do_part = noted  # type: ignore[assignment]


def make_inputs(folder: Path, samples: int, rng: np.random.Generator) -> None:
    """Write scenes and an encoder."""
    (folder / "scenes" / "s2").mkdir(parents=True)
    for number in range(samples // TILES):
        path = folder / "scenes" / "s2" / f"{number:06d}.tif"
        write_tif(path, rng.integers(1, 250, (3, 2 * TILE, 2 * TILE)).astype(np.uint8))
        if number % SPOILT == SPOILT - 1:
            whole = path.read_bytes()
            path.write_bytes(whole[:1000] + bytes(1000) + whole[2000:])
    backbone = BackboneSpec(name="test_resnet", channels=1)
    sensor = SENSORS["s2-rgb8"]
    statistics = [BandStatistics(band=name, count=1, mean=125, std=72, minimum=1, maximum=249) for name in sensor.names]
    card = EncoderCard(
        backbone=backbone,
        method="byol",
        recipe="rs-byol-1",
        image_size=TILE,
        sensors={"s2": sensor},
        view_bands=(),
        statistics={"s2": tuple(statistics)},
        provenance={},
        weights_sha256="0" * 64,
    )
    save_encoder(folder / "run", build_encoder(backbone, seed=0), card)


def measure(samples: int, workers: int, kills: int, parts: int, seed: int) -> dict[str, Spent]:
    """Run everything, and give what each command spent.

    Args:
        samples: Number of samples.
        workers: How many work at a time.
        kills: How many workers are killed in all.
        parts: Number of parts of each command.
        seed: Decides pixels, and who is killed when.
    """
    rng = np.random.default_rng(seed)
    packing.CHUNK_BYTES = max(1, samples // CHUNKS) * 3 * TILE * TILE
    kmeans._ROWS_AT_ONCE = min(kmeans._ROWS_AT_ONCE, max(1, samples // CHUNKS))
    sharing.POLL = 0.05
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="parts-") as root:
        bench = Bench(Path(root) / "all", parts, workers, rng)
        small = Bench(Path(root) / "small", parts, workers, rng)
        for one, number in ((small, 16 * TILES), (bench, samples)):
            (one.root / "logs").mkdir(parents=True)
            make_inputs(one.root / "inputs", number, rng)
        with progress_shown(False):
            small.import_everything()
        bench.run(kills)
    return bench.spent


def figures(spent: Mapping[str, Spent]) -> dict[str, object]:
    """The last line."""
    one, parts, lost = (sum(getattr(each, name) for each in spent.values()) for name in ("one", "parts", "lost"))
    on_ray = [each.ray for each in spent.values()]
    return {
        "equal": all(each.equal for each in spent.values()),
        "kills": sum(each.kills for each in spent.values()),
        "redone_share": round(lost / one, 4),
        "overhead_vs_one": round((parts - lost) / one, 4),
        "ray_overhead": None if None in on_ray else round(sum(filter(None, on_ray)) / (parts - lost), 4),
        "ray_missing": parts_on_ray.MISSING,
    }


def main() -> None:
    """Measure, and print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000, help="Number of samples.")
    parser.add_argument("--workers", type=int, default=2, help="How many workers at a time.")
    parser.add_argument("--kill", type=int, default=8, help="How many of them are killed in all.")
    parser.add_argument("--parts", type=int, default=24, help="Number of parts of each command.")
    parser.add_argument("--seed", type=int, default=0, help="Decides pixels, and who is killed when.")
    parser.add_argument("--skip-ray", action="store_true", help="Leave Ray out, though it is installed.")
    options = parser.parse_args()
    if options.skip_ray:
        parts_on_ray.MISSING = "it was left out: --skip-ray"
    spent = measure(options.samples, options.workers, options.kill, options.parts, options.seed)
    table = Table(
        "command", "one machine, s", "overhead", "redone", "on Ray", "kills", "equal", title=describe(options.seed)
    )
    for name, each in spent.items():
        table.add_row(*each.row(name))
    console.print(table)
    found = figures(spent)
    print(json.dumps(found))
    sys.exit(not found["equal"])


if __name__ == "__main__":
    main()
