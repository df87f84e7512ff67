"""Compare a frozen encoder with its floors on a labelled archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from terrasieve.archive.protocol import Archive
from terrasieve.archive.statistics import measure
from terrasieve.console import progress_bar
from terrasieve.embeddings.inputs import EncoderInput, bands_by_sensor
from terrasieve.embeddings.joining import join
from terrasieve.embeddings.stream import EmbedSettings, device_of, embed_vectors
from terrasieve.errors import ConfigError, nearest
from terrasieve.models.backbone import Encoder, build_encoder
from terrasieve.models.export import EncoderCard
from terrasieve.probes.floors import ImageStatistics
from terrasieve.probes.knn import KnnProbe
from terrasieve.probes.logistic import LogisticProbe
from terrasieve.probes.metrics import BOOTSTRAP
from terrasieve.probes.mlp import MlpProbe
from terrasieve.probes.protocol import Labelled, Probe
from terrasieve.probes.rows import InputRow, ProbeRow, default_rows, distinct_members, input_row
from terrasieve.probes.splits import Splits, make_splits
from terrasieve.views.normalise import Normaliser

RANDOM_INIT = "random init"
IMAGE_STATISTICS = "image statistics"


@dataclass(frozen=True)
class _Task:
    """What every model of one comparison shares."""

    archive: Archive
    rows: tuple[InputRow, ...]
    splits: Splits
    normaliser: Normaliser
    settings: EmbedSettings
    probes: tuple[Probe, ...]
    data: str


def default_probes() -> tuple[Probe, ...]:
    """kNN, logistic regression and the paper's MLP, each with its defaults."""
    return KnnProbe(), LogisticProbe(), MlpProbe()


def probes_named(names: Sequence[str]) -> tuple[Probe, ...]:
    """Probes with their defaults by name, ``knn``, ``logistic`` or ``mlp`` in any case.

    Raises:
        ConfigError: There is no such probe.
    """
    known = {probe.name.lower(): probe for probe in default_probes()}
    for name in names:
        if name.lower() not in known:
            raise ConfigError(f"There is no probe {name!r}.{nearest(name, known)}")
    return tuple(known[name] for name in dict.fromkeys(name.lower() for name in names))


def evaluate(
    encoder: Encoder,
    card: EncoderCard,
    archive: Archive,
    inputs: Sequence[EncoderInput] | None = None,
    probes: Sequence[Probe] | None = None,
    settings: EmbedSettings | None = None,
    split_column: str = "split",
    seed: int = 0,
) -> list[ProbeRow]:
    """Probe an encoder and, always beside it, image statistics and its own backbone untrained.

    Pixels are standardised by statistics of the train split of this archive, the same for every model.
    Each sample passes each model once per distinct input, however many rows use it.

    Args:
        encoder: Runs on the device that it is on; left exactly as it is.
        card: The encoder's card.
        archive: A labelled archive.
        inputs: One row each. A single-band encoder is shown the bands of a larger input one by one, and
            their vectors, scaled to unit length, are joined. When None, every row that the archive offers;
            see :func:`terrasieve.probes.rows.default_rows`.
        probes: What to fit; :func:`default_probes` when None.
        settings: Size, batch size and precision; the defaults when None.
        split_column: Column of the archive's table with the published split.
        seed: Of the random initialisation, and of whatever the published split lacks.

    Returns:
        Rows ordered by model (the encoder, then the floors), input and probe.

    Raises:
        ArchiveError: The archive has no labels, or its published split is incomplete.
        BandError: An input does not exist in the archive or does not fit the encoder.
        ConfigError: There is no such split column.
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    channels = encoder.channels
    rows = (
        default_rows(archive.sensors, channels)
        if inputs is None
        else tuple(dict.fromkeys(input_row(one, archive.sensors, channels) for one in inputs))
    )
    task = _prepare(archive, rows, tuple(probes or default_probes()), settings or EmbedSettings(), split_column, seed)
    models: Mapping[str, nn.Module] = {
        card.recipe: encoder,
        RANDOM_INIT: build_encoder(card.backbone, seed).to(device_of(encoder)),
        IMAGE_STATISTICS: ImageStatistics(),
    }
    return [row for name, model in models.items() for row in _evaluate_model(name, model, task)]


def _prepare(
    archive: Archive,
    rows: tuple[InputRow, ...],
    probes: tuple[Probe, ...],
    settings: EmbedSettings,
    split_column: str,
    seed: int,
) -> _Task:
    splits = make_splits(archive.table(), seed, split_column)
    needed = list(bands_by_sensor(distinct_members(rows)))
    statistics = measure(archive, sensors=needed, indices=splits.train)
    normaliser = Normaliser(archive.sensors, statistics)
    return _Task(archive, rows, splits, normaliser, settings, probes, _describe(archive, splits, settings))


def _describe(archive: Archive, splits: Splits, settings: EmbedSettings) -> str:
    source = archive.source
    size = f"resized to {settings.size} px" if settings.size else "native size"
    kind = "SIMULATED data" if source.get("simulated") else "data"
    return (
        f"{kind}: {_named(source)}, {len(splits.classes)} classes, {size}, "
        f"split {splits.origin}, {len(splits.train)}/{len(splits.val)}/{len(splits.test)} samples, "
        f"pixels standardised per band on train; {BOOTSTRAP}"
    )


def _named(source: Mapping[str, Any]) -> str:
    return f"{source.get('layout')} {source['root']}" if source.get("root") else str(source.get("layout"))


def _evaluate_model(name: str, model: nn.Module, task: _Task) -> list[ProbeRow]:
    members = distinct_members(task.rows)
    used = np.concatenate([task.splits.train, task.splits.val, task.splits.test])
    vectors = embed_vectors(model, task.archive, members, task.normaliser, task.settings, used, f"embed: {name}")
    results = []
    with progress_bar() as bar:
        running = bar.add_task(f"probe: {name}", total=len(task.rows) * len(task.probes), note="")
        for row in task.rows:
            features = join(vectors[:, [members.index(one) for one in row.members]])
            for probe in task.probes:
                bar.update(running, note=f"{row.name} {probe.name}")
                results.append(_probe_row(name, row, probe, features, task))
                bar.advance(running)
    return results


def _probe_row(name: str, row: InputRow, probe: Probe, features: NDArray[np.float32], task: _Task) -> ProbeRow:
    splits = task.splits
    bounds = np.cumsum([len(splits.train), len(splits.val)])
    train, val, test = (
        Labelled(part, splits.labels[indices])
        for part, indices in zip(np.split(features, bounds), (splits.train, splits.val, splits.test), strict=True)
    )
    result = probe.fit(train.features, train.labels, val).score(test.features, test.labels)
    return ProbeRow(
        model=name,
        inputs=row.name,
        probe=probe.name,
        protocol=result.protocol,
        data=task.data,
        metrics=result.metrics,
        ci95=result.ci95,
        chosen=result.chosen,
        n_train=len(train.labels),
        n_test=len(test.labels),
    )
