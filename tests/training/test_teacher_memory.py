"""What a run knows in advance of its teacher's start: it is bounded, warned of, logged and on the card."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive
from terrasieve.config import RunConfig, load_config, recipe_names
from terrasieve.errors import CheckpointError
from terrasieve.models.export import load_encoder
from terrasieve.models.teacher import MOST_MEMORY, teacher_memory
from terrasieve.pretraining import make_job, pretrain
from terrasieve.training.loop import make_fabric

TINY = (
    "model.name=test_resnet",
    "method.hidden=8",
    "method.bottleneck=4",
    "method.prototypes=16",
    "train.batch_size=4",
    "train.log_every=1",
    "train.precision=32",
    "train.collapse_std=0",
    "train.collapse_rank=0",
)


def dino(*settings: str) -> RunConfig:
    return load_config("dino-small", [*TINY, *settings])


def warnings(config: RunConfig, archive: Archive, folder: Path) -> tuple[str, ...]:
    return make_job(config, archive, folder).warnings


def test_the_log_and_the_card_hold_what_is_left(archive: Archive, tmp_path: Path) -> None:
    config = dino("train.steps=24")
    pretrain(config, archive, tmp_path, make_fabric(config.train, "cpu"))
    resolved = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))["method"]
    expected = teacher_memory(resolved["momentum"], 1.0, 24)
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["teacher_memory"]) for row in rows] == pytest.approx(expected[1:])
    card = load_encoder(tmp_path)[1]
    assert card.teacher_memory == pytest.approx(expected[-1])
    assert card.provenance.config["method"] == resolved
    assert resolved["momentum"] < 0.99


def test_the_resolved_recipe_resumes_the_run_and_the_old_one_is_refused_by_key(
    archive: Archive, tmp_path: Path
) -> None:
    config = dino("train.steps=6")
    pretrain(config, archive, tmp_path, make_fabric(config.train, "cpu"))
    again = load_config(tmp_path / "config.yaml")
    pretrain(again, archive, tmp_path, make_fabric(again.train, "cpu"), resume=True)
    stated = dino("train.steps=6", "method.teacher_memory=null")
    with pytest.raises(
        CheckpointError, match=r"method\.momentum was 0\.\d+, now 0\.99; method\.teacher_memory was 0\.02"
    ):
        pretrain(stated, archive, tmp_path, make_fabric(stated.train, "cpu"), resume=True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ("train.steps=300",),
            "holds 22.3% at the end of the run (step 300), and its features are as much those of an untrained network. "
            "Set method.momentum=0.974",
        ),
        (
            ("train.steps=300", "curation.warmup=7", "curation.every=15.7", "curation.keep=1"),
            "holds 66.7% at the first round of curation (step 41) and 22.3% at the end",
        ),
        (("train.steps=9",), "Train for more steps."),
        (
            ("train.steps=300", "curation.warmup=1", "curation.every=50"),
            "Train for more steps, or let curation begin later (curation.warmup).",
        ),
    ],
)
def test_a_young_teacher_is_warned_of_with_the_remedy(
    settings: tuple[str, ...], words: str, archive: Archive, tmp_path: Path
) -> None:
    (said,) = warnings(dino("method.teacher_memory=null", *settings), archive, tmp_path)
    assert words in said


def test_the_remedies_are_remedies(archive: Archive, tmp_path: Path) -> None:
    length = "train.steps=300"
    (said,) = warnings(dino("method.teacher_memory=null", length), archive, tmp_path)
    momentum, memory = (word.rstrip(",") for word in said.split() if word.startswith("method."))
    assert warnings(dino("method.teacher_memory=null", length, momentum), archive, tmp_path) == ()
    assert warnings(dino(length, memory), archive, tmp_path) == ()


def test_pretrained_weights_are_nothing_to_forget(archive: Archive, tmp_path: Path) -> None:
    config = dino("train.steps=6")
    pretrain(config, archive, tmp_path / "first", make_fabric(config.train, "cpu"))
    settings = ("method.teacher_memory=null", "train.steps=300", f"model.init={tmp_path / 'first'}")
    assert warnings(dino(*settings), archive, tmp_path / "second") == ()


def test_a_method_without_a_teacher_says_nothing(archive: Archive, tmp_path: Path) -> None:
    job = make_job(load_config("lejepa-small", ["train.steps=3"]), archive, tmp_path)
    assert (job.memory, job.warnings) == (None, ())


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.endswith("-small")])
def test_small_recipes_end_with_teachers_that_forgot_their_birth(name: str, tmp_path: Path) -> None:
    """At their first round too: the length and the archive are those of the demo, and the networks tiny."""
    config = load_config(name, ["train.steps=300"])
    tiny = {name: 8 for name in ("hidden", "bottleneck", "prototypes") if name in type(config.method).model_fields}
    config = config.model_copy(update={"method": config.method.model_copy(update=tiny)})
    kind = "simulated-ocean" if "oceansar" in name else "simulated"
    archive = open_archive(f"{kind}:0:40")
    plan = config.curation and config.curation.model_copy(update={"warmup": 40.0})
    job = make_job(config.model_copy(update={"curation": plan}), archive, tmp_path)
    assert job.warnings == ()
    if job.memory is not None:
        first = 25 if plan else 300
        assert job.memory[first] <= MOST_MEMORY
