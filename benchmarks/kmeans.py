"""k-means beside FAISS, a tree of two levels, the balance that it gives, and how both grow with the archive.

The data are unit vectors of a long-tailed mixture: 200 classes whose frequencies fall as rank^-1.2, unit Gaussian
centres, noise 1.2, length 384.

* ``speedup_vs_faiss``: FAISS's seconds (K = 2,000, 20 iterations) over those of ``KMeans`` with its defaults, with as
  many threads.
* ``objective_ratio``: mean squared distance to the nearest centroid, ours over FAISS's, by one exact function.
* ``two_level_vs_faiss``: seconds of ``HierarchicalKMeans((2000, 200))`` with resampling over FAISS's for one level.
* ``entropy_balanced``, ``entropy_raw``: class entropy, normalised to 1, of 10 % drawn by that tree, and of the data.
* ``exact_vs_bf16``: seconds of an assignment in which bfloat16 chooses candidates and float32 decides, over those of
  one in which bfloat16 decides, which is wrong for a share ``bf16_wrong`` of the rows. Each chunk is timed both ways in
  turn. Only a processor with instructions for bfloat16 gives the ratio its meaning.
* ``pass_exact_vs_bf16``: the same of a whole pass, which also measures distances and adds the rows up.
* ``exact_vs_float32``: seconds of the exact assignment over those of float32 alone.
* ``rechecked_share``: share of the rows with more than one candidate; ``rechecked_products``: products computed again
  in float32 as a share of those in bfloat16.
* ``..._cone``: the same figures for the same vectors moved into a narrow cone (mean cosine above 0.99).

``--scaling`` instead runs ``KMeans`` on 20,000 to 1,000,000 points with K growing as the square root, each in a process
of its own, and prints seconds, peak memory beside the input, and the exponent of the time's growth.

``--memory`` instead curates 1,000,000 unit vectors of length 2,048, float16 in a temporary file of 4 GB, into a tree of
8,000 and 800 clusters (``BalancedClusters`` with its defaults, but one update and one resampling):

* ``resident_gib``: the most memory that the process held beside the mapped file, its libraries included. Every stage
  runs at full size, on all rows: the look at all of them, keys, the rows held for fitting (512,000), the seeding, each
  pass and the draw. Whole passes would take half an hour of two cores, so of each pass only a share of the chunks
  (``--share``) is multiplied; the others are read, scaled and added up, and go to centroids by their position.
* ``bf16_pass_vs_product``: CPU seconds of the bare bfloat16 products of 65,536 rows (``--pass-rows``) and 8,000
  centroids over those of a pass over the same rows from the file, which converts and scales them, decides in float32,
  measures distances and adds up: 1 would be a pass for nothing but its products. Both in turns (``--turns``).

``--ranks 2`` instead runs ``KMeans`` (60,000 points, K = 2,000) in one process, and in so many that hold an equal
share of the points each, in turns; every process has one thread:

* ``ranks_vs_one``: seconds of the processes together over those of the one, without starting them; of use only where
  each has a core to itself.
* ``cpu_vs_one``: processor seconds of the busiest of them over those of the one, which others on the machine change
  less; waiting for each other is not in it.
* ``centroid_gap``: largest difference of a component of a centroid, over the mean length of centroids.
* ``labels_equal``: share of the points that both assign to the same centroid.
* ``same``: whether the gap is below 1e-4 and all but 1 in 10,000 labels are equal: sums differ in their order alone.

Usage: ``python benchmarks/kmeans.py [--scaling | --memory | --ranks 2] [--repeats 3]``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor, distributed, multiprocessing

from kmeans_memory import memory
from machine import describe
from terrasieve.console import console, track
from terrasieve.curation.assignment import NearestCentroids
from terrasieve.curation.hierarchy import HierarchicalKMeans
from terrasieve.curation.keys import row_keys
from terrasieve.curation.kmeans import KMeans
from terrasieve.curation.sampling import draw, tree_quotas
from terrasieve.curation.shares import SharedVectors
from terrasieve.processes.ranks import largest_number, own_part

CLASSES, LENGTH = 200, 384
SIZES = (20_000, 60_000, 200_000, 1_000_000)


def mixture(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Long-tailed unit vectors and their classes."""
    generator = np.random.default_rng(seed)
    frequency = np.arange(1, CLASSES + 1) ** -1.2
    labels = generator.choice(CLASSES, count, p=frequency / frequency.sum())
    centres = generator.standard_normal((CLASSES, LENGTH), dtype=np.float32)
    vectors = np.empty((count, LENGTH), dtype=np.float32)
    for start in range(0, count, 50_000):
        part = slice(start, start + 50_000)
        chosen = labels[part]
        vectors[part] = centres[chosen] + 1.2 * generator.standard_normal((len(chosen), LENGTH), dtype=np.float32)
        vectors[part] /= np.linalg.norm(vectors[part], axis=1, keepdims=True)
    return vectors, labels


