"""A model is shown bands as they are, one by one, or copied where that is allowed; anything else is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from terrasieve.embeddings import EmbedSettings, EncoderInput
from terrasieve.errors import BandError, ConfigError
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.probes.compare import compare, prepare
from terrasieve.probes.knn import KnnProbe
from terrasieve.probes.linear.logistic import LogisticProbe
from terrasieve.probes.linear.ridge import RidgeProbe
from terrasieve.probes.models import Candidate, fits, showing
from terrasieve.probes.results import predictions_table
from terrasieve.probes.splits import make_splits
from terrasieve.sensors import SENSORS

SENSORS_OF = {"s2": SENSORS["s2-l2a"]}
GREEN, RGB, EDGE = (EncoderInput.parse(text) for text in ("s2:B03", "s2:rgb", "s2:B05,B06"))


def candidate(channels: int, name: str = "net") -> Candidate:
    encoder = build_encoder(BackboneSpec(name="test_resnet", channels=channels), seed=channels)
    return Candidate(name, encoder, channels)


def test_each_model_is_shown_what_fits_it() -> None:
    assert showing(candidate(1), RGB, SENSORS_OF).row.name == "s2:B04+B03+B02"
    assert showing(candidate(3), RGB, SENSORS_OF).row.name == "s2:B04,B03,B02"
    copied = showing(candidate(3), GREEN, SENSORS_OF)
    assert (copied.row.name, copied.note) == ("s2:B03", "band copied 3 times")
    pixels = torch.randn(2, 1, 16, 16)
    encoder = candidate(3).model.eval()
    assert torch.equal(copied.model.eval()(pixels), encoder(pixels.expand(-1, 3, -1, -1)))


def test_a_band_is_copied_only_into_three_channels_and_only_a_single_one() -> None:
    for model, shown in ((candidate(2), GREEN), (candidate(3), EDGE)):
        assert not fits(model, shown, SENSORS_OF)
        with pytest.raises(BandError, match=f"takes {model.channels}"):
            showing(model, shown, SENSORS_OF)
    with pytest.raises(BandError, match="no band set 'B99'"):
        fits(candidate(1), EncoderInput.parse("s2:B99"), SENSORS_OF)


def test_other_bands_than_a_network_was_trained_on_are_noted_or_refused() -> None:
    three, two = candidate(3).model, candidate(2).model
    rgb = Candidate("ImageNet", three, 3, ("red", "green", "blue"))
    assert showing(rgb, RGB, SENSORS_OF).note == ""
    edges = showing(rgb, EncoderInput.parse("s2:B05,B06,B07"), SENSORS_OF)
    assert edges.note == "B05, B06, B07 in the place of red, green, blue"
    assert showing(rgb, EncoderInput.parse("s2:B02,B03,B04"), SENSORS_OF).note.startswith("B02, B03, B04 in the place")
    ordered = Candidate("pair", two, 2, ("B05", "B06"))
    assert showing(ordered, EDGE, SENSORS_OF).note == ""
    with pytest.raises(BandError, match=r"trained on B05, B06 in this order, but s2:B06,B05 shows it B06, B05"):
        showing(ordered, EncoderInput.parse("s2:B06,B05"), SENSORS_OF)


def test_models_are_compared_on_the_same_samples_and_every_prediction_is_kept(
    make_labelled: Callable[..., Any],
) -> None:
    archive = make_labelled()
    splits = make_splits(archive.table())
    models = [candidate(1, name="one"), candidate(3, name="three")]
    settings = EmbedSettings(precision="32", batch_size=32)
    rows = [showing(models[0], shown, archive.sensors).row for shown in (GREEN, RGB)]
    task = prepare(archive, splits, rows, [KnnProbe(), LogisticProbe(grid=[1.0])], settings, (0.2, 1.0))
    measured = compare(models, [GREEN, RGB], task)
    found = [(one.row.model, one.row.inputs, one.row.train_share, one.row.probe, one.row.note) for one in measured]
    inputs = {"one": ["s2:B03", "s2:B04+B03+B02"], "three": ["s2:B03", "s2:B04,B03,B02"]}
    notes = {("three", "s2:B03"): "band copied 3 times"}
    assert found == [
        (name, shown, share, probe, notes.get((name, shown), ""))
        for name in ("one", "three")
        for shown in inputs[name]
        for share in (0.2, 1.0)
        for probe in ("kNN", "logistic")
    ]
    assert {one.row.shown_bands for one in measured} == {"s2:B03", "s2:B04,B03,B02"}
    assert {one.row.n_train for one in measured if one.row.train_share == 0.2} == {9}
    table = predictions_table(measured, splits, archive.ids).to_pandas()
    assert len(table) == len(measured) * 30
    for one in measured:
        row = one.row
        lines = table.query(
            "model == @row.model and inputs == @row.inputs and probe == @row.probe and train_share == @row.train_share"
        )
        assert np.mean(lines.truth == lines.predicted) == pytest.approx(row.metrics["accuracy"])
        assert lines.id.tolist() == archive.ids[splits.test].tolist()
        assert np.array(row.confusion).sum(axis=1).tolist() == np.bincount(splits.labels[splits.test]).tolist()


def test_two_models_of_one_name_are_refused(make_labelled: Callable[..., Any]) -> None:
    archive = make_labelled()
    row = showing(candidate(1), GREEN, archive.sensors).row
    task = prepare(archive, make_splits(archive.table()), [row], [KnnProbe()])
    with pytest.raises(ConfigError, match="Two models are called 'net'"):
        compare([candidate(1), candidate(1)], [GREEN], task)


def test_a_probe_for_another_kind_of_target_is_refused(make_labelled: Callable[..., Any]) -> None:
    archive = make_labelled()
    row = showing(candidate(1), GREEN, archive.sensors).row
    with pytest.raises(ConfigError, match="ridge is made for regression, but 'label' is a target of classification"):
        prepare(archive, make_splits(archive.table()), [row], [RidgeProbe()])
