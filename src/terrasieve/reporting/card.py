"""The model card: a README as model hubs read it, with nothing in it that no file of the run says.

Front matter and ``model-index`` follow https://huggingface.co/docs/hub/model-cards and its metadata specification.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from terrasieve.errors import ArchiveError, ConfigError
from terrasieve.files.writing import write_text
from terrasieve.models.export import EncoderCard
from terrasieve.probes.metrics import METRIC_INFO
from terrasieve.probes.results import ProbeRow
from terrasieve.probes.row_tables import HEADLINES, notes_of, score_table
from terrasieve.reporting.answer import answer
from terrasieve.reporting.cautions import cautions
from terrasieve.reporting.citations import citation_section
from terrasieve.reporting.run import Run, read_runs
from terrasieve.reporting.sections.ran import precision_text, starting_facts, statistics_table
from terrasieve.reporting.wording import percent
from terrasieve.runs import CARD, WEIGHTS
from terrasieve.tables import MISSING, Table, escape_markdown, row_of

README = "README.md"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_TASKS = {
    "classification": ("image-classification", "Image classification"),
    "multilabel": ("image-classification", "Multi-label image classification"),
    "regression": ("image-feature-extraction", "Regression"),
    "segmentation": ("image-segmentation", "Semantic segmentation"),
}
_NO_DATA_SET = {"packed", "scenes", "simulated", "unknown layout"}
"""Layouts that say how files lie, not whose data they are."""
_METRIC_TYPES = {
    "accuracy": "accuracy",
    "macro_f1": "f1",
    "miou": "mean_iou",
    "rmse": "rmse",
    "mae": "mae",
    "r2": "r_squared",
}


def write_card(run: Path, out: Path | None = None, license: str = "apache-2.0") -> Path:
    """Write the model card of a run.

    Args:
        run: A run folder with an exported encoder, or the encoder's own folder.
        out: The Markdown file to write; ``README.md`` in the encoder's folder when None, ready to be uploaded with the
            weights.
        license: Identifier of the weights' licence, as model hubs list them, for example ``apache-2.0`` or ``mit``.

    Raises:
        ArchiveError: There is no encoder in the folder, or a file is damaged.
        WriteError: The system refused the card.
        ConfigError: The licence is no identifier.
    """
    if not _LICENSE.fullmatch(license):
        raise ConfigError(f"license is {license!r}; give an identifier such as apache-2.0, mit or cc-by-4.0.")
    read = read_runs([run])[0]
    if read.card is None:
        raise ArchiveError(
            f"{run} holds no encoder, of which the card would be: looked for encoder/{CARD}. Train with "
            "`terrasieve pretrain`, or give the folder of a finished run."
        )
    target = out or (read.at.exported() or run) / README
    return write_text(target, card_text(read, read.card, license))


def card_text(run: Run, card: EncoderCard, license: str) -> str:
    """The card as Markdown with YAML front matter."""
    front = yaml.safe_dump(front_matter(run, card, license), sort_keys=False, allow_unicode=True, width=100)
    sections = [_what(card), _limits(run), _training_data(card), _training(card), _loading(run, card), _evaluation(run)]
    version = card.provenance.terrasieve
    made = f" Written by terrasieve {escape_markdown(version)}." if version else ""
    sections += [
        _licence(license),
        citation_section(card.method, [layout for layout, _ in _sources(card.provenance.data)]),
        f"## Weights\n\n`{WEIGHTS}`, SHA-256 `{card.weights_sha256 or 'not recorded'}`.{made}",
    ]
    return "\n\n".join([f"---\n{front}---", *(text for text in sections if text)]) + "\n"


def front_matter(run: Run, card: EncoderCard, license: str) -> dict[str, Any]:
    """What a hub reads by machine."""
    sources = _sources(card.provenance.data)
    kinds = sorted({sensor.kind for sensor in card.sensors.values()})
    facts: dict[str, Any] = {
        "license": license,
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["earth-observation", "remote-sensing", "self-supervised-learning", card.method, *kinds, "terrasieve"],
    }
    if sources and not card.provenance.data.get("simulated") and sources[-1][0] not in _NO_DATA_SET:
        facts["datasets"] = [sources[-1][0]]
    mains = [(group.main, group.trained) for group in run.groups]
    results = [_result(line.rows[trained]) for line, trained in mains if line is not None]
    if results:
        facts["model-index"] = [{"name": card.recipe, "results": results}]
    return facts


# ---------------------------------------------------------------- sections


def _what(card: EncoderCard) -> str:
    channels = card.backbone.channels
    before = card.provenance.start
    start = f", starting from the weights of {escape_markdown(f'{before.name} ({before.training})')}" if before else ""
    views = dict.fromkeys(" or ".join(bands) for bands in card.view_bands)
    seen = f" Each channel of a training view showed one of: {escape_markdown('; '.join(views))}." if views else ""
    return (
        f"# {escape_markdown(card.recipe)}\n\n"
        f"A {escape_markdown(card.backbone.name)} encoder with {channels} input channel{'s' if channels > 1 else ''}, "
        f"trained without labels by {escape_markdown(card.method)} on views of {card.image_size} x {card.image_size} "
        f"pixels{start}. It turns pixels into feature vectors; it has no classification head.{seen}"
    )


def _limits(run: Run) -> str:
    warned = [f"- {escape_markdown(one.text)}" for one in cautions(run) if one.level != "note"]
    found = answer(run)
    said = escape_markdown(" ".join(filter(None, [found.asked, f"{found.word}." if found.word else "", found.lead])))
    heading = "## How good it is, and its limits\n\n"
    general = (
        "- It was measured on the inputs and data named below only; other sensors, bands, units, pixel sizes and "
        "regions are untested."
    )
    return heading + "\n\n".join([said, "\n".join([*warned, general])])


def _training_data(card: EncoderCard) -> str:
    data = card.provenance.data
    source = ", made from ".join(" ".join(one).strip() for one in _sources(data)) or "not recorded"
    lines = [f"- Source: {escape_markdown(source)}"]
    if "simulated" in data:
        lines.append(f"- Simulated: {'yes, SIMULATED data' if data['simulated'] else 'no'}")
    if card.provenance.samples is not None:
        lines.append(f"- Samples: {card.provenance.samples:,}")
    if card.provenance.hardware:
        lines.append(f"- Hardware: {escape_markdown(card.provenance.hardware)}")
    if card.provenance.precision:
        lines.append(f"- Precision: {escape_markdown(precision_text(card))}")
    if data.get("fingerprint"):
        lines.append(f"- Fingerprint of the data: `{escape_markdown(str(data['fingerprint']))}`")
    if (start := card.provenance.start) is not None:
        lines += [f"- {name[0].upper()}{name[1:]}: {escape_markdown(text)}" for name, text in starting_facts(start)]
    rows = tuple(
        row_of(
            f"{key} ({sensor.name})",
            band.name,
            MISSING if band.wavelength_um is None else f"{band.wavelength_um:g}",
            f"{band.gsd:g}",
            band.unit,
        )
        for key, sensor in card.sensors.items()
        for band in sensor.bands
    )
    bands = Table("", ("sensor", "band", "wavelength, µm", "pixel, m", "unit"), rows, align="llrrl")
    return "\n".join(["## Training data", "", *lines, "", bands.to_markdown()])


def _training(card: EncoderCard) -> str:
    """What the teacher kept of its start, and where the recipe differs from its source; empty where unknown."""
    memory, differs = card.teacher_memory, [str(one) for one in card.provenance.config.get("differs", ())]
    held = [f"The teacher held {percent(memory, 1)} of its initial weights at the end."] if memory is not None else []
    listed = "\n".join(["The recipe differs from its source:", "", *(f"- {escape_markdown(one)}" for one in differs)])
    return "\n\n".join(["## Training", *held, *([listed] if differs else [])]) if held or differs else ""


def _loading(run: Run, card: EncoderCard) -> str:
    backbone = card.backbone
    of_vits = {"img_size": backbone.image_size, "patch_size": backbone.patch_size, "reg_tokens": backbone.registers}
    size = "".join(f", {name}={value}" for name, value in of_vits.items() if value is not None)
    code = [
        "import safetensors.torch",
        "import timm",
        "",
        f"model = timm.create_model({backbone.name!r}, in_chans={backbone.channels}, num_classes=0{size})",
        f'model.load_state_dict(safetensors.torch.load_file("{WEIGHTS}"))',
        f"features = model.eval()(pixels)  # (n, {backbone.channels}, height, width), normalised as below",
    ]
    by_name = (
        'timm 1.0.16 or later also loads this folder by its name, `timm.create_model("local-dir:FOLDER", '
        'pretrained=True)`, and any version a repository of it on Hugging Face\'s hub, as `"hf-hub:OWNER/NAME"`.'
    )
    lines = ["## How to load it", "", "```python", *code, "```", "", by_name]
    table = statistics_table(run)
    if table:
        lines += ["", "Each band is normalised as `(pixel - mean) / std`, in its own unit:", ""]
        lines += [replace(table, title="").to_markdown()]
    return "\n".join(lines)


def _evaluation(run: Run) -> str:
    if not run.rows:
        return "## Evaluation\n\nNot evaluated: the run holds no probe.json."
    parts = [
        "## Evaluation",
        "Models side by side under the same probe, with 95 % intervals; the protocol is beneath each table.",
    ]
    for group in run.groups:
        rows = [row for line in group.lines for row in line.rows.values()]
        parts.append(replace(score_table(rows, group.headline), notes=notes_of(rows)).to_markdown(level=3))
    return "\n\n".join(parts)


def _licence(license: str) -> str:
    return (
        f"## Licence\n\nWeights: `{license}`. The terms of the training data hold for the data alone, and are those of "
        "its source; look them up there."
    )


# ---------------------------------------------------------------- parts


def _result(row: ProbeRow) -> dict[str, Any]:
    kind, name = _TASKS[row.task]
    return {
        "task": {"type": kind, "name": f"{name}, {row.probe} probe"},
        "dataset": {
            "type": row.data_set,
            "name": f"{row.data_set}, {row.target}",
            "config": row.inputs,
            "split": "test",
        },
        "metrics": [_metric(row, metric) for metric in HEADLINES[row.task] if metric in row.metrics],
    }


def _metric(row: ProbeRow, metric: str) -> dict[str, Any]:
    interval = row.ci95.get(metric)
    bounds = {"args": {"ci95": [round(bound, 6) for bound in interval]}} if interval else {}
    return {
        "type": _METRIC_TYPES.get(metric, metric),
        "name": METRIC_INFO[metric].title,
        "value": round(row.metrics[metric], 6),
        **bounds,
        "verified": False,
    }


def _sources(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Layout and folder of each archive of the chain, the one that was read first; folders without their parents."""
    found = []
    while data:
        found.append((str(data.get("layout", "unknown layout")), Path(str(data.get("root", ""))).name))
        data = data.get("packed_from") or data.get("made_from") or {}
    return found
