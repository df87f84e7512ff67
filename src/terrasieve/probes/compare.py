"""Compare a frozen encoder with its floors, or several models with each other, on a labelled archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from terrasieve.archive.protocol import Archive
from terrasieve.archive.statistics import measure
from terrasieve.console import progress_bar
from terrasieve.draws import stratified_subset
from terrasieve.embeddings.inputs import EncoderInput, bands_by_sensor, join
from terrasieve.embeddings.stream import EmbedSettings, calibrated_encoders, device_of, embed_vectors
from terrasieve.errors import ConfigError
from terrasieve.probes.metrics import BOOTSTRAP
from terrasieve.probes.models import Candidate, Showing, check_names, showing
from terrasieve.probes.probe import Labelled, Probe, ProbeResult, probes_named
from terrasieve.probes.results import InputRow, Measured, ProbeRow, data_set_of, describe_source, distinct_members
from terrasieve.probes.splits import Splits
from terrasieve.views.render import Normaliser


@dataclass(frozen=True)
class ProbeTask:
    """What every model of one comparison shares.

    Attributes:
        archive: The labelled archive that pixels are read from.
        splits: Its samples in three parts, and what is predicted of them.
        normaliser: Standardises pixels by the train split.
        settings: Size, batch size and precision.
        probes: What is fitted on the vectors of each model.
        train_shares: Shares of the train split that each probe is fitted on.
        seed: Seed of every draw, 0 or more.
        data: Archive, sizes, split and normalisation in one line.
    """

    archive: Archive
    splits: Splits
    normaliser: Normaliser
    settings: EmbedSettings
    probes: tuple[Probe, ...]
    train_shares: tuple[float, ...]
    seed: int
    data: str


@dataclass(frozen=True)
class Embedded:
    """Vectors of the samples of a comparison under one model; see :func:`embed_candidate`.

    Attributes:
        candidate: The model that the vectors are of.
        shown: The bands that it was shown, and how, in the order of the lines of a table.
        plain: Vectors ``(n, features)`` by input, of bands as they are.
        copied: Such vectors by row, where a band was copied into the channels of a network or stood for another.
        models: The model that each input of ``plain`` passed, with batch norms measured on its pixels where the
            candidate calibrates.
    """

    candidate: Candidate
    shown: tuple[Showing, ...]
    plain: Mapping[EncoderInput, NDArray[np.float32]]
    copied: Mapping[InputRow, Mapping[EncoderInput, NDArray[np.float32]]]
    models: Mapping[EncoderInput, nn.Module]

    def vectors(self, shown: Showing) -> NDArray[np.float32]:
        """Of the train, validation and test samples, in that order: shape ``(n, members, features)``."""
        found = self.copied[shown.row] if shown.note else self.plain
        return np.stack([found[member] for member in shown.row.members], axis=1)


def prepare(
    archive: Archive,
    splits: Splits,
    rows: Sequence[InputRow],
    probes: Sequence[Probe] | None = None,
    settings: EmbedSettings | None = None,
    train_shares: Sequence[float] = (1.0,),
    seed: int = 0,
) -> ProbeTask:
    """Measure what every model of a comparison shares.

    Args:
        archive: The labelled archive that pixels are read from.
        splits: Its train, validation and test samples, from :func:`terrasieve.probes.splits.make_splits`.
        rows: Everything that any model will be shown.
        probes: What to fit; the quick probes of the target's kind when None.
        settings: Size, batch size and precision; ``EmbedSettings()`` when None.
        train_shares: Shares of the train split to fit on, each above 0 and at most 1.
        seed: Seed of every draw, 0 or more.

    Raises:
        ConfigError: A probe is made for another kind of target.
        SampleError: A sample of the train split cannot be read.
    """
    settings, chosen = settings or EmbedSettings(), _chosen(probes, splits)
    # Of the train split alone: pixels of test samples have no say in how they are standardised.
    statistics = measure(archive, sensors=list(bands_by_sensor(distinct_members(rows))), indices=splits.train)
    return ProbeTask(
        archive=archive,
        splits=splits,
        normaliser=Normaliser(archive.sensors, statistics),
        settings=settings,
        probes=chosen,
        train_shares=tuple(train_shares),
        seed=seed,
        data=describe_data(archive, splits, settings),
    )


def with_target(task: ProbeTask, splits: Splits, probes: Sequence[Probe] | None = None) -> ProbeTask:
    """A task with another target of the same samples, for which the same vectors serve.

    Args:
        task: What was prepared for one target.
        splits: The same train, validation and test samples with the other target.
        probes: What to fit; the quick probes of the target's kind when None.

    Raises:
        ConfigError: A probe is made for another kind of target.
    """
    data = describe_data(task.archive, splits, task.settings)
    return replace(task, splits=splits, probes=_chosen(probes, splits), data=data)


def _chosen(probes: Sequence[Probe] | None, splits: Splits) -> tuple[Probe, ...]:
    chosen = tuple(probes or probes_named((), splits.target.task))
    foreign = next((probe for probe in chosen if probe.task != splits.target.task), None)
    if foreign is not None:
        raise ConfigError(
            f"The probe {foreign.name} is made for {foreign.task}, but {splits.target.column!r} is a target of "
            f"{splits.target.task}; choose another probe or target."
        )
    return chosen


def compare(candidates: Sequence[Candidate], inputs: Sequence[EncoderInput], task: ProbeTask) -> list[Measured]:
    """Probe several models on the same samples.

    Args:
        candidates: The models; the first is the one in question.
        inputs: What each is shown; all must fit all of them.
        task: What all models share, from :func:`prepare`.

    Returns:
        Ordered by model, input, share of the train split and probe.

    Raises:
        BandError: An input does not exist or does not fit a candidate.
        ConfigError: Two candidates have the same name.
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    check_names(candidates)
    return [one for candidate in candidates for one in fit_probes(embed_candidate(candidate, inputs, task), task)]


