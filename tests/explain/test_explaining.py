"""An explanation is whole, round-trips, says what was left out, and leaves the encoder as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from terrasieve.embeddings import EmbedSettings, EncoderInput
from terrasieve.embeddings.inputs import join
from terrasieve.embeddings.stream import embed_vectors
from terrasieve.errors import ConfigError
from terrasieve.explain.attribution import attribute_bands
from terrasieve.explain.explaining import explain
from terrasieve.explain.record import Explanation, read_explanation, write_explanation
from terrasieve.explain.saliency import affine_head, make_saliency, probabilities
from terrasieve.explain.subject import Subject, make_subject
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.probes.compare import used_samples
from terrasieve.probes.linear.logistic import LogisticProbe
from terrasieve.probes.probe import Labelled
from terrasieve.probes.results import InputRow
from terrasieve.probes.splits import make_splits

FLOAT32 = EmbedSettings(precision="32", batch_size=64)
TOGETHER = InputRow((EncoderInput(sensor="s2", bands=("B04", "B03", "B02")),))
ONE_BY_ONE = InputRow(tuple(EncoderInput(sensor="s2", bands=(band,)) for band in ("B04", "B03", "B02")))


def embedded(encoder: Encoder, row: InputRow, archive: Any, normaliser: Any) -> np.ndarray:
    used = used_samples(make_splits(archive.table()))
    return embed_vectors(encoder, archive, row.members, normaliser, FLOAT32, used, "test")


def explained(encoder: Encoder, row: InputRow, archive: Any, normaliser: Any) -> Explanation:
    splits, vectors = make_splits(archive.table()), embedded(encoder, row, archive, normaliser)
    said = "SIMULATED data"
    return explain(encoder, "toy", archive, row, splits, normaliser, FLOAT32, said, vectors, per_class=2, points=30)


def subject(encoder: Encoder, row: InputRow, archive: Any, normaliser: Any) -> Subject:
    splits, vectors = make_splits(archive.table()), embedded(encoder, row, archive, normaliser)
    return make_subject(encoder, archive, row, splits, normaliser, FLOAT32, 0, vectors)


def build(name: str, channels: int) -> Encoder:
    return build_encoder(BackboneSpec(name=name, channels=channels), seed=0)


def test_bands_shown_together(archive: Any, normaliser: Any, tmp_path: Path, snapshot: Any, unchanged: Any) -> None:
    encoder = build("test_resnet", 3).train()
    before = snapshot(encoder)
    found = explained(encoder, TOGETHER, archive, normaliser)
    unchanged(encoder, before)
    (note,) = found.notes
    assert "for images of 32x32 its map is 2x2, which shows the network's stride" in note
    assert (found.model, found.data) == ("toy", "SIMULATED data")
    _check_projection(found, archive)
    _check_neighbours(found, encoder, archive, normaliser)
    assert found.saliency is not None
    assert found.saliency.inputs == "s2:B04,B03,B02"
    assert {one.sample.label for one in found.saliency.items} == {"class-0", "class-1", "class-2"}
    for one in found.saliency.items:
        assert [each.method for each in one.maps] == ["FullGrad"]
        assert one.maps[0].completeness_error is not None
        assert one.maps[0].completeness_error < 1e-2
    _check_bands(found, "pixels")
    path = write_explanation(found, tmp_path)
    assert read_explanation(tmp_path) == found
    # A file of an earlier version says it in the description only.
    old = json.loads(path.read_text())
    del old["simulated"]
    path.write_text(json.dumps(old))
    assert read_explanation(tmp_path) == found.model_copy(update={"simulated": True})


def test_bands_shown_one_by_one(archive: Any, normaliser: Any) -> None:
    found = explained(build("test_resnet", 1), ONE_BY_ONE, archive, normaliser)
    assert [note.partition(":")[0] for note in found.notes] == ["Grad-CAM was left out"]
    assert found.projection is not None
    assert found.projection.inputs == "s2:B04+B03+B02"
    assert found.saliency is not None
    assert found.saliency.inputs == "s2:B04+B03+B02"
    assert "the maps are of all bands together" in found.saliency.method
    # The terms of all bands sum to the score of the probe that the tables are of.
    assert all(one.maps[0].completeness_error < 1e-2 for one in found.saliency.items)
    assert all([each.method for each in one.maps] == ["FullGrad"] for one in found.saliency.items)
    _check_bands(found, "joined vectors")


def _check_projection(found: Explanation, archive: Any) -> None:
    assert found.projection is not None
    points = found.projection.points
    test = {f"tile-{i}": f"class-{archive.codes[i]}" for i in np.flatnonzero(archive.split == "test")}
    assert len(points) == 30
    assert all(test[point.sample.id] == point.sample.label for point in points)
    assert "30 of 60 test samples" in found.projection.method


def _check_neighbours(found: Explanation, encoder: Encoder, archive: Any, normaliser: Any) -> None:
    assert found.neighbours is not None
    assert [query.sample.label for query in found.neighbours.queries] == [f"class-{c}" for c in (0, 0, 1, 1, 2, 2)]
    train, test = (np.flatnonzero(archive.split == part) for part in ("train", "test"))
    vectors = embed_vectors(encoder, archive, TOGETHER.members, normaliser, FLOAT32, np.arange(180), "test")[:, 0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for query in found.neighbours.queries:
        index = int(query.sample.id.removeprefix("tile-"))
        assert index in test
        cosines = unit[train] @ unit[index]
        best = np.argsort(-cosines)[:5]
        assert [one.sample.id for one in query.neighbours] == [f"tile-{i}" for i in train[best]]
        assert [one.similarity for one in query.neighbours] == pytest.approx(cosines[best].tolist(), abs=1e-4)


def _check_bands(found: Explanation, what: str) -> None:
    assert found.bands is not None
    assert found.bands.bands == ("s2:B04", "s2:B03", "s2:B02")
    assert found.bands.classes == ("class-0", "class-1", "class-2")
    assert what in found.bands.method
    assert "20 to 20 of each class" in found.bands.method
    shares = np.array(found.bands.shares)
    assert shares[:, 0].mean() > 0.4
    assert (np.abs(shares[:, 1:]) < 0.25).all()


def test_maps_of_several_bands_are_of_the_class_that_their_joined_vectors_are_given(
    archive: Any, normaliser: Any
) -> None:
    about = subject(build("test_resnet", 1), ONE_BY_ONE, archive, normaliser)
    found = make_saliency(about, 2, [])
    told = about.probe.predict(join(about.test))
    classes = {str(archive.ids[i]): f"class-{code}" for i, code in zip(about.splits.test, told, strict=True)}
    assert {one.sample.id: one.predicted for one in found.items} == {
        one.sample.id: classes[one.sample.id] for one in found.items
    }


def test_larger_images_have_a_map_of_grad_cam(archive: Any, normaliser: Any) -> None:
    about = subject(build("test_resnet", 3), TOGETHER, archive, normaliser)
    notes: list[str] = []
    found = make_saliency(replace(about, settings=FLOAT32.model_copy(update={"size": 128})), 1, notes)
    assert notes == []
    for one in found.items:
        assert [(each.method, each.completeness_error is None) for each in one.maps] == [
            ("FullGrad", False),
            ("Grad-CAM", True),
        ]


def test_a_vit_gives_attention_and_says_why_not_fullgrad(archive: Any, normaliser: Any) -> None:
    notes: list[str] = []
    found = make_saliency(subject(build("test_vit", 3), TOGETHER, archive, normaliser), 1, notes)
    assert {one.sample.label for one in found.items} == {"class-0", "class-1", "class-2"}
    for one in found.items:
        assert [each.method for each in one.maps] == ["attention", "attention rollout"]
    (note,) = notes
    assert "FullGrad needs layers that are piecewise linear" in note


def test_one_band_has_nothing_to_attribute(archive: Any, normaliser: Any) -> None:
    with pytest.raises(ConfigError, match="shown s2:B04 alone"):
        attribute_bands(subject(build("test_resnet", 1), InputRow(ONE_BY_ONE.members[:1]), archive, normaliser))


def test_a_collapsed_encoder_is_noted_and_the_rest_is_made(archive: Any, normaliser: Any) -> None:
    encoder = build("test_resnet", 3)
    for parameter in encoder.parameters():
        parameter.data.zero_()
    encoder.model.layer4[-1].bn2.bias.data.fill_(1.0)
    found = explained(encoder, TOGETHER, archive, normaliser)
    assert found.projection is None
    assert found.notes[0].startswith("The projection was left out. The 30 vectors all point the same way")
    assert found.neighbours is not None


def test_regression_is_refused(archive: Any, normaliser: Any) -> None:
    table = archive.table().append_column("height", [np.linspace(0, 1, len(archive))])
    splits = make_splits(table, target="height")
    encoder = build("test_resnet", 3)
    vectors = embedded(encoder, TOGETHER, archive, normaliser)
    with pytest.raises(ConfigError, match="classes"):
        explain(encoder, "toy", archive, TOGETHER, splits, normaliser, FLOAT32, "data", vectors, "height")


def test_the_affine_head_is_the_probe() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    vectors = (5 + rng.normal(size=(150, 6)) * [1, 20, 0.1, 3, 1, 1] + 2 * np.eye(6)[labels]).astype(np.float32)
    probe = LogisticProbe().fit(vectors[:90], labels[:90], Labelled(vectors[90:], labels[90:]))
    head = affine_head(probe)
    scaled = torch.from_numpy(probe.scaler_.transform(vectors.astype(np.float64)))
    expected = scaled @ probe.weights_.double() + probe.intercept_.double()
    assert head(torch.from_numpy(vectors)).numpy() == pytest.approx(expected.numpy(), abs=1e-3)
    shares = probabilities(head, vectors)
    assert shares.sum(axis=1) == pytest.approx(np.ones(150))
    assert np.array_equal(shares.argmax(axis=1), probe.predict(vectors))
