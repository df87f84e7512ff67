"""The pools of the curation study: how they are chosen and what they hold."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from study_settings import Study, class_groups, labels_of
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive
from terrasieve.config import load_curator
from terrasieve.console import console
from terrasieve.curation.diagnostics import diagnose
from terrasieve.curation.sampling import water_fill
from terrasieve.embeddings.inputs import EncoderInput, join
from terrasieve.embeddings.stream import EmbedSettings, calibrated_encoders, embed_batches
from terrasieve.files.writing import write_text
from terrasieve.models.export import load_encoder
from terrasieve.views.render import Normaliser


def make_pool(study: Study, packed: PackedArchive, arm: str, seed: int) -> NDArray[np.int64] | None:
    """The fixed pool of a run; None for the whole archive, from which dynamic curation chooses itself."""
    path = study.folder(arm, seed) / "pool.npy"
    keep = round(study.settings.keep * len(packed))
    if arm not in ("random", "static", "oracle"):
        return None
    if not path.is_file():
        generator = np.random.default_rng([seed, 0])
        if arm == "random":
            pool = np.sort(generator.permutation(len(packed))[:keep])
        elif arm == "oracle":
            pool = balance_labels(labels_of(packed), keep, generator)
        else:
            pool = choose_once(study, packed, keep, seed)
        _save(path, pool)
    return np.asarray(np.load(path), dtype=np.int64)


def balance_labels(labels: NDArray[np.str_], keep: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """As many of each class as there are, up to a common level that makes ``keep`` of them together."""
    classes, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    quotas = water_fill(sizes, keep, generator.permutation(len(classes)))
    members = [generator.permutation(np.flatnonzero(codes == code)) for code in range(len(classes))]
    return np.sort(np.concatenate([own[:quota] for own, quota in zip(members, quotas, strict=True)]))


def choose_once(study: Study, packed: PackedArchive, keep: int, seed: int) -> NDArray[np.int64]:
    """Static curation: what the curator chooses from the vectors of the uncurated run's encoder."""
    choice = study.settings.choices["static"]
    vectors = vectors_of(study, packed, study.folder("uncurated", seed), np.arange(len(packed)), choice.size)
    curator, *settings = choice.curator.split()
    selection = load_curator(curator, settings).select(vectors, keep, seed)
    found = diagnose(vectors, selection, labels=labels_of(packed), seed=seed).as_dict()
    write_text(study.folder("static", seed) / "diagnostics.json", json.dumps(found, indent=1))
    return selection.indices


def vectors_of(
    study: Study, packed: PackedArchive, folder: Path, measured: NDArray[np.int64], size: int
) -> NDArray[np.float32]:
    """The archive through the eyes of a finished run's encoder, as dynamic curation would look at it.

    Args:
        study: The study, which says what the encoder is shown.
        packed: The skewed archive.
        folder: The run.
        measured: Samples that batch normalisation is measured on.
        size: Height and width in pixels that samples are shown in.
    """
    encoder, card = load_encoder(folder)
    inputs = tuple(EncoderInput.parse(name).resolve(packed.sensors) for name in study.settings.inputs)
    settings = EmbedSettings(size=size, precision=study.settings.precision)
    shown = (packed, inputs, Normaliser(packed.sensors, card.statistics), settings)
    encoders = calibrated_encoders(encoder, *shown, measured, 0)
    batches = embed_batches(encoders, *shown, np.arange(len(packed)))
    return np.concatenate([join(found) for _, found in batches])


def try_curators(study: Study, curators: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """What the pools of several curators hold, chosen by the encoders of finished runs.

    Args:
        study: The study.
        curators: Each a curator's name with its settings behind it, such as ``balanced diversity=0``.
        seed: Of the runs and of the choice.

    Returns:
        For each arm of ``uncurated`` and ``dynamic`` that is finished, each size at which the archive is seen (32 or 64
        pixels), each set of samples that batch normalisation is measured on (the archive, or the run's last pool), and
        each curator: what :func:`describe_pool` says, and the seconds of the choice.
    """
    packed = PackedArchive(study.store)
    whole, keep = np.arange(len(packed)), round(study.settings.keep * len(packed))
    found = []
    for arm in ("uncurated", "dynamic"):
        folder = study.folder(arm, seed)
        if study.result(arm, seed) is None:
            continue
        pool = final_pool(folder, None, len(packed))
        # An uncurated run trains on the archive: that is its pool.
        norms = {"archive": whole, **({"pool": pool} if len(pool) < len(whole) else {})}
        for size, (measured, samples) in itertools.product((32, 64), norms.items()):
            vectors = vectors_of(study, packed, folder, samples, size)
            for written in curators:
                name, *settings = written.split()
                selection = load_curator(name, settings).select(vectors, keep, seed)
                shown = {"arm": arm, "size": size, "batch_norms": measured, "curator": written}
                seconds = round(sum(selection.provenance["seconds"].values()), 1)
                found.append({**shown, **describe_pool(packed, selection.indices), "seconds": seconds})
                console.print(*found[-1].values(), highlight=False)
    return found


def final_pool(folder: Path, pool: NDArray[np.int64] | None, samples: int) -> NDArray[np.int64]:
    """The samples that a run trained on at its end."""
    rounds = sorted((folder / "curation").glob("round-*.parquet"))
    if not rounds:
        return np.arange(samples) if pool is None else pool
    return np.asarray(pq.read_table(rounds[-1])["index"].to_numpy())


def describe_pool(packed: Archive, pool: NDArray[np.int64]) -> dict[str, Any]:
    """Size, distinct originals, images of the tail, and the class entropy over that of equal classes."""
    table = packed.table()
    labels = labels_of(packed)
    ids = np.array(table["id"].to_pylist())
    copy_of = table["copy_of"].to_pylist()
    originals = {copy_of[i] or ids[i] for i in pool.tolist()}
    _, sizes = np.unique(labels[pool], return_counts=True)
    shares = sizes / sizes.sum()
    entropy = -(shares * np.log(shares)).sum() / np.log(len(np.unique(labels)))
    tail = np.isin(labels[pool], class_groups(packed)["tail"])
    return {
        "samples": len(pool),
        "originals": len(originals),
        "tail_samples": int(tail.sum()),
        "class_entropy": round(float(entropy), 4),
    }


def _save(path: Path, pool: NDArray[np.int64]) -> None:
    partial = path.with_suffix(".partial.npy")
    np.save(partial, pool)
    os.replace(partial, path)