def entropy(labels: NDArray[np.int64]) -> float:
    """Entropy of the classes, 1 where all are as frequent."""
    shares = np.bincount(labels, minlength=CLASSES) / len(labels)
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum() / math.log(CLASSES))


def objective(vectors: NDArray[np.float32], centroids: NDArray[np.float32]) -> float:
    """Mean squared distance to the nearest centroid, by FAISS's exact index for whoever found them."""
    index = faiss.IndexFlatL2(LENGTH)
    index.add(np.ascontiguousarray(centroids))
    distances, _ = index.search(vectors, 1)
    return float(distances.mean(dtype=np.float64))


def seconds_of(work: Callable[[], object]) -> float:
    """Wall-clock seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def fit_faiss(vectors: NDArray[np.float32], clusters: int, seed: int) -> NDArray[np.float32]:
    """FAISS as its users run it."""
    # It would thin the data to 256 points a centroid; here there are fewer, and it says that there should be more.
    model = faiss.Kmeans(LENGTH, clusters, niter=20, seed=seed + 1, min_points_per_centroid=1)
    model.train(vectors)
    centroids: NDArray[np.float32] = model.centroids
    return centroids


def balanced(tree: HierarchicalKMeans, vectors: NDArray[np.float32], share: float, seed: int) -> NDArray[np.int64]:
    """Rows that a tree draws."""
    found = tree.assign(vectors)
    sizes = np.bincount(found.labels, minlength=len(tree.centroids_[0]))
    quotas = tree_quotas(sizes, tree.parents_, round(share * len(vectors)), seed)
    return draw(found.labels, found.distances, quotas, row_keys(vectors, seed), 0.0)


def cone(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors as unit vectors around one axis, as those of a young encoder are."""
    moved = vectors + np.float32(12 / math.sqrt(LENGTH))
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), dtype=np.float32)


def precisions(vectors: NDArray[np.float32], centroids: Tensor) -> dict[str, float]:
    """Assignment by bfloat16 alone, by bfloat16 and float32, and by float32 alone, chunk by chunk."""
    size, turns = 2048, 3
    exact, single = (NearestCentroids(centroids, size, shortlist) for shortlist in (True, False))
    rounded = exact.centroids.bfloat16().T.contiguous()
    products, scores = torch.empty(size, len(centroids), dtype=torch.bfloat16), torch.empty(size, len(centroids))

    def plain(rows: Tensor) -> Tensor:
        # Memory is used again here as well: the ratio shall show what deciding in float32 costs, and nothing else.
        torch.mm((rows - exact.middle).bfloat16(), rounded, out=products[: len(rows)])
        return torch.sub(exact.half, products[: len(rows)], out=scores[: len(rows)]).argmin(dim=1)

    def rest(rows: Tensor) -> None:
        # What every pass does with the labels, however they were found.
        found = torch.arange(len(rows)) % len(centroids)
        (rows - centroids[found]).square().sum(dim=1)
        torch.zeros_like(centroids).index_add_(0, found, rows)

    ways = {"bf16": plain, "exact": exact, "float32": single, "rest": rest}
    seconds = dict.fromkeys(ways, 0.0)
    wrong = rechecked = candidates = 0
    for chunk in torch.from_numpy(vectors).split(size):
        for name, way in ways.items():
            seconds[name] += min(seconds_of(lambda way=way, chunk=chunk: way(chunk)) for _ in range(turns))
        wrong += int((plain(chunk) != exact(chunk)).sum())
        counts, columns = exact.candidates(chunk)
        rechecked, candidates = rechecked + int((counts > 1).sum()), candidates + len(columns)
    return {
        "exact_vs_bf16": seconds["exact"] / seconds["bf16"],
        "pass_exact_vs_bf16": (seconds["exact"] + seconds["rest"]) / (seconds["bf16"] + seconds["rest"]),
        "exact_vs_float32": seconds["exact"] / seconds["float32"],
        "bf16_wrong": wrong / len(vectors),
        "rechecked_share": rechecked / len(vectors),
        "rechecked_products": candidates / (len(vectors) * len(centroids)),
    }


