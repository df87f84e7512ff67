"""Indexing many small files: speed as a share of a bare look at them, memory, and going on after a kill.

Small GeoTIFF files (two bands of 32x32 float32, deflated) are written to a temporary folder. Then, each in a
process of its own so that one's memory and open files are not the other's:

- *bare*: ``os.scandir`` and rasterio's header of every file, one after the other;
- *index*: ``index_archive`` of all files, which reads headers and pixels, checks them and writes the catalogue, with
  as many reader processes as ``terrasieve index`` starts by itself (``--workers``);
- *tenth*: the same of a tenth of the files, so that the growth of memory with their number shows; and once more
  without reader processes;
- *resumed*: killed when half of the samples are recorded in the journal, then run again.

    python benchmarks/index.py --files 100000

The last line is JSON: ``files_per_second`` of *index*; ``share_of_bare``, the same divided by that of *bare*;
``share_of_bare_alone``, that of the tenth without reader processes; ``peak_mib`` and ``peak_mib_tenth``, by how much
the main process grew beyond what it had after its imports; ``kib_per_file``, the slope between the two;
``peak_mib_reader``, all that the largest reader process held, what it shares with the main one included;
``resumed_share``, the share of samples that the second run did not read again; ``same_result``, whether it wrote the
catalogue that the uninterrupted run wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import Value
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine
from rich.table import Table

from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.quality.audit import BATCH
from terrasieve.archive.scenes.tiled import ScenesArchive, ScenesSpec, SensorFolder
from terrasieve.console import console, track
from terrasieve.parallel import spare_cores

SIZE = 32
FOLDER, TENTH = "all", "tenth"


def make_files(root: Path, files: int) -> None:
    """Files of two bands in ``all``, and a tenth of them once more, as hard links, in ``tenth``."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "count": 2, "height": SIZE, "width": SIZE, "dtype": "float32", "crs": "EPSG:32632"}
    for name in (FOLDER, TENTH):
        (root / name / "s1").mkdir(parents=True)
    for number in track(range(files), "Making files", total=files):
        path = root / FOLDER / "s1" / f"{number:06d}.tif"
        transform = Affine(10, 0, 500_000 + 320 * (number % 1000), 0, -10, 5_000_000 + 320 * (number // 1000))
        with rasterio.open(path, "w", transform=transform, compress="deflate", **profile) as dataset:
            dataset.write(rng.normal(-12, 3, (2, SIZE, SIZE)).astype(np.float32))
        if number % 10 == 0:
            os.link(path, root / TENTH / "s1" / path.name)


def bare(folder: Path) -> dict[str, float]:
    start, count = time.perf_counter(), 0
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"):
        for entry in os.scandir(folder / "s1"):
            with rasterio.open(entry.path, sharing=False) as dataset:
                count += dataset.height == SIZE and dataset.crs is not None and dataset.transform.a == 10
    return {"files": count, "seconds": time.perf_counter() - start}


def index(folder: Path, out: Path, workers: int) -> dict[str, float]:
    """Index a folder and count how many of its samples are read."""
    before, start = _peak_kib(), time.perf_counter()
    archive = _Counting(ScenesSpec(root=folder, sensors={"s1": SensorFolder(folder=Path("s1"), sensor="s1")}, tile=32))
    report = index_archive(archive, out, workers=workers)
    seconds = time.perf_counter() - start
    grown = (_peak_kib() - before) / 1024
    reader = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    read = archive.reads.value
    return {"files": report.samples, "seconds": seconds, "peak_mib": grown, "reader_mib": reader, "read": read}


class _Counting(ScenesArchive):
    """Counts what is read, by whichever process; readers inherit the counter."""

    def __init__(self, spec: ScenesSpec) -> None:
        super().__init__(spec)
        self.reads = Value("q")

    def _read(self, *arguments: Any) -> Any:
        with self.reads.get_lock():
            self.reads.value += 1
        return super()._read(*arguments)


def _peak_kib() -> int:
    """Most memory so far. A child's ru_maxrss begins with what its parent held, so that Linux' VmHWM is preferred."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def apart(*arguments: str | Path | int) -> subprocess.Popen[str]:
    """This script in a process of its own, at one of its parts."""
    console.print(f"{arguments[0]} {Path(arguments[1]).name}", highlight=False)
    command = [sys.executable, __file__, "--part", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, float]:
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a part of the benchmark ended with {process.returncode}")
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def resume(root: Path, files: int, workers: int) -> float:
    """Kill an index half way and run it again; the share of samples that were not read a second time."""
    out = root / "resumed" / "c.parquet"
    journal = out.with_name(f".{out.name}.journal")
    process = apart("index", root / FOLDER, out, workers)
    while process.poll() is None and _lines(journal) * BATCH < files / 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if not journal.exists():
        raise SystemExit("the index was through before it could be killed; use more --files")
    return 1 - result(apart("index", root / FOLDER, out, workers))["read"] / files


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=spare_cores(), help="reader processes")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(_part(*arguments.part)))
        return
    with tempfile.TemporaryDirectory() as folder:
        measured = compare(Path(folder), arguments.files, arguments.workers)
    table = Table("what", "files/s", "MiB more", title=f"{arguments.files:,} files of 2x{SIZE}x{SIZE} float32")
    table.add_row("os.scandir and header", f"{measured['bare_files_per_second']:,.0f}", "")
    table.add_row("index", f"{measured['files_per_second']:,.0f}", f"{measured['peak_mib']:.1f}")
    alone = measured["share_of_bare_alone"] * measured["bare_files_per_second"]
    table.add_row("index of a tenth", "", f"{measured['peak_mib_tenth']:.1f}")
    table.add_row("index of a tenth in one process", f"{alone:,.0f}", "")
    console.print(table)
    from machine import describe  # imports torch, which the parts do without

    print(describe(seed=0))
    print(json.dumps({name: round(value, 3) for name, value in measured.items()}))


def _part(name: str, folder: str, out: str = "", workers: str = "0") -> dict[str, float]:
    return bare(Path(folder)) if name == "bare" else index(Path(folder), Path(out), int(workers))


def compare(root: Path, files: int, workers: int) -> dict[str, float]:
    make_files(root, files)
    alone = result(apart("index", root / TENTH, root / "out" / "alone.parquet", 0))
    tenth = result(apart("index", root / TENTH, root / "out" / "tenth.parquet", workers))
    first = result(apart("bare", root / FOLDER))
    whole = result(apart("index", root / FOLDER, root / "out" / "c.parquet", workers))
    second = result(apart("bare", root / FOLDER))
    resumed = resume(root, files, workers)
    plain = files / min(first["seconds"], second["seconds"])
    same = (root / "out" / "c.parquet").read_bytes() == (root / "resumed" / "c.parquet").read_bytes()
    return {
        "files_per_second": files / whole["seconds"],
        "bare_files_per_second": plain,
        "share_of_bare": files / whole["seconds"] / plain,
        "share_of_bare_alone": alone["files"] / alone["seconds"] / plain,
        "workers": workers,
        "peak_mib": whole["peak_mib"],
        "peak_mib_tenth": tenth["peak_mib"],
        "peak_mib_reader": whole["reader_mib"],
        "kib_per_file": (whole["peak_mib"] - tenth["peak_mib"]) * 1024 / (files - tenth["files"]),
        "resumed_share": resumed,
        "same_result": same,
    }


if __name__ == "__main__":
    main()
