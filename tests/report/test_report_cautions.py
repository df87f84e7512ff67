"""Each warning appears where its cause is, with its number, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import made_runs as made
from terrasieve.probes.row_tables import write_json
from terrasieve.reporting.cautions import LEVELS, cautions
from terrasieve.reporting.run import read_runs


def found(folder: Path) -> list[tuple[str, str]]:
    run = read_runs([folder])[0]
    return [(one.level, one.text) for one in cautions(run)]


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    made.write_log(folder, made.log_rows(learning_rate=0.001))
    write_json(made.comparison_rows(), folder / "probe.json")
    return folder


def test_a_healthy_run_has_none(healthy: Path) -> None:
    assert found(healthy) == []


def simulated(folder: Path) -> None:
    write_json(made.comparison_rows(simulated=True), folder / "probe.json")


def behind(folder: Path) -> None:
    write_json(made.comparison_rows(trained=0.3), folder / "probe.json")


def overlapping(folder: Path) -> None:
    wide = {"accuracy": (0.1, 0.99), "macro_f1": (0.1, 0.99)}
    write_json([row.model_copy(update={"ci95": wide}) for row in made.comparison_rows()], folder / "probe.json")


def lonely(folder: Path) -> None:
    write_json(made.comparison_rows()[:2], folder / "probe.json")


def small(folder: Path) -> None:
    write_json([row.model_copy(update={"n_test": 120}) for row in made.comparison_rows()], folder / "probe.json")


def rare(folder: Path) -> None:
    rows = [
        row.model_copy(update={"confusion": ((100, 0, 0), (1, 6, 0), (0, 0, 100))}) for row in made.comparison_rows()
    ]
    write_json(rows, folder / "probe.json")


def remarked(folder: Path) -> None:
    rows = made.comparison_rows()
    write_json([*rows[:-1], rows[-1].model_copy(update={"note": "band copied 3 times"})], folder / "probe.json")


def diverged(folder: Path) -> None:
    made.write_log(folder, made.log_rows(loss="nan", learning_rate=0.001))


def constant(folder: Path) -> None:
    made.write_log(folder, made.log_rows(feature_std=0.004, learning_rate=0.001))


def flat(folder: Path) -> None:
    made.write_log(folder, made.log_rows(effective_rank=1.4, learning_rate=0.001))


def shrinking(folder: Path) -> None:
    made.write_log(folder, made.log_rows(effective_rank=15.2, learning_rate=0.001))


def forgetful(folder: Path) -> None:
    rows = made.log_rows(learning_rate=0.001, knn_accuracy=0.5, knn_samples=400)
    rows[4] |= {"knn_samples": 400}
    made.write_log(folder, rows)


def young(folder: Path) -> None:
    made.write_log(folder, made.log_rows(teacher_memory=0.22, learning_rate=0.001))


def hot(folder: Path) -> None:
    made.write_log(folder, made.log_rows(learning_rate=0.164))


def restarted(folder: Path) -> None:
    hot(folder)
    schedule = "{name: warm-restarts, first_epochs: 10, multiplier: 2}"
    (folder / "config.yaml").write_text(f"train: {{epochs: 400, steps: null, schedule: {schedule}}}", encoding="utf-8")


def stopped(folder: Path) -> None:
    hot(folder)
    (folder / "config.yaml").write_text("train: {steps: 500}", encoding="utf-8")


def quarantined(folder: Path) -> None:
    lines = '"id","samples"\n"a",2\n"b",1\n'
    (folder.parent / "archive.zarr.quarantine.csv").write_text(lines, encoding="utf-8")


def exchanged(folder: Path) -> None:
    made.write_encoder(folder, made.encoder_card())
    (folder / "encoder" / "encoder.safetensors").write_bytes(b"other weights")


def explained(folder: Path) -> None:
    made.write_explanation(made.explanation(), folder)


def incomplete(folder: Path) -> None:
    gallery = made.explanation().saliency
    maps = (gallery.items[0].maps[0].model_copy(update={"completeness_error": 0.031}),)
    changed = gallery.model_copy(update={"items": (gallery.items[0].model_copy(update={"maps": maps}),)})
    made.write_explanation(made.explanation(saliency=changed, notes=()), folder)


CASES: list[tuple[Callable[[Path], None], str, str]] = [
    (simulated, "serious", "SIMULATED data"),
    (behind, "serious", "is worse than random init on 2 of 2 inputs"),
    (
        overlapping,
        "caution",
        "are not told apart on 2 of 2 inputs (s2:B04 and s2:B04+B03+B02), where their 95\u00a0% intervals overlap",
    ),
    (lonely, "caution", "no floor was scored beside rs-byol-1"),
    (small, "caution", "holds 120 samples, fewer than 200"),
    (rare, "caution", "1 of 3 classes have fewer than 10 test samples (River)"),
    (remarked, "note", "image statistics: band copied 3 times."),
    (diverged, "serious", "not a number from step 100 on (1 of 10 logged steps)"),
    (constant, "serious", "feature std ended at 0.004, below the limit of 0.02"),
    (flat, "serious", "effective rank ended at 1.4, below the limit of 2"),
    (shrinking, "caution", "effective rank fell from 79 to 15.2"),
    (
        forgetful,
        "caution",
        "fell from 56.1\u00a0% at step 50 to 50.0\u00a0% at step 100, where one standard error is 2.5 points",
    ),
    (young, "caution", "The teacher holds 22.0\u00a0% of its initial weights at the last step"),
    (hot, "caution", "ended at 0.164 (step 100), 91\u00a0% of its highest value"),
    (restarted, "caution", "Restarts fall at epoch 310 or 630"),
    (stopped, "caution", "stands at step 100 of 500"),
    (quarantined, "caution", "3 samples were set aside as unusable: read the reasons in archive.zarr.quarantine.csv"),
    (exchanged, "serious", "The weights are not those of the card"),
    (explained, "note", "No attention maps: resnet18 has no attention."),
    (incomplete, "caution", "at worst 3.1\u00a0% of it"),
]


@pytest.mark.parametrize(("cause", "level", "words"), CASES, ids=[case[0].__name__ for case in CASES])
def test_a_cause_gives_its_warning(healthy: Path, cause: Callable[[Path], None], level: str, words: str) -> None:
    cause(healthy)
    assert [one for one in found(healthy) if one[0] == level and words in one[1]], found(healthy)


def test_a_kNN_that_falls_by_less_than_a_standard_error_is_not_told(healthy: Path) -> None:
    rows = made.log_rows(learning_rate=0.001, knn_accuracy=0.53, knn_samples=100)
    rows[4] |= {"knn_samples": 100}
    made.write_log(healthy, rows)
    assert not [text for _, text in found(healthy) if "online kNN" in text]


def test_a_model_behind_within_the_interval_is_not_called_worse(healthy: Path) -> None:
    wide = {"accuracy": (0.1, 0.99), "macro_f1": (0.1, 0.99)}
    rows = [row.model_copy(update={"ci95": wide}) for row in made.comparison_rows(trained=0.3)]
    write_json(rows, healthy / "probe.json")
    told = found(healthy)
    assert not [text for level, text in told if level == "serious"]
    assert len([text for _, text in told if "not told apart" in text]) == 2


NEW_FIELDS = {"sensor", "bands", "is_floor", "data_set", "simulated"}


@pytest.mark.parametrize("old", [False, True], ids=["written now", "written before floors were marked"])
def test_segmentation_below_the_pixels_themselves_is_warned_of(tmp_path: Path, old: bool) -> None:
    scores = {"rs-byol-1": 0.4, "random init": 0.3, "per-pixel": 0.6}
    rows = [
        made.probe_row(
            model,
            "s2:B04",
            0.5,
            task="segmentation",
            probe="patch linear",
            metrics={"miou": score, "average_accuracy": score},
            ci95={"miou": (score - 0.01, score + 0.01), "average_accuracy": (score - 0.01, score + 0.01)},
            is_floor=model != "rs-byol-1",
        )[0]
        for model, score in scores.items()
    ]
    path = tmp_path / "probe.json"
    write_json(rows, path)
    if old:
        values = json.loads(path.read_text())
        path.write_text(json.dumps([{name: one[name] for name in one if name not in NEW_FIELDS} for one in values]))
    words = "of rs-byol-1 is worse than per-pixel on 1 of 1 inputs (s2:B04, the first by 20.0 points)"
    assert [text for level, text in found(tmp_path) if level == "serious" and words in text], found(tmp_path)


def test_a_run_that_is_not_done_is_not_blamed_for_its_learning_rate(healthy: Path) -> None:
    stopped(healthy)
    assert not [text for _, text in found(healthy) if "not annealed" in text]


def test_limits_of_the_configuration_replace_the_defaults(healthy: Path) -> None:
    made.write_log(healthy, made.log_rows(feature_std=0.2, learning_rate=0.001))
    (healthy / "config.yaml").write_text("train: {collapse_std: 0.3}", encoding="utf-8")
    assert any("below the limit of 0.3" in text for _, text in found(healthy))


def test_the_most_serious_come_first(healthy: Path) -> None:
    for cause in (remarked, hot, exchanged, quarantined, explained):
        cause(healthy)
    levels = [LEVELS.index(level) for level, _ in found(healthy)]  # type: ignore[arg-type]  # read back as text
    assert levels == sorted(levels)
    assert set(levels) == {0, 1, 2}
