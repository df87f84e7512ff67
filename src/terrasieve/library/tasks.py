"""The main job in a few calls, each of which a command does as well."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from terrasieve.archive.protocol import Archive
from terrasieve.archive.selection import read_selection
from terrasieve.config import CurationKind, load_config, load_curator
from terrasieve.curating import CurationResult
from terrasieve.curating import curate as curate_file
from terrasieve.device import pick_device
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.embeddings.stream import EmbedSettings
from terrasieve.embeddings.table import EmbeddingTable
from terrasieve.library.pretrained import PretrainedEncoder, load_pretrained
from terrasieve.library.sources import open_source
from terrasieve.library.trained_run import TrainedRun
from terrasieve.pretraining import online_probe
from terrasieve.pretraining import pretrain as train_run
from terrasieve.probes.probe import Probe
from terrasieve.probes.row_tables import record_of
from terrasieve.probing import ProbePlan
from terrasieve.probing import probe as probe_rows
from terrasieve.reporting.page import write_report
from terrasieve.runs import RunFolder
from terrasieve.training.loop import make_fabric


def pretrain(
    recipe: str | os.PathLike[str],
    data: object,
    out: str | os.PathLike[str],
    *,
    probe_data: object | None = None,
    subset: str | os.PathLike[str] | ArrayLike | None = None,
    curate: CurationKind | None = None,
    resume: bool = False,
    device: str = "auto",
    **settings: object,
) -> TrainedRun:
    """Train an encoder on an unlabelled archive, as ``terrasieve pretrain`` does.

    Args:
        recipe: The name of a recipe (``terrasieve recipes`` lists them), or the path of a YAML file.
        data: The archive to learn from, or what :func:`terrasieve.open` makes one of.
        out: The run folder, which is made.
        probe_data: A labelled archive, on which kNN is measured now and then; nothing is measured when None.
        subset: Learn from these samples alone: positions, or a file that :func:`curate` wrote.
        curate: Sieve the archive while the model trains (``dynamic``), once (``static``) or never (``none``); as the
            recipe says when None.
        resume: Go on from the last checkpoint in ``out``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        **settings: Settings of the recipe, two underscores in the place of each dot, such as ``train__epochs=20`` or
            ``views__branches__optical__size=64``.

    Raises:
        ConfigError: A setting is unknown, the folder holds another run, or archive and recipe do not fit.
        TrainingError: The run was stopped, or what it computes is no number any more.
    """
    overrides = [f"{name.replace('__', '.')}={json.dumps(value)}" for name, value in settings.items()]
    config = load_config(recipe if isinstance(recipe, str) else Path(recipe), overrides, curate)
    archive = open_source(data)
    evaluate = None if probe_data is None else online_probe(config, open_source(probe_data), None)
    fabric = make_fabric(config.train, device)
    fabric.launch()
    train_run(
        config,
        archive,
        Path(out),
        fabric,
        resume=resume,
        evaluate=evaluate,
        evaluate_counterpart=evaluate,
        subset=_chosen(subset, archive),
    )
    return TrainedRun(out)


def probe(
    encoder: PretrainedEncoder | TrainedRun | str | os.PathLike[str],
    data: object,
    *,
    bands: str | Sequence[str] = (),
    probes: Sequence[str | Probe] = (),
    target: str | Sequence[str] = "label",
    train_shares: Sequence[float] = (1.0,),
    baselines: Sequence[str] = (),
    size: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> pd.DataFrame:
    """Measure a frozen encoder on a labelled archive, beside the floors that it has to beat.

    Args:
        encoder: An encoder, a run, or what :func:`terrasieve.load_encoder` makes an encoder of.
        data: The labelled archive, or what :func:`terrasieve.open` makes one of.
        bands: What is shown, a line of the results each, such as ``s2:B04`` or ``s2:rgb``; every one that the archive
            offers where empty.
        probes: ``knn``, ``logistic``, ``mlp``, ``ridge``, or probes with settings; the quick ones of the target's kind
            where empty.
        target: Column of the archive's table, or several.
        train_shares: Shares of the train split to fit on, for a curve of few labels.
        baselines: Encoders that others trained, such as ``imagenet:resnet50``.
        size: Resize samples to so many pixels; their own when None.
        seed: Of the untrained network, and of splits that are not published.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        A row each model, input and probe: the encoder, an untrained one of the same network (``random init``) and
        ``image statistics``. Each metric has a column, beside it ``_low`` and ``_high``, the bounds of its 95 %
        interval.

    Raises:
        ArchiveError: The archive has no labels, or its published split is incomplete.
        BandError: The bands do not exist in the archive or do not fit the encoder.
        ConfigError: There is no such target, probe or baseline.
    """
    named = encoder.path if isinstance(encoder, TrainedRun) else encoder
    model = named if isinstance(named, PretrainedEncoder) else load_pretrained(named)
    plan = ProbePlan(
        inputs=tuple(EncoderInput.parse(one) for one in ([bands] if isinstance(bands, str) else bands)),
        probes=tuple(probes),
        targets=(target,) if isinstance(target, str) else tuple(target),
        train_shares=tuple(train_shares),
        baselines=tuple(baselines),
        settings=EmbedSettings(size=size),
        seed=seed,
    )
    rows = probe_rows(model.network.to(pick_device(device)), model.card, open_source(data), plan)
    return pd.DataFrame([record_of(row) for row in rows])


def curate(
    vectors: EmbeddingTable | NDArray[np.floating] | str | os.PathLike[str],
    keep: float = 0.1,
    curator: str = "balanced",
    *,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    **settings: object,
) -> CurationResult:
    """Choose the samples worth training on by their vectors, as ``terrasieve curate`` does.

    Args:
        vectors: A table of embeddings, an array ``(n, d)``, or a file of ``terrasieve embed`` or numpy.
        keep: Share of the samples above 0 up to 1, or their number above 1.
        curator: ``balanced``, ``deduplicated``, ``random``, ``semdedup``, ``k-center`` or ``density``.
        out: File that the selection is written to, which ``pretrain(subset=...)`` takes; none when None.
        seed: Of everything that is drawn at random.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        **settings: Settings of the curator, such as ``diversity=0.5``.

    Returns:
        The selection, whose ``selection.indices`` are positions in ``vectors``, and how it differs from the whole.

    Raises:
        ConfigError: There is no such curator or setting.
        CurationError: There are no usable vectors, or ``keep`` is neither a share nor a number of them.
    """
    chooser = load_curator(curator, [f"{name}={json.dumps(value)}" for name, value in settings.items()])
    with tempfile.TemporaryDirectory(prefix="terrasieve-") as scratch:
        source = _as_file(vectors, Path(scratch))
        written = Path(scratch) / "selection.parquet" if out is None else Path(out)
        return curate_file(source, written, chooser, keep, seed, str(pick_device(device)))


def report(*runs: TrainedRun | str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write one self-contained page about one run or several.

    Args:
        *runs: Runs or their folders; several are set side by side.
        out: The page; ``report.html`` in the first folder when None.

    Returns:
        The page.

    Raises:
        ConfigError: No run is given, or a folder holds none.
    """
    opened = [one if isinstance(one, TrainedRun) else TrainedRun(one) for one in runs]
    page = RunFolder(opened[0].path).report if out is None else Path(out)
    write_report([one.path for one in opened], page)
    return page


def _chosen(subset: str | os.PathLike[str] | ArrayLike | None, archive: Archive) -> NDArray[np.int64] | None:
    if subset is None:
        return None
    if isinstance(subset, (str, os.PathLike)):
        return read_selection(Path(subset), archive)
    return np.asarray(subset, dtype=np.int64)


def _as_file(vectors: EmbeddingTable | NDArray[np.floating] | str | os.PathLike[str], scratch: Path) -> Path:
    if isinstance(vectors, (str, os.PathLike)):
        return Path(vectors)
    rows = vectors.joined if isinstance(vectors, EmbeddingTable) else np.asarray(vectors)
    path = scratch / "vectors.npy"
    np.save(path, rows, allow_pickle=False)
    return path