def describe_data(archive: Archive, splits: Splits, settings: EmbedSettings) -> str:
    """Archive, sizes, split and normalisation in one line."""
    classes = splits.classes
    shared = splits.overlapping
    leak = f"{shared:.0%} of the test samples overlap others in the rest of the split, " if shared else ""
    size = f"resized to {settings.size} px" if settings.size else "native size"
    what = f"{len(classes)} classes" if classes else f"{splits.target.column} as a number"
    return (
        f"{describe_source(archive.source)}, {what}, {size}, "
        f"split {splits.origin}, {len(splits.train)}/{len(splits.val)}/{len(splits.test)} samples, {leak}"
        f"pixels standardised per band on train, batch norms of runs and random init measured there per input; "
        f"{BOOTSTRAP}"
    )


def embed_candidate(candidate: Candidate, inputs: Sequence[EncoderInput], task: ProbeTask) -> Embedded:
    """Pass every sample of a comparison through one model, once per distinct input.

    Raises:
        BandError: An input does not exist or does not fit the model.
        SampleError: A sample cannot be read, or samples differ in size and no size is set.
    """
    shown = tuple(showing(candidate, one, task.archive.sensors) for one in inputs)
    plain, models = _embed(candidate, candidate.model, [one.row for one in shown if not one.note], task)
    # A copied band passes through another network than the bands as they are.
    copied = {one.row: _embed(candidate, one.model, [one.row], task)[0] for one in shown if one.note}
    return Embedded(candidate, shown, plain, copied, models)


def fit_probes(embedded: Embedded, task: ProbeTask) -> list[Measured]:
    """Fit and score every probe of a task on what one model was shown; ordered by input, share and probe."""
    found: list[Measured] = []
    with progress_bar() as bar:
        total = len(embedded.shown) * len(task.probes) * len(task.train_shares)
        running = bar.add_task(f"probe: {embedded.candidate.name}", total=total, note="")
        for one in embedded.shown:
            features = join(embedded.vectors(one))
            for share in task.train_shares:
                for probe in task.probes:
                    bar.update(running, note=f"{one.row.name} {probe.name}")
                    found.append(measure_probe(embedded.candidate, one, probe, features, task, share))
                    bar.advance(running)
    return found


