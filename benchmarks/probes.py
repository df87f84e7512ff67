"""The logistic probe beside scikit-learn's ``LogisticRegression``, and kNN on a million train vectors.

Logistic: 16,200 x 2,048 vectors of 10 classes, made like those of a pooled network: a latent vector whose spectrum
falls as rank^-1.1, mixed into 2,048 channels, rectified and averaged over four places. Classes overlap, so that about
three in four unseen vectors are told right. C is the one that the probe chooses on a validation split. Both then
minimise the same objective on the same standardised float32 matrix, from zero.

* ``logistic_speedup``: scikit-learn's seconds over ours. Ours run with the probe's own tolerance, and include the
  covariance. scikit-learn's are those of the loosest of the tolerances 1e-4 (its default), 1e-5, ... with which its
  objective comes within 1e-4 of the lower of the two, and of the faster of float32 and float64 input.
* ``speedup_default_tol``: the same with its default tolerance, however far from the minimum that stops.
* ``logistic_loss``, ``sklearn_loss``: the objective of each in float64. ``*_accuracy``: on unseen vectors.
* ``knn_peak_gib``: memory that ``KnnProbe`` with k = 20 takes beside its input (1,000,000 x 384 float32 train vectors
  and 10,000 queries, held in memory): ``ru_maxrss`` of a process of its own after ``fit`` and ``predict`` less that
  before them.

``--vectors FILE.npz`` takes the logistic probe's data from a file: arrays ``features`` and ``labels``, and
``test_features`` and ``test_labels``, of real vectors for example.

Usage: ``python benchmarks/probes.py [--repeats 3] [--vectors FILE.npz]``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from machine import describe
from terrasieve.console import console, progress_bar, track
from terrasieve.probes.knn import KnnProbe
from terrasieve.probes.linear.logistic import LogisticProbe
from terrasieve.probes.linear.solver import minimise, prepare_features
from terrasieve.probes.probe import Labelled

CLASSES, CHANNELS, LATENT, TELLING, PLACES = 10, 2048, 256, 32, 4
KNN_CLASSES, KNN_LENGTH = 100, 384
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7)
CLOSE = 1e-4
"""Share by which two objectives may differ."""

Floats = NDArray[np.float32]


class Fitted(NamedTuple):
    """What one fit took and reached."""

    seconds: float
    loss: float
    accuracy: float


class Task(NamedTuple):
    """Standardised vectors, and the C to fit them with."""

    train: Labelled
    test: Labelled
    c: float


# --------------------------------------------------------------------------- logistic


def pooled(count: int, seed: int) -> Labelled:
    """Vectors like those of a pooled network: not negative, correlated, of overlapping classes."""
    world, generator = np.random.default_rng(0), np.random.default_rng([seed, count])
    centres = np.zeros((CLASSES, LATENT), dtype=np.float32)
    centres[:, :TELLING] = 0.45 * world.standard_normal((CLASSES, TELLING), dtype=np.float32)
    mixing = world.standard_normal((LATENT, CHANNELS), dtype=np.float32)
    bias = -0.5 * world.random(CHANNELS, dtype=np.float32)
    spectrum = np.arange(1, LATENT + 1, dtype=np.float32) ** -1.1
    spectrum /= np.linalg.norm(spectrum)
    labels = generator.integers(0, CLASSES, count)
    latent = centres[labels] + generator.standard_normal((count, LATENT), dtype=np.float32)
    features = np.zeros((count, CHANNELS), dtype=np.float32)
    for _ in range(PLACES):
        place = latent + 0.3 * generator.standard_normal((count, LATENT), dtype=np.float32)
        noise = 0.03 * generator.standard_normal((count, CHANNELS), dtype=np.float32)
        features += np.maximum((place * spectrum) @ mixing + bias + noise, 0) / PLACES
    return Labelled(features, labels.astype(np.int64))


def load(path: Path, count: int) -> tuple[Labelled, Labelled]:
    """Train and test vectors of a file."""
    with np.load(path) as file:
        train = Labelled(file["features"][:count], file["labels"][:count].astype(np.int64))
        return train, Labelled(file["test_features"], file["test_labels"].astype(np.int64))


def prepared(arguments: argparse.Namespace, seed: int) -> Task:
    """Data of one turn; C is chosen on a validation split that is no part of train or test."""
    if arguments.vectors:
        train, test = load(arguments.vectors, arguments.rows)
        held, test = (Labelled(test.features[part::2], test.labels[part::2]) for part in (0, 1))
    else:
        train, held, test = (pooled(count, seed) for count in (arguments.rows, 2000, 4000))
    probe = LogisticProbe(grid=[arguments.c] if arguments.c else LogisticProbe().grid)
    probe.fit(train.features, train.labels, held)
    scaled = (probe.scaler_.transform(part.features).astype(np.float32) for part in (train, test))
    x, unseen = scaled
    return Task(Labelled(x, train.labels), Labelled(unseen, test.labels), probe.c_)


def ours(task: Task) -> Fitted:
    """The minimum as the probe finds it, from zero."""
    began = time.perf_counter()
    x, labels = torch.from_numpy(task.train.features), torch.from_numpy(task.train.labels)
    fit = minimise(prepare_features(x, labels), task.c, 3000)
    return reached(task, time.perf_counter() - began, fit.weights.double().numpy(), fit.intercept.double().numpy())


def theirs(task: Task, dtype: type[np.floating[Any]], tolerance: float) -> Fitted:
    """scikit-learn with its default solver."""
    x = task.train.features.astype(dtype)
    began = time.perf_counter()
    model = LogisticRegression(C=task.c, tol=tolerance, max_iter=100_000).fit(x, task.train.labels)
    spent = time.perf_counter() - began
    return reached(task, spent, model.coef_.T.astype(np.float64), model.intercept_.astype(np.float64))


def reached(task: Task, seconds: float, weights: NDArray[np.float64], intercept: NDArray[np.float64]) -> Fitted:
    """The objective in float64 and the accuracy, by one function for whoever found the weights."""
    x, unseen = (torch.from_numpy(part.features).double() for part in (task.train, task.test))
    found = torch.from_numpy(np.ascontiguousarray(weights)), torch.from_numpy(intercept)
    losses = functional.cross_entropy(x @ found[0] + found[1], torch.from_numpy(task.train.labels), reduction="sum")
    loss = float(task.c * losses + 0.5 * found[0].square().sum())
    predicted = (unseen @ found[0] + found[1]).argmax(dim=1).numpy()
    return Fitted(seconds, loss, float((predicted == task.test.labels).mean()))


def compare(arguments: argparse.Namespace, seed: int) -> dict[str, float]:
    """One turn on one data set."""
    task = prepared(arguments, seed)
    own = ours(task)
    first = {dtype: theirs(task, dtype, TOLERANCES[0]) for dtype in (np.float32, np.float64)}
    dtype = min(first, key=lambda kind: first[kind].seconds)
    peer, tolerance = first[dtype], TOLERANCES[0]
    for tolerance in TOLERANCES:
        peer = first[dtype] if tolerance == TOLERANCES[0] else theirs(task, dtype, tolerance)
        if peer.loss <= (1 + CLOSE) * own.loss:
            break
    return {
        "logistic_speedup": peer.seconds / own.seconds,
        "speedup_default_tol": first[dtype].seconds / own.seconds,
        "logistic_s": own.seconds,
        "sklearn_s": peer.seconds,
        "sklearn_tol": tolerance,
        "logistic_loss": own.loss,
        "sklearn_loss": peer.loss,
        "sklearn_default_tol_loss": first[dtype].loss,
        "logistic_accuracy": own.accuracy,
        "sklearn_accuracy": peer.accuracy,
        "c": task.c,
    }


def beside_sklearn(arguments: argparse.Namespace) -> dict[str, float]:
    """Turns with one seed after the other; the median of each figure."""
    seeds = range(arguments.seed, arguments.seed + arguments.repeats)
    turns = [compare(arguments, seed) for seed in track(seeds, "logistic, turns")]
    table = Table("figure", "median", "lowest", "highest", title=f"logistic, {arguments.rows:,} vectors")
    for name in turns[0]:
        values = [turn[name] for turn in turns]
        table.add_row(name, *(f"{figure(values):.6g}" for figure in (statistics.median, min, max)))
    console.print(table)
    return {name: float(f"{statistics.median(turn[name] for turn in turns):.6g}") for name in turns[0]}


# --------------------------------------------------------------------------- kNN


def mixture(count: int, seed: int) -> Labelled:
    """Vectors around a centre for each class, made with little memory beside them."""
    centres = np.random.default_rng(0).standard_normal((KNN_CLASSES, KNN_LENGTH), dtype=np.float32)
    generator = np.random.default_rng([seed, count])
    labels = generator.integers(0, KNN_CLASSES, count)
    features = np.empty((count, KNN_LENGTH), dtype=np.float32)
    for start in range(0, count, 4096):
        part = slice(start, start + 4096)
        noise = generator.standard_normal((len(labels[part]), KNN_LENGTH), dtype=np.float32)
        features[part] = centres[labels[part]] + 5 * noise
    return Labelled(features, labels)


def measure_knn(arguments: argparse.Namespace) -> dict[str, float]:
    """Fit and predict; memory is what that takes beyond the vectors."""
    train, queries = mixture(arguments.train, arguments.seed), mixture(arguments.queries, arguments.seed + 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    predicted = KnnProbe().fit(train.features, train.labels).predict(queries.features)
    spent = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "knn_peak_gib": round((peak - before) / 2**20, 3),
        "knn_s": round(spent, 2),
        "knn_accuracy": float((predicted == queries.labels).mean()),
    }


def knn_alone(arguments: argparse.Namespace) -> dict[str, float]:
    """Measure kNN in a process of its own, so that its peak is its own."""
    command = [sys.executable, __file__, "--knn-alone"]
    for name in ("train", "queries", "seed"):
        command += [f"--{name}", str(getattr(arguments, name))]
    with progress_bar() as bar:
        bar.add_task(f"kNN, {arguments.queries:,} queries of {arguments.train:,} vectors", total=None, note="")
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    console.print(figures)
    return figures


def main() -> None:
    """Print tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16_200)
    parser.add_argument("--c", type=float, help="fit with this C instead of the one that the probe chooses")
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--train", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-knn", action="store_true")
    parser.add_argument("--knn-alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.knn_alone:
        print(json.dumps(measure_knn(arguments)))
        return
    # First, while this process is small: a child's peak is counted from what its parent held when it was started.
    knn = {} if arguments.skip_knn else knn_alone(arguments)
    figures = beside_sklearn(arguments) | knn
    machine = describe(arguments.seed)
    print(machine)
    print(json.dumps(figures | {"machine": machine}))


if __name__ == "__main__":
    main()
