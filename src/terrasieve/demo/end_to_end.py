"""The main job end to end: pack, pre-train, embed, probe, report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Group, RenderableType
from rich.text import Text

from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.config import CurationKind, RunConfig, load_config
from terrasieve.console import console
from terrasieve.demo.samples import Samples, real_samples, simulated_ocean_samples, simulated_samples
from terrasieve.device import pick_device
from terrasieve.embeddings import EncoderInput
from terrasieve.embeddings.embedding_file import write_embeddings, write_table
from terrasieve.errors import ConfigError
from terrasieve.models.export import load_encoder
from terrasieve.pretraining import online_probe, pretrain
from terrasieve.probes.row_tables import score_tables
from terrasieve.probing import ProbePlan, embed_encoder, embedding_table, measure_run, set_up
from terrasieve.processes.parallel import spare_cores
from terrasieve.reporting.page import write_report
from terrasieve.reporting.sections.curation import rounds_table
from terrasieve.runs import RunFolder
from terrasieve.training.loop import make_fabric
from terrasieve.views.render import Normaliser

MethodName = Literal["lejepa", "byol", "dino"]

_SIMULATED = 3200
_RECIPES: Mapping[MethodName, str] = {"lejepa": "rs-lejepa-1-small", "byol": "rs-byol-1-small", "dino": "dino-small"}
_SETTINGS = {
    "lejepa": ("train.steps=1000", "train.evaluate_steps=200"),
    "byol": ("train.epochs=4", "train.evaluate_every=1"),
    # A run of a pass or two: a warm-up in passes, or targets that soften, would leave no time to learn.
    "dino": (
        "train.steps=120",
        "train.evaluate_steps=30",
        "train.schedule.warmup_steps=15",
        "method.teacher_temperature=0.04",
    ),
}
_OCEAN = 3200
_OCEAN_RECIPE = "oceansar-lejepa-small"
_OCEAN_SETTINGS = ("train.steps=2500", "train.evaluate_steps=500")
_ROUNDS = ("curation.warmup=0.5", "curation.every=1")
"""A shorter rhythm than a long run would have, so that there is more than one round to see."""
_OCEAN_ROUNDS = ("curation.warmup=20", "curation.every=20")


def run_demo(
    data: Path | None,
    out: Path,
    *,
    overwrite: bool,
    seed: int,
    device: str,
    method: MethodName = "lejepa",
    curate: CurationKind | None = None,
    settings: Sequence[str] = (),
) -> RenderableType:
    """Run the whole job and return what to print.

    Args:
        data: Folder that holds ``la_texas_pairs`` and ``eurosat_rgb``; the archive is simulated where None.
        out: The run folder to write.
        overwrite: Whether to replace what an earlier demo left in ``out``.
        seed: Seed of the data, the weights, the views and the probes.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        method: Name of the method whose small recipe is trained.
        curate: Whether and how the archive is sieved while the model trains.
        settings: Changes of the recipe such as ``train.epochs=1``, as in ``terrasieve pretrain``.

    Raises:
        ConfigError: ``out`` is in use, or ``data`` does not hold the two folders.
    """
    began = time.monotonic()
    _clear(out, overwrite)
    demo = real_samples(data, seed) if data else simulated_samples(seed, _SIMULATED, out / "labelled.zarr")
    rounds = _ROUNDS if curate == "dynamic" else ()
    config = load_config(_RECIPES[method], [*_SETTINGS[method], *rounds, f"train.seed={seed}", *settings], curate)
    return _run(demo, config, out, device, began)


def run_ocean_demo(
    out: Path,
    *,
    overwrite: bool,
    seed: int,
    device: str,
    curate: CurationKind = "dynamic",
    settings: Sequence[str] = (),
) -> RenderableType:
    """The whole job on the simulated ocean: class, wave height and wind speed, from an archive sieved by LeJEPA.

    Args:
        out: The run folder to write.
        overwrite: Whether to replace what an earlier demo left in ``out``.
        seed: Seed of the data, the weights, the views and the probes.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        curate: Whether and how the archive is sieved while the model trains.
        settings: Changes of the recipe such as ``train.steps=3000``, as in ``terrasieve pretrain``.

    Raises:
        ConfigError: ``out`` is in use.
    """
    began = time.monotonic()
    _clear(out, overwrite)
    rounds = _OCEAN_ROUNDS if curate == "dynamic" else ()
    config = load_config(_OCEAN_RECIPE, [*_OCEAN_SETTINGS, *rounds, f"train.seed={seed}", *settings], curate)
    demo = simulated_ocean_samples(seed, _OCEAN, out / "labelled.zarr")
    return _run(demo, config, out, device, began)


def _run(demo: Samples, config: RunConfig, out: Path, device: str, began: float) -> RenderableType:
    console.print(f"[bold]Data:[/] {demo.description}", highlight=False)

    console.rule("1/4 pack")
    pack(demo.unlabelled, out / "packed.zarr", workers=spare_cores())
    packed = PackedArchive(out / "packed.zarr")

    console.rule("2/4 pre-train")
    fabric = make_fabric(config.train, device)
    fabric.launch()
    evaluate = online_probe(config, demo.labelled, str(demo.inputs[0]))
    pretrain(config, packed, out, fabric, evaluate=evaluate, evaluate_counterpart=evaluate)

    console.rule("3/4 embed")
    run = RunFolder(out)
    encoder, card = load_encoder(out)
    encoder.to(pick_device(device))
    inputs = tuple(EncoderInput.parse(text) for text in demo.inputs)
    plan = ProbePlan(inputs=inputs, targets=tuple(demo.targets), seed=config.train.seed)
    setup = set_up(encoder, card, demo.labelled, plan)
    # One pass over the labelled samples serves the probes, the explanation and mostly the file of vectors.
    embedded = embed_encoder(setup)
    if demo.mapped:
        normaliser = Normaliser(packed.sensors, card.statistics)
        write_embeddings(run.embeddings, encoder, card, packed, setup.inputs[-1:], normaliser)
    else:
        write_table(run.embeddings, embedding_table(setup, embedded))

    console.rule("4/4 probe")
    rows = measure_run(setup, embedded, out)
    report = write_report([out], run.report)
    rounds = run.rounds()
    closing = f"{demo.description}\n{(time.monotonic() - began) / 60:.1f} minutes. Report: {report}"
    return Group(*([rounds_table(rounds)] if rounds else []), *score_tables(rows), Text(closing))


def _clear(out: Path, overwrite: bool) -> None:
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise ConfigError(
                f"{out} is not empty. Add --overwrite to replace it, or choose another folder with --out."
            )
        if not RunFolder(out).config.is_file() and not (out / "packed.zarr").is_dir():
            raise ConfigError(f"{out} holds something that is not a demo; choose another folder with --out.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
