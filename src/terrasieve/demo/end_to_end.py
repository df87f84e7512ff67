"""The main job end to end: pack, pre-train, embed, probe; a folder with a summary and figures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.overview import contact_sheet
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive
from terrasieve.archive.selection import read_selection
from terrasieve.config import CurationKind, RunConfig, load_config
from terrasieve.console import console
from terrasieve.demo.samples import Samples, real_samples, simulated_ocean_samples, simulated_samples
from terrasieve.device import pick_device
from terrasieve.embeddings import EncoderInput, normaliser_for, write_embeddings
from terrasieve.errors import ConfigError
from terrasieve.figures import curation_chart, probe_chart, training_curves, view_sheet
from terrasieve.models.export import load_encoder
from terrasieve.parallel import spare_cores
from terrasieve.pretrain import online_probe, pretrain, preview_views
from terrasieve.probes.results import ProbeRow, input_row
from terrasieve.probes.row_tables import HEADLINES, render, to_markdown
from terrasieve.probing import ProbePlan, probe_run
from terrasieve.report.page import write_report
from terrasieve.training.job import TrainingResult
from terrasieve.training.loop import make_fabric
from terrasieve.training.rounds import round_rows

MethodName = Literal["byol", "dino"]

_SIMULATED = 3200
_RECIPES: Mapping[MethodName, str] = {"byol": "rs-byol-1-small", "dino": "dino-small"}
_SETTINGS = {
    "byol": ("train.epochs=4", "train.evaluate_every=2"),
    # A run of a pass or two: a warm-up in passes, or targets that soften, would leave no time to learn.
    "dino": (
        "train.steps=120",
        "train.evaluate_steps=60",
        "train.schedule.warmup_steps=15",
        "method.teacher_temperature=0.04",
    ),
}
_OCEAN = 2400
_OCEAN_RECIPE = "oceansar-small"
_OCEAN_SETTINGS = (*_SETTINGS["dino"], "train.steps=240", "train.evaluate_steps=120")
_ROUNDS = ("curation.warmup=0.5", "curation.every=1")
"""A shorter rhythm than a long run would have, so that there is more than one round to see."""


def run_demo(
    data: Path | None,
    out: Path,
    *,
    overwrite: bool,
    seed: int,
    device: str,
    method: MethodName = "byol",
    curate: CurationKind | None = None,
    settings: Sequence[str] = (),
) -> RenderableType:
    """Run the whole job and return what to print.

    Args:
        data: Folder that holds ``la_texas_pairs`` and ``eurosat_rgb``; the simulated archive where None.
        out: The run folder.
        overwrite: Replace what an earlier demo left in ``out``.
        seed: Seed of everything.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        method: Which method's small recipe is trained.
        curate: Whether and how the archive is sieved while the model trains.
        settings: Changes of the recipe, as in ``terrasieve pretrain``.

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
    """The whole job on the simulated ocean: class, wave height and wind speed, from an archive sieved by DINO.

    Args:
        out: The run folder.
        overwrite: Replace what an earlier demo left in ``out``.
        seed: Seed of everything.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        curate: Whether and how the archive is sieved while the model trains.
        settings: Changes of the recipe, as in ``terrasieve pretrain``.

    Raises:
        ConfigError: ``out`` is in use.
    """
    began = time.monotonic()
    _clear(out, overwrite)
    rounds = _ROUNDS if curate == "dynamic" else ()
    config = load_config(_OCEAN_RECIPE, [*_OCEAN_SETTINGS, *rounds, f"train.seed={seed}", *settings], curate)
    demo = simulated_ocean_samples(seed, _OCEAN, out / "labelled.zarr")
    return _run(demo, config, out, device, began)


def _run(demo: Samples, config: RunConfig, out: Path, device: str, began: float) -> RenderableType:
    console.print(f"[bold]Data:[/] {demo.description}", highlight=False)

    console.rule("1/4 pack")
    pack(demo.unlabelled, out / "packed.zarr", workers=spare_cores())
    packed = PackedArchive(out / "packed.zarr")
    contact_sheet(packed, out / "contact-sheet.png")

    console.rule("2/4 pre-train")
    result = _pretrain(config, packed, demo, out, device)

    console.rule("3/4 embed")
    encoder, card = load_encoder(out)
    encoder.to(pick_device(device))
    inputs = [EncoderInput.parse(text) for text in demo.inputs]
    shown = input_row(inputs[-1], demo.labelled.sensors, encoder.channels).members
    normaliser = normaliser_for("archive", card, demo.labelled, shown)
    write_embeddings(out / "embeddings.parquet", encoder, card, demo.labelled, shown, normaliser)

    console.rule("4/4 probe")
    plan = ProbePlan(inputs=tuple(inputs), targets=tuple(demo.targets), seed=config.train.seed)
    rows = probe_run(encoder, card, demo.labelled, out, plan)
    _draw(config, packed, rows, out)
    minutes = (time.monotonic() - began) / 60
    (out / "summary.md").write_text(_summary(config, demo, result, rows, minutes, out), encoding="utf-8")
    report = write_report([out], out / "report.html")
    closing = f"{demo.description}\n{minutes:.1f} minutes. Summary: {out / 'summary.md'}\nReport: {report}"
    return Group(_rounds_table(out / "curation"), render(rows), Text(closing))


