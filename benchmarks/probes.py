"""The probes beside their peers: logistic regression against scikit-learn, kNN over a million vectors.

``logistic``: 16,200 train and 5,400 test vectors of length 2,048 in ten overlapping classes, made to look like the
pooled features of a ResNet50: averages of rectified, correlated activations with a decaying spectrum. Both minimise the
same objective on the same standardised vectors at the same C from zero: scikit-learn's ``LogisticRegression`` with its
own tolerance, in float32, and ``terrasieve.probes.softmax.minimise``, as the logistic probe calls it, covariance included.

* ``logistic_speedup``: scikit-learn's seconds over ours, both with all threads; median of ``--repeats``.
* ``loss_ratio``: our objective over scikit-learn's, in float64; below 1 ours is the lower minimum.
* ``accuracy``, ``accuracy_sklearn``: on the test vectors.

``kNN``: 10,000 queries against 1,000,000 x 384 in a process of its own.

* ``knn_peak_gib``: the most memory that the process held while it fitted and predicted, beyond what it held with the
  vectors, labels and queries loaded.
* ``knn_seconds``, ``knn_product_share``: its time, and what share of it the bare matrix products take in the same run.

Usage: ``python benchmarks/probes.py [--repeats 3] [--c 0.01]``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from machine import describe
from terrasieve.console import console, track
from terrasieve.probes.knn import KnnProbe
from terrasieve.probes.softmax import covariance_blocks, minimise, objective

TRAIN, TEST, LENGTH, CLASSES = 16_200, 5_400, 2_048, 10
STORED, QUERIES, WIDTH = 1_000_000, 10_000, 384
LATENT, SEPARATION = 512, 0.3


def features(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors as a ResNet's pooling gives them, and their classes; the same world for every seed."""
    world, own = torch.Generator().manual_seed(1234), torch.Generator().manual_seed(seed)
    centres = SEPARATION * torch.randn(CLASSES, LATENT, generator=world)
    spectrum = torch.arange(1, LATENT + 1).rsqrt()
    mixing = torch.randn(LATENT, LENGTH, generator=world)
    shift = -0.5 * torch.rand(LENGTH, generator=world)
    labels = torch.randint(CLASSES, (count,), generator=own)
    place = centres[labels] + torch.randn(count, LATENT, generator=own)
    pooled = torch.zeros(count, LENGTH)
    for _ in range(4):
        seen = (place + 0.7 * torch.randn(count, LATENT, generator=own)) * (spectrum / spectrum.norm())
        pooled += torch.relu(seen @ mixing + shift + 0.3 * torch.randn(count, LENGTH, generator=own)) / 4
    return pooled.numpy(), labels.numpy()


def logistic(c: float, repeats: int) -> dict[str, float]:
    """Both fits on the same vectors."""
    vectors, labels = features(TRAIN, 0)
    held, truth = features(TEST, 1)
    scaler = StandardScaler().fit(vectors)
    train, test = (scaler.transform(part).astype(np.float32) for part in (vectors, held))
    known = torch.from_numpy(train), torch.from_numpy(labels)
    ours, theirs = [], []
    for _ in track(range(repeats), "logistic regression, both"):
        began = time.perf_counter()
        start = known[0].new_zeros(LENGTH, CLASSES), known[0].new_zeros(CLASSES)
        fit = minimise(*known, covariance_blocks(known[0]), c, start, 300)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        peer = LogisticRegression(C=c, max_iter=5000).fit(train, labels)
        theirs.append(time.perf_counter() - began)
    exact = known[0].double(), known[1]
    pairs = (
        (fit.weights.double(), fit.intercept.double()),
        (torch.from_numpy(peer.coef_.T).double(), torch.from_numpy(peer.intercept_).double()),
    )
    losses = [float(objective(*pair, *exact, c)) for pair in pairs]
    rows = torch.from_numpy(test).double()
    scores = [(rows @ weights + intercept).argmax(dim=1).numpy() for weights, intercept in pairs]
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "logistic_speedup": round(statistics.median(ratios), 2),
        "logistic_speedup_lowest": round(min(ratios), 2),
        "logistic_seconds": round(statistics.median(ours), 2),
        "sklearn_seconds": round(statistics.median(theirs), 2),
        "iterations": fit.iterations,
        "sklearn_iterations": int(peer.n_iter_.max()),
        "loss_ratio": losses[0] / losses[1],
        "accuracy": float((scores[0] == truth).mean()),
        "accuracy_sklearn": float((scores[1] == truth).mean()),
    }


def knn() -> dict[str, float]:
    """In this process: load, then fit and predict; the peak is of the whole process."""
    generator = np.random.default_rng(0)
    stored = generator.standard_normal((STORED, WIDTH), dtype=np.float32)
    queries = generator.standard_normal((QUERIES, WIDTH), dtype=np.float32)
    labels = generator.integers(CLASSES, size=STORED)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    KnnProbe().fit(stored, labels).predict(queries)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    began = time.perf_counter()
    held = torch.from_numpy(queries)
    for first in range(0, STORED, 2**14):
        for part in held.split(256):
            part @ torch.from_numpy(stored[first : first + 2**14]).T
    products = time.perf_counter() - began
    return {
        "knn_peak_gib": round(peak / 2**20, 3),
        "knn_seconds": round(seconds, 1),
        "knn_product_share": round(products / seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--c", type=float, default=0.01, help="inverse strength of the penalty")
    parser.add_argument("--knn", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.knn:
        print(json.dumps(knn()))
        return
    console.print(f"{TRAIN:,} x {LENGTH:,}, {CLASSES} classes, C = {options.c:g}: fitting both", highlight=False)
    measured = logistic(options.c, options.repeats)
    console.print(f"{QUERIES:,} queries against {STORED:,} x {WIDTH}: kNN in a process of its own", highlight=False)
    command = [sys.executable, __file__, "--knn"]
    # A process of its own, because the peak of memory is never taken back.
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    measured |= json.loads(found.stdout.splitlines()[-1])
    for name, value in measured.items():
        console.print(f"{name:26} {value}", highlight=False)
    print(json.dumps({**measured, "c": options.c, "machine": describe(seed=0)}))


if __name__ == "__main__":
    main()
