"""Steps, rounds and multiplications of a recipe, against those that a run and a curator really have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from terrasieve.config import load_config, load_curator
from terrasieve.curation import kmeans
from terrasieve.estimates.workload import fitted_rows, products_of, workload_of
from terrasieve.training.schedules import make_timeline


def test_steps_and_rounds_are_those_of_the_timeline() -> None:
    config = load_config("oceansar-1-vits16")
    work = workload_of(config, 12_000_000, 512)
    timeline = make_timeline(12_000_000, config.train, config.curation)
    assert (work.steps, work.rounds) == (timeline.steps, len(timeline.rounds))
    # Ten passes over all, then ninety over 0.3 of them, with a round before the first of these and every tenth.
    assert work.steps == 12_000_000 * 10 // 256 + 3_600_000 * 90 // 256
    assert work.rounds == 9
    assert work.embedded == work.trained_on == 12_000_000
    assert work.largest_part == 23438


def test_a_recipe_of_so_many_samples_trains_on_no_more() -> None:
    config = load_config("rs-byol-1-150k")
    work = workload_of(config, 10**6, 8)
    assert work.trained_on == config.samples
    assert work.steps == make_timeline(work.trained_on, config.train, None).steps
    assert (work.rounds, work.embedded, work.clustered, work.fitted) == (0, 0, 0, 0)


def test_a_feature_bank_embeds_its_share() -> None:
    settings = ["curation.features={name: bank, refresh: 0.25}"]
    assert workload_of(load_config("oceansar-small", settings), 1000, 8).embedded == 250


def test_there_are_no_more_parts_than_samples() -> None:
    work = workload_of(load_config("oceansar-small"), 5, 512)
    assert (work.parts, work.largest_part) == (5, 1)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("balanced", ["iterations=4"]), ("semdedup", ["iterations=4"]), ("deduplicated", ["iterations=4"])],
)
def test_products_bound_those_of_k_means(name: str, settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    curator = load_curator(name, settings)
    vectors = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    done, fitted = 0.0, 0
    real = kmeans._pass

    def counted(rows: Any, centroids: Any, *rest: Any, **more: Any) -> Any:
        nonlocal done, fitted
        done += len(rows) * len(centroids)
        return real(rows, centroids, *rest, **more)

    monkeypatch.setattr(kmeans, "_pass", counted)
    curator.select(vectors, 300, 0)
    stated = products_of(curator, len(vectors), 300)
    assert 0.2 * stated < done <= stated
    assert fitted_rows(curator, len(vectors)) <= len(vectors)


@pytest.mark.parametrize(("name", "products"), [("random", 0), ("k-center", 3000 * 300), ("density", 3000 * 1024)])
def test_products_of_other_curators(name: str, products: int) -> None:
    assert products_of(load_curator(name), 3000, 300) == products
    assert fitted_rows(load_curator(name), 3000) == 0