def _embed(
    candidate: Candidate, model: nn.Module, rows: Sequence[InputRow], task: ProbeTask
) -> tuple[dict[EncoderInput, NDArray[np.float32]], dict[EncoderInput, nn.Module]]:
    """Vectors of the train, validation and test samples, in that order, and the model that gave them, by input."""
    members = distinct_members(rows)
    if not members:
        return {}, {}
    splits, shown = task.splits, (task.archive, members, task.normaliser, task.settings)
    models: Sequence[nn.Module] = (model,) * len(members)
    if candidate.calibrates:
        # Of the train split alone, as the normaliser.
        models = calibrated_encoders(model, *shown, splits.train, task.seed)
    vectors = embed_vectors(models, *shown, used_samples(splits), f"embed: {candidate.name}")
    by_input = {member: vectors[:, position] for position, member in enumerate(members)}
    return by_input, dict(zip(members, models, strict=True))


def used_samples(splits: Splits) -> NDArray[np.int64]:
    """Indices of the train, validation and test samples, in that order."""
    return np.concatenate([splits.train, splits.val, splits.test])


def measure_probe(
    candidate: Candidate,
    shown: Showing,
    probe: Probe,
    features: NDArray[np.float32],
    task: ProbeTask,
    share: float = 1.0,
) -> Measured:
    """Fit and score one probe.

    Args:
        candidate: The model that the vectors are of.
        shown: The bands that it was shown, and how.
        probe: The probe, which is fitted anew.
        features: Vectors of :func:`used_samples`, shape ``(n, features)``.
        task: What every model of the comparison shares.
        share: Share of the train split to fit on, above 0 and at most 1.
    """
    splits = task.splits
    bounds = np.cumsum([len(splits.train), len(splits.val)])
    train, val, test = (
        Labelled(part, splits.labels[indices])
        for part, indices in zip(np.split(features, bounds), (splits.train, splits.val, splits.test), strict=True)
    )
    # Drawn by the task's seed, so that every model is fitted on the same samples.
    if share < 1:
        kept = stratified_subset(splits.target.strata()[splits.train], share, task.seed)
        train = Labelled(train.features[kept], train.labels[kept])
    result = probe.fit(train.features, train.labels, val).score(test.features, test.labels)
    used = task.settings.on(device_of(shown.model)).precision
    told = replace(result, protocol=result.protocol.in_precision("vectors", used))
    row = result_row(candidate, shown, probe.name, told, task, len(train.labels), share)
    return Measured(row, result.predicted)


def result_row(
    candidate: Candidate,
    shown: Showing,
    probe: str,
    result: ProbeResult,
    task: ProbeTask,
    n_train: int,
    share: float = 1.0,
) -> ProbeRow:
    """A result with everything that is needed to read it.

    Args:
        candidate: The model that was measured.
        shown: The bands that it was shown, and how.
        probe: Name of the probe.
        result: What it reached on the test split.
        task: What every model of the comparison shares.
        n_train: Number of samples that were fitted on.
        share: Their share of the train split, above 0 and at most 1.
    """
    splits = task.splits
    return ProbeRow(
        model=candidate.name,
        inputs=shown.row.name,
        sensor=shown.row.sensor,
        bands=shown.row.bands,
        probe=probe,
        protocol=str(result.protocol),
        data=task.data,
        metrics=result.metrics,
        ci95=result.ci95,
        chosen=result.chosen,
        n_train=n_train,
        n_test=len(splits.test),
        target=splits.target.column,
        task=splits.target.task,
        classes=splits.classes,
        confusion=_padded(result.score.confusion, len(splits.classes)),
        train_share=share,
        seed=task.seed,
        note=shown.note,
        is_floor=candidate.is_floor,
        data_set=data_set_of(task.archive.source),
        simulated=bool(task.archive.source.get("simulated")),
    )


def _padded(confusion: tuple[tuple[int, ...], ...], classes: int) -> tuple[tuple[int, ...], ...]:
    """With a row and column for classes that occur neither as truth nor as prediction."""
    if not confusion:
        return ()
    missing = classes - len(confusion)
    return tuple(row + (0,) * missing for row in confusion) + ((0,) * classes,) * missing
