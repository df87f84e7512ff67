"""Indexing many small files: speed as a share of a bare read of them, memory, reopening, and going on after a kill.

Small GeoTIFF files (two bands of 32x32 float32, deflated) are written to a temporary folder. Then, each in a
process of its own so that one's memory and open files are not the other's:

- *alone*: of a tenth of the files, in turn and in one process, ``os.scandir`` with header and pixels of every file in
  one open of rasterio, and ``index_archive``; CPU time of each, the least of several turns;
- *headers*: ``os.scandir`` and rasterio's header of every file, one after the other;
- *index*: ``index_archive`` of all files, which reads headers and pixels, checks them and writes the catalogue, with
  as many reader processes as ``terrasieve index`` starts by itself (``--workers``);
- *tenth*: the same of a tenth of the files, so that the growth of memory with their number shows;
- *reopened*: CPU time of opening a catalogue of 100,000 rows, which are those of *index* again and again;
- *resumed*: killed when half of the samples are recorded in the journal, then run again.

    python benchmarks/index.py --files 100000

The last line is JSON: ``share_of_bare``, the bare CPU time a file of *alone* divided by that of ``index_archive``;
``bare_us_per_file`` and ``index_us_per_file``, the two; ``reopen_us_per_file`` of *reopened*; ``files_per_second`` of
*index*; ``share_of_headers``, the same divided by that of *headers*; ``peak_mib`` and ``peak_mib_tenth``, by how much
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
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Value
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from rasterio.transform import Affine
from rich.table import Table

from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.opening import open_archive
from terrasieve.archive.quality.audit import BATCH, Auditor
from terrasieve.archive.scenes.survey import ScenesSpec, SensorFolder
from terrasieve.console import console, track
from terrasieve.processes.parallel import spare_cores

SIZE = 32
TURNS = 5
ROWS = 100_000
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


def headers(folder: Path) -> dict[str, float]:
    """Seconds of a look at every header."""
    start, count = time.perf_counter(), 0
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"):
        for entry in os.scandir(folder / "s1"):
            with rasterio.open(entry.path, sharing=False) as dataset:
                count += dataset.height == SIZE and dataset.crs is not None and dataset.transform.a == 10
    return {"files": count, "seconds": time.perf_counter() - start}


def read_bare(folder: Path) -> int:
    """Header and pixels of every file, each in one open and with nothing checked; how many there are."""
    count = 0
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        for entry in sorted(os.scandir(folder / "s1"), key=lambda one: one.name):
            with rasterio.open(entry.path, sharing=False) as dataset:
                header = (dataset.profile, dataset.tags(), dataset.descriptions, dataset.crs.to_string())
                count += header[0]["height"] == SIZE and dataset.read().shape == (2, SIZE, SIZE)
    return count


def alone(folder: Path, out: Path) -> dict[str, float]:
    """CPU time a file of a bare read and of an index, in turn in this process; the least of each."""
    bare_seconds, index_seconds = [], []
    read_bare(folder)
    for _ in range(TURNS):
        start = time.process_time()
        files = read_bare(folder)
        bare_seconds.append(time.process_time() - start)
        start = time.process_time()
        index_archive(spec_of(folder), out)
        index_seconds.append(time.process_time() - start)
    return {"bare_us": min(bare_seconds) / files * 1e6, "index_us": min(index_seconds) / files * 1e6}


def reopened(catalogue: Path, out: Path) -> dict[str, float]:
    """CPU time of opening a catalogue that has the rows of another one again and again."""
    rows = pq.read_table(catalogue)
    many = pa.concat_tables([rows] * -(-ROWS // len(rows))).slice(0, ROWS)
    names = pa.array([f"{number:06d}/0_0" for number in range(ROWS)])
    many = many.set_column(many.column_names.index("id"), "id", names).replace_schema_metadata(rows.schema.metadata)
    pq.write_table(many.combine_chunks(), out, compression="zstd", row_group_size=16_384)
    del rows, many
    open_archive(catalogue)  # imports and caches are no part of what a row costs
    seconds = []
    for _ in range(TURNS):
        start = time.process_time()
        samples = len(open_archive(out))
        seconds.append(time.process_time() - start)
    return {"us": min(seconds) / samples * 1e6}


def spec_of(folder: Path) -> ScenesSpec:
    """The files as scenes of one tile each."""
    return ScenesSpec(root=folder, sensors={"s1": SensorFolder(folder=Path("s1"), sensor="s1")}, tile=SIZE)


def index(folder: Path, out: Path, workers: int) -> dict[str, float]:
    """Index a folder and count how many of its samples are read."""
    before, start = _peak_kib(), time.perf_counter()
    with _counting() as read:
        report = index_archive(spec_of(folder), out, workers=workers)
    seconds = time.perf_counter() - start
    grown = (_peak_kib() - before) / 1024
    reader = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"files": report.samples, "seconds": seconds, "peak_mib": grown, "reader_mib": reader, "read": read.value}


@contextmanager
def _counting() -> Iterator[Any]:
    """Counts what is judged, by whichever process; readers inherit the counter."""
    reads, judge = Value("q"), Auditor.judge

    def counted(self: Auditor, index: int) -> Any:
        with reads.get_lock():
            reads.value += 1
        return judge(self, index)

    Auditor.judge = counted  # type: ignore[method-assign]
    try:
        yield reads
    finally:
        Auditor.judge = judge  # type: ignore[method-assign]


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
    table = Table("what", "files/s", "us CPU a file", "MiB more", title=f"{arguments.files:,} files of 2x{SIZE}x{SIZE}")
    table.add_row("os.scandir and header", f"{measured['headers_per_second']:,.0f}", "", "")
    table.add_row("header and pixels, one process", "", f"{measured['bare_us_per_file']:,.0f}", "")
    table.add_row("index, one process", "", f"{measured['index_us_per_file']:,.0f}", "")
    table.add_row("index", f"{measured['files_per_second']:,.0f}", "", f"{measured['peak_mib']:.1f}")
    table.add_row("index of a tenth", "", "", f"{measured['peak_mib_tenth']:.1f}")
    table.add_row("open a catalogue", "", f"{measured['reopen_us_per_file']:.2f}", "")
    console.print(table)
    from machine import describe  # imports torch, which the parts do without

    print(describe(seed=0))
    print(json.dumps({name: round(value, 3) for name, value in measured.items()}))


def _part(name: str, folder: str, out: str = "", workers: str = "0") -> dict[str, float]:
    place, target = Path(folder), Path(out)
    if name == "headers":
        return headers(place)
    if name == "alone":
        return alone(place, target)
    return reopened(place, target) if name == "reopened" else index(place, target, int(workers))


def compare(root: Path, files: int, workers: int) -> dict[str, float]:
    """All figures of the last line."""
    make_files(root, files)
    out = root / "out" / "c.parquet"
    single = result(apart("alone", root / TENTH, root / "out" / "alone.parquet"))
    tenth = result(apart("index", root / TENTH, root / "out" / "tenth.parquet", workers))
    first = result(apart("headers", root / FOLDER))
    whole = result(apart("index", root / FOLDER, out, workers))
    second = result(apart("headers", root / FOLDER))
    again = result(apart("reopened", out, root / "many.parquet"))
    resumed = resume(root, files, workers)
    plain = files / min(first["seconds"], second["seconds"])
    return {
        "share_of_bare": single["bare_us"] / single["index_us"],
        "bare_us_per_file": single["bare_us"],
        "index_us_per_file": single["index_us"],
        "reopen_us_per_file": again["us"],
        "files_per_second": files / whole["seconds"],
        "headers_per_second": plain,
        "share_of_headers": files / whole["seconds"] / plain,
        "workers": workers,
        "peak_mib": whole["peak_mib"],
        "peak_mib_tenth": tenth["peak_mib"],
        "peak_mib_reader": whole["reader_mib"],
        "kib_per_file": (whole["peak_mib"] - tenth["peak_mib"]) * 1024 / (files - tenth["files"]),
        "resumed_share": resumed,
        "same_result": out.read_bytes() == (root / "resumed" / "c.parquet").read_bytes(),
    }


if __name__ == "__main__":
    main()