def compare(count: int, clusters: int, seed: int) -> dict[str, float]:
    """One turn of everything, on one data set."""
    vectors, labels = mixture(count, seed)
    began = time.perf_counter()
    theirs = fit_faiss(vectors, clusters, seed)
    peer = time.perf_counter() - began
    model = KMeans(clusters, seed=seed)
    ours = seconds_of(lambda: model.fit(vectors))
    tree = HierarchicalKMeans((clusters, clusters // 10), seed=seed)
    levels = seconds_of(lambda: tree.fit(vectors))
    narrow = cone(vectors)
    in_cone = precisions(narrow, KMeans(clusters, seed=seed).fit(narrow).centroids_)
    return {
        "faiss_s": peer,
        "kmeans_s": ours,
        "two_level_s": levels,
        "speedup_vs_faiss": peer / ours,
        "objective_ratio": objective(vectors, model.centroids_.numpy()) / objective(vectors, theirs),
        "two_level_vs_faiss": levels / peer,
        "entropy_balanced": entropy(labels[balanced(tree, vectors, 0.1, seed)]),
        "entropy_raw": entropy(labels),
        **precisions(vectors, model.centroids_),
        **{f"{name}_cone": value for name, value in in_cone.items()},
    }


def beside_faiss(arguments: argparse.Namespace) -> dict[str, object]:
    """Turns with one seed after the other; the median of each figure."""
    turns = [compare(arguments.points, arguments.clusters, seed) for seed in track(range(arguments.repeats), "turns")]
    figures: dict[str, object] = {name: round(statistics.median(turn[name] for turn in turns), 4) for name in turns[0]}
    table = Table(
        "figure", "median", "lowest", "highest", title=f"{arguments.points:,} x {LENGTH}, K = {arguments.clusters:,}"
    )
    for name in turns[0]:
        values = [turn[name] for turn in turns]
        table.add_row(name, f"{statistics.median(values):.4f}", f"{min(values):.4f}", f"{max(values):.4f}")
    console.print(table)
    return figures


# --------------------------------------------------------------------------- scaling


def one_size(count: int, seed: int) -> dict[str, float]:
    """Fit one size; memory is what the process takes beyond the vectors."""
    vectors, _ = mixture(count, seed)
    clusters = round(2000 * math.sqrt(count / 60_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = seconds_of(lambda: KMeans(clusters, seed=seed).fit(vectors))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "points": count,
        "clusters": clusters,
        "seconds": round(spent, 2),
        "peak_gib": round((peak - before) / 2**20, 3),
    }


def scaling(arguments: argparse.Namespace) -> dict[str, object]:
    """Each size in a process of its own, so that its peak is its own."""
    rows = []
    for size in track(SIZES, "sizes", total=len(SIZES)):
        command = [sys.executable, __file__, "--one-size", str(size), "--seed", str(arguments.seed)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    table = Table("points", "K", "seconds", "memory beside the input, GiB")
    for row in rows:
        table.add_row(f"{row['points']:,}", f"{row['clusters']:,}", f"{row['seconds']:.1f}", f"{row['peak_gib']:.2f}")
    console.print(table)
    logs = np.log([[row["points"], row["seconds"]] for row in rows])
    return {
        "exponent": round(float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]), 3),
        "peak_gib": max(row["peak_gib"] for row in rows),
        "sizes": rows,
    }


# --------------------------------------------------------------------------- ranks


def one_rank(rank: int, arguments: argparse.Namespace, port: int, folder: Path) -> None:
    """Fit with the others, turn by turn, and again as if there were no others while these wait."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=arguments.ranks, rank=rank)
    shared, alone, busy, figures = [], [], [], {}
    for turn in range(arguments.repeats):
        seed = arguments.seed + turn
        vectors, _ = mixture(arguments.points, seed)
        own = own_part(len(vectors))
        share = SharedVectors(vectors[own].copy(), own.start, len(vectors))
        models = [KMeans(arguments.clusters, seed=seed) for _ in range(2)]
        distributed.barrier()
        began = time.process_time()
        shared.append(seconds_of(lambda: models[0].fit(share)))  # noqa: B023  # called at once
        busiest = largest_number(round(1e6 * (time.process_time() - began)))
        labels = models[0].assign(share).labels
        # The other processes wait at the next barrier, which costs no processor time.
        if rank == 0:
            began = time.process_time()
            alone.append(seconds_of(lambda: models[1].fit(vectors)))  # noqa: B023  # called at once
            busy.append(busiest / 1e6 / (time.process_time() - began))
            centroids = models[1].centroids_
            gap = (models[0].centroids_ - centroids).abs().max() / centroids.norm(dim=1).mean()
            figures["centroid_gap"] = max(figures.get("centroid_gap", 0.0), float(gap))
            equal = float((models[1].assign(vectors).labels == labels).mean())
            figures["labels_equal"] = min(figures.get("labels_equal", 1.0), equal)
        distributed.barrier()
    if rank == 0:
        ratios = [together / one for together, one in zip(shared, alone, strict=True)]
        figures |= {"ranks_s": statistics.median(shared), "one_s": statistics.median(alone)}
        figures |= {"ranks_vs_one": statistics.median(ratios), "cpu_vs_one": statistics.median(busy)}
        (folder / "figures.json").write_text(json.dumps(figures))
    distributed.destroy_process_group()


def over_ranks(arguments: argparse.Namespace) -> dict[str, object]:
    """Processes that share the points beside one that has them all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(one_rank, (arguments, port, Path(folder)), nprocs=arguments.ranks)
        figures: dict[str, object] = json.loads(Path(folder, "figures.json").read_text())
    same = float(str(figures["centroid_gap"])) < 1e-4 and float(str(figures["labels_equal"])) >= 1 - 1e-4
    table = Table("figure", "value", title=f"{arguments.points:,} x {LENGTH}, K = {arguments.clusters:,}")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)
    return {"ranks": arguments.ranks, **figures, "same": same}


def main() -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=60_000)
    parser.add_argument("--clusters", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--ranks", type=int, default=1, help="processes that share the points, above 1")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the file of --memory")
    parser.add_argument("--length", type=int, default=2048, help="of its vectors")
    parser.add_argument("--share", type=float, default=0.01, help="of the chunks that --memory multiplies, above 0")
    parser.add_argument("--pass-rows", type=int, default=65_536, help="of the passes that --memory times")
    parser.add_argument("--turns", type=int, default=2, help="of these passes")
    parser.add_argument("--one-size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one_size:
        print(json.dumps(one_size(arguments.one_size, arguments.seed)))
        return
    faiss.omp_set_num_threads(torch.get_num_threads())
    alone = memory if arguments.memory else scaling if arguments.scaling else beside_faiss
    work = over_ranks if arguments.ranks > 1 else alone
    figures = work(arguments)
    print(describe(arguments.seed))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