def _clear(out: Path, overwrite: bool) -> None:
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise ConfigError(
                f"{out} is not empty. Add --overwrite to replace it, or choose another folder with --out."
            )
        if not (out / "config.yaml").is_file() and not (out / "packed.zarr").is_dir():
            raise ConfigError(f"{out} holds something that is not a demo; choose another folder with --out.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def _pretrain(config: RunConfig, packed: Archive, demo: Samples, out: Path, device: str) -> TrainingResult:
    fabric = make_fabric(config.train, device)
    fabric.launch()
    evaluate = online_probe(config, demo.labelled, str(demo.inputs[0]))
    return pretrain(config, packed, out, fabric, evaluate=evaluate)


def _draw(config: RunConfig, packed: Archive, rows: Sequence[ProbeRow], out: Path) -> None:
    training_curves(out / "log.csv", out / "training.png", f"{config.name}: pre-training")
    classes = [row for row in rows if row.task == "classification"]
    probe_chart(classes, out / "probes.png", f"{config.name}: frozen features beside their floors")
    views, names = preview_views(config, packed)
    view_sheet(views, names, out / "views.png", f"{config.name}: what the model sees of eight places")
    if config.curation is not None:
        rounds = sorted((out / "curation").glob("round-*.parquet"))
        curation_chart(out / "curation", out / "curation.png", f"{config.name}: {len(rounds)} rounds of curation")
        contact_sheet(SubsetArchive(packed, read_selection(rounds[-1], packed)), out / "pool.png")


def _scores_markdown(rows: Sequence[ProbeRow]) -> list[str]:
    """Classes by accuracy, numbers by their errors: a table a metric, and once a target how it was measured."""
    lines: list[str] = []
    for target in dict.fromkeys(row.target for row in rows):
        part = [row for row in rows if row.target == target]
        metrics = HEADLINES["regression"] if part[0].task == "regression" else ("accuracy",)
        written = [to_markdown(part, metric).partition("\n\n") for metric in metrics]
        lines += [] if target == "label" else [f"{target}:", ""]
        for table, _, _ in written:
            lines += [table, ""]
        lines += [written[0][2], ""]
    return lines


def _rounds_markdown(folder: Path) -> list[str]:
    header, *rounds = round_rows(folder)
    if not rounds:
        return []
    table = ["| " + " | ".join(cells) + " |" for cells in (header, ["---:"] * len(header), *rounds)]
    pictures = ["![curation](curation.png)", "The last pool: ![pool](pool.png)", ""]
    return ["Curation: each round draws a new pool from the whole archive.", "", *table, "", *pictures]


def _rounds_table(folder: Path) -> Table | str:
    header, *rounds = round_rows(folder)
    if not rounds:
        return ""
    table = Table(*header, title="curation rounds", title_justify="left", box=None, header_style="bold")
    for cells in rounds:
        table.add_row(*cells)
    return table


def _summary(
    config: RunConfig, demo: Samples, result: TrainingResult, rows: Sequence[ProbeRow], minutes: float, out: Path
) -> str:
    return "\n".join(
        [
            f"# {config.name}: demo",
            "",
            f"Data: {demo.description}.",
            "",
            f"{config.description} Backbone {config.model.name}, {result.steps} steps of {config.train.batch_size}; "
            f"{minutes:.1f} minutes in all. Every parameter: `config.yaml`.",
            "",
            *_scores_markdown(rows),
            *_rounds_markdown(out / "curation"),
            "![probes](probes.png)",
            "![training](training.png)",
            "![views](views.png)",
            "![archive](contact-sheet.png)",
            "",
            "| file | what it is |",
            "|---|---|",
            "| `encoder/` | weights that plain timm loads, and a card that says what they are |",
            "| `report.html` | all of this on one page: scores, curves, maps of what the model looks at, neighbours |",
            "| `embeddings.parquet` | one vector a sample (GeoParquet) |",
            "| `probe.json`, `probe.csv` | every score with its interval and protocol |",
            "| `probe-predictions.parquet` | what each probe said of each test sample |",
            "| `log.csv`, `checkpoints/` | the run; go on with `--resume` |",
            "| `packed.zarr` | the packed archive |",
            "",
        ]
    )
