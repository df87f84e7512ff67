"""Clusters of vectors that lie in a file: memory beside the map, and what a pass costs beside its bare products.

A part of ``benchmarks/kmeans.py``, which see for the figures' names.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from terrasieve.console import console, track
from terrasieve.curation import kmeans
from terrasieve.curation.assignment import NearestCentroids
from terrasieve.curation.balanced import BalancedClusters, default_levels
from terrasieve.curation.candidates import candidates
from terrasieve.curation.curator import Selection
from terrasieve.curation.kmeans import KMeans

ROWS_AT_ONCE = 2048
"""Rows of a chunk, as :class:`KMeans` takes them."""


def write_vectors(path: Path, count: int, length: int, seed: int) -> None:
    """A float16 file of unit vectors around 2,000 centres, some of them a hundred times as frequent as others."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((2000, length), dtype=np.float32)
    frequency = 1 / np.arange(20, 2020)
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(count, length))
    for start in track(range(0, count, 10_000), "write vectors (chunks)", total=-(-count // 10_000)):
        size = min(10_000, count - start)
        labels = generator.choice(2000, size, p=frequency / frequency.sum())
        rows = centres[labels] + generator.standard_normal((size, length), dtype=np.float32)
        vectors[start : start + size] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    vectors.flush()


# ---------------------------------------------------------------------- memory


class Peak:
    """The most memory that this process held beside mapped files, looked at twenty times a second; Linux tells it."""

    def __init__(self) -> None:
        self.bytes = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text(encoding="ascii")
            kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon"))
            self.bytes = max(self.bytes, 1024 * int(kibibytes))
            if self._over.wait(0.05):
                return


@contextmanager
def few_products(share: float) -> Iterator[None]:
    """Let k-means multiply only a share of the chunks of each pass, and go by position in the others.

    Everything is read, scaled, held and added up as ever, so that the memory is that of whole passes.
    """
    every = max(1, round(1 / share))

    class Few(NearestCentroids):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.chunk = 0

        def __call__(self, chunk: Tensor) -> Tensor:
            self.chunk += 1
            if self.chunk % every == 1 % every:
                return super().__call__(chunk)
            return (torch.arange(len(chunk)) + 977 * self.chunk) % len(self.centroids)

    kmeans.NearestCentroids = Few  # type: ignore[misc,attr-defined]
    try:
        yield
    finally:
        kmeans.NearestCentroids = NearestCentroids  # type: ignore[misc,attr-defined]


def select(path: Path, share: float, seed: int) -> tuple[Selection, float]:
    """Curate a mapped file: every stage of it, one update and one resampling; and the memory that it took, in GiB."""
    vectors = np.load(path, mmap_mode="r")
    curator = BalancedClusters(iterations=1, resampling_steps=1, precision="bf16")
    with few_products(share), Peak() as peak:
        selection = curator.select(vectors, len(vectors) // 10, seed)
    return selection, peak.bytes / 2**30


# ------------------------------------------------------------------------- time


def pass_vs_product(vectors: NDArray[Any], centroids: Tensor, rows: int, turns: int) -> dict[str, float]:
    """CPU seconds of the bare bfloat16 products over those of passes that assign the same rows and add them up."""
    pool = candidates(vectors[:rows], 1, 0)
    nearest = NearestCentroids(centroids, ROWS_AT_ONCE, shortlist=True)
    rounded = (centroids - nearest.middle).bfloat16().T.contiguous()
    parts = [slice(start, min(start + ROWS_AT_ONCE, rows)) for start in range(0, rows, ROWS_AT_ONCE)]
    chunks = [(torch.from_numpy(pool.unit(part)) - nearest.middle).bfloat16() for part in parts]
    products = torch.empty(ROWS_AT_ONCE, len(centroids), dtype=torch.bfloat16)
    model = KMeans(len(centroids), iterations=0, precision="bf16")
    keys = pool.keys(0)
    # In turns, so that other loads meet both; the first turn brings memory and processor up.
    seconds: dict[str, list[float]] = {"product": [], "pass": []}
    for _ in track(range(turns + 1), "pass beside its products (turns)", total=turns + 1):
        began = time.process_time()
        for chunk in chunks:
            torch.mm(chunk, rounded, out=products[: len(chunk)])
        between = time.process_time()
        model.fit(pool, centroids, keys)
        seconds["product"].append(between - began)
        seconds["pass"].append(time.process_time() - between)
    bare, whole = (sum(spent[1:]) for spent in seconds.values())
    return {"bf16_pass_vs_product": bare / whole, "product_s": bare / turns, "pass_s": whole / turns}


def memory(arguments: argparse.Namespace) -> dict[str, object]:
    """Both measurements, on one file that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="kmeans_") as folder:
        path = Path(folder) / "vectors.npy"
        write_vectors(path, arguments.rows, arguments.length, arguments.seed)
        command = [sys.executable, __file__, str(path), "--share", str(arguments.share), "--seed", str(arguments.seed)]
        # In a process of its own, so that the memory is its own.
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        curated = json.loads(done.stdout.splitlines()[-1])
        vectors = np.load(path, mmap_mode="r")
        count = curated["clusters"]
        centroids = torch.from_numpy(candidates(vectors[-count:], 1, 0).unit(slice(None)))
        timed = pass_vs_product(vectors, centroids, min(arguments.pass_rows, len(vectors)), arguments.turns)
    figures = {"rows": arguments.rows, "length": arguments.length, **curated, **timed}
    table = Table("figure", "value", title=f"{arguments.rows:,} x {arguments.length:,} float16 in a file")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
    console.print(table)
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}


def main() -> None:
    """Curate one file and print what it took, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.process_time()
    selection, gib = select(arguments.vectors, arguments.share, arguments.seed)
    facts = selection.provenance
    figures = {
        "resident_gib": round(gib, 3),
        "clusters": default_levels(facts["n"])[0],
        "fitted_on": facts["fitted_on"],
        "kept": facts["kept"],
        "select_s": round(time.process_time() - began, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
