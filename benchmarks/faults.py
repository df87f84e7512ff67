"""What kills, full and read-only disks and second writers do to the results of every command.

Each command is run once without a fault, and the changes that it makes to the file system are counted. Then it is
killed (SIGKILL) at chosen ones of them, each time in an empty folder, and run again in the same words; what lies in the
folder then has to be what the undisturbed run left, byte for byte. Clocks stand still in all runs, and chunks hold
eight samples.

After the kills, each command meets a disk that fills up, a disk that becomes read-only, and a second process with the
same output. Each has to end in one line, and the same words have to come to the same result afterwards.

    python benchmarks/faults.py

The last line is JSON: ``kills``; ``same``, after how many of them the result was equal; ``leftovers``, files that an
undisturbed run does not leave; ``lost``, files that are missing or differ, and second runs that failed; ``full``,
``read_only`` and ``two_writers``, how many commands met these faults; ``refusals``, how many of them ended as they
should; ``tracebacks``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from faults_commands import command, commands, make_inputs, reduce_chunks
from faults_events import Child, Ended, Fault
from terrasieve.console import console

DISKS: Mapping[str, Fault] = {"full": "full", "read_only": "read-only"}


class Bench:
    """The folder that commands run in, and what they did there.

    Args:
        root: A folder of the bench's own.

    Attributes:
        found: Sums of what is found, by name, over all commands.
        notes: A line for each fault that did harm.
    """

    def __init__(self, root: Path) -> None:
        self.work, self.logs = root / "work", root / "logs"
        self.logs.mkdir()
        self.found: Counter[str] = Counter()
        self.notes: list[str] = []

    def start(self, arguments: Sequence[object], fault: Fault = "none", at: int = 0) -> Child:
        """A process that runs a command in the folder."""
        return Child.start(command(arguments), self.work, self.logs, fault, at)

    def empty(self) -> None:
        """Remove what the commands wrote."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()

    def undisturbed(self, arguments: Sequence[object]) -> tuple[Mapping[str, str], int]:
        """What a command leaves, and after how many events.

        Raises:
            RuntimeError: It fails, or leaves something else the second time, so that nothing could be compared.
        """
        left: list[Mapping[str, str]] = []
        for _ in range(2):
            self.empty()
            ended = self.start(arguments).wait()
            if ended.status:
                raise RuntimeError(f"{' '.join(map(str, arguments))} fails without a fault: {ended.said[-2000:]}")
            left.append(tree(self.work))
        if left[0] != left[1]:
            raise RuntimeError(f"{arguments[0]} is not repeatable: {sorted(dict(left[0].items() ^ left[1].items()))}")
        return left[0], ended.events

    def kill(self, name: str, arguments: Sequence[object], expected: Mapping[str, str], at: int) -> None:
        """Kill a command at an event, run it again, and compare."""
        self.empty()
        ended = self.start(arguments, "kill", at).wait()
        if ended.status != -signal.SIGKILL:
            raise RuntimeError(f"{name} was not killed at event {at}: {ended.said[-500:]}")
        self.found["kills"] += 1
        self.found["same"] += self.repeat(f"{name}, killed at event {at}", arguments, expected)

    def repeat(self, title: str, arguments: Sequence[object], expected: Mapping[str, str]) -> bool:
        """Run a command once more after a fault; whether it comes to what it comes to without one."""
        again = self.start(arguments).wait()
        left = tree(self.work)
        more = sorted(left.keys() - expected.keys())
        lost = sorted(path for path, content in expected.items() if left.get(path) != content)
        self.found["leftovers"] += len(more)
        self.found["lost"] += len(lost) + (again.status != 0)
        if more or lost or again.status:
            self.notes.append(f"{title}: left over {more}, lost {lost}, status {again.status} {again.said[-300:]}")
        return not (more or lost or again.status)

    def fill(self, kind: str, name: str, arguments: Sequence[object], expected: Mapping[str, str], at: int) -> None:
        """Let the disk of a command take nothing more from an event on, and run the command again on a good one."""
        self.empty()
        ended = self.start(arguments, DISKS[kind], at).wait()
        self.found[kind] += 1
        refused = self.refused(f"{name}, disk {kind} from event {at}", ended, "Error")
        self.found["refusals"] += refused and self.repeat(f"{name}, after a disk {kind}", arguments, expected)

    def write_twice(self, name: str, arguments: Sequence[object], expected: Mapping[str, str], at: int) -> None:
        """Stop a command at an event, run it a second time meanwhile, and let the first go on."""
        self.empty()
        first = self.start(arguments, "stop", at)
        if not first.wait_until_stopped():
            raise RuntimeError(f"{name} ended before event {at}.")
        self.found["two_writers"] += 1
        said = f"is being written by another process: {first.pid} on"
        refused = self.refused(f"{name}, second writer", self.start(arguments).wait(), said)
        os.kill(first.pid, signal.SIGCONT)
        ended = first.wait()
        same = not ended.status and tree(self.work) == expected
        if not same:
            self.found["lost"] += 1
            self.notes.append(f"{name}, first writer: status {ended.status} {ended.said[-300:]}")
        self.found["refusals"] += refused and same

    def refused(self, title: str, ended: Ended, said: str) -> bool:
        """Whether a command ended with status 1 and these words, and without a traceback."""
        self.found["tracebacks"] += "Traceback" in ended.said
        right = ended.status == 1 and said in ended.said and "Traceback" not in ended.said
        # What nobody foresaw is an error of this program, not of the disk.
        right = right and "fault of terrasieve" not in ended.said
        if not right:
            self.notes.append(f"{title}: status {ended.status} {ended.said[-400:]}")
        return right


def tree(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder, by its path there."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(share: float, only: Sequence[str]) -> tuple[Table, Bench]:
    """Do everything, and show it by command."""
    table = Table("command", "events", "kills", "same")
    with tempfile.TemporaryDirectory(prefix="faults-") as root:
        inputs = Path(root) / "inputs"
        inputs.mkdir()
        bench = Bench(Path(root))
        for arguments in make_inputs(inputs):
            ended = Child.start(command(arguments), inputs, bench.logs).wait()
            if ended.status:
                raise RuntimeError(f"{arguments[0]} fails: {ended.said[-2000:]}")
        for name, (arguments, kills) in commands(inputs).items():
            if only and name not in only:
                continue
            expected, events = bench.undisturbed(arguments)
            before = Counter(bench.found)
            # Spread over the command, its first and last event among them.
            for at in np.unique(np.linspace(1, events, max(2, round(kills * share))).astype(int)).tolist():
                bench.kill(name, arguments, expected, at)
            for kind in DISKS:
                bench.fill(kind, name, arguments, expected, events // 2)
            bench.write_twice(name, arguments, expected, max(2, events // 2))
            killed = [str(bench.found[key] - before[key]) for key in ("kills", "same")]
            table.add_row(name, str(events), *killed)
            console.print(f"{name}: {events} events, {killed[0]} kills, {killed[1]} same", highlight=False)
    return table, bench


def main() -> None:
    """Measure, and print a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="Share of the kills to try; about 150 at 1.")
    parser.add_argument("--only", nargs="+", default=[], help="Commands to try, by name; all.")
    options = parser.parse_args()
    reduce_chunks()
    table, bench = run(options.share, options.only)
    console.print(table)
    for note in bench.notes:
        console.print(f"- {note}", highlight=False, markup=False, soft_wrap=True)
    names = ("kills", "same", "leftovers", "lost", *DISKS, "two_writers", "refusals", "tracebacks")
    print(json.dumps({name: bench.found[name] for name in names}))
    sys.exit(bench.found["same"] < bench.found["kills"])


if __name__ == "__main__":
    main()
