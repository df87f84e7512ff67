"""A comparison holds every row, beside its floors, and touches neither encoder nor test data while fitting."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
import torch

from terrasieve import device, probing
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.derived.wrapper import WrapperArchive
from terrasieve.archive.layouts.eurosat import EuroSatArchive, EuroSatSpec
from terrasieve.embeddings import EmbedSettings, EncoderInput, embed_batches
from terrasieve.embeddings.inputs import join
from terrasieve.errors import BandError
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.export import EncoderCard
from terrasieve.probes import compare as evaluation
from terrasieve.probes.compare import used_samples
from terrasieve.probes.mlp import MlpProbe
from terrasieve.probes.models import ImageStatistics
from terrasieve.probes.results import InputRow, default_rows
from terrasieve.probes.row_tables import read_json
from terrasieve.probing import ProbePlan, embed_encoder, embedding_table, measure_run, probe, probe_run, set_up
from terrasieve.sensors import SENSORS

MakeLabelled = Callable[..., Any]
GREEN = (EncoderInput.parse("s2:B03"),)
FLOAT32 = EmbedSettings(precision="32", batch_size=32)


def names(sensors: dict[str, Any], channels: int) -> list[str]:
    return [row.name for row in default_rows(sensors, channels)]


def test_default_rows_of_a_single_band_encoder() -> None:
    sensors = {key: SENSORS[name] for key, name in [("s2", "s2-rgb8"), ("s1", "s1"), ("lc", "land-cover")]}
    assert names(sensors, 1) == ["s2:B04", "s2:B03", "s2:B02", "s1:VV", "s1:VH", "s2:B04+B03+B02"]


def test_default_rows_of_a_three_band_encoder() -> None:
    assert names({"s2": SENSORS["s2-l2a"], "s1": SENSORS["s1"]}, 3) == ["s2:B04,B03,B02", "s2:B05,B06,B07"]
    assert names({"s1": SENSORS["s1"]}, 2) == ["s1:VV,VH"]
    with pytest.raises(BandError, match="takes 5 bands"):
        default_rows({"s1": SENSORS["s1"]}, 5)


def test_joined_vectors_weigh_every_band_alike() -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
    vectors[:, 1] *= 1000
    vectors[0, 2] = 0
    joined = join(vectors)
    assert joined.shape == (4, 15)
    lengths = np.linalg.norm(joined.reshape(4, 3, 5), axis=2)
    assert np.allclose(lengths, np.where(np.arange(12).reshape(4, 3) == 2, 0, 1), atol=1e-6)
    assert np.array_equal(join(vectors[:, :1]), vectors[:, 0])


def test_every_row_stands_beside_its_floors(encoder: Encoder, card: EncoderCard, make_labelled: MakeLabelled) -> None:
    rows = probe(encoder, card, make_labelled(), ProbePlan(probes=("kNN", "knn", MlpProbe(epochs=2)), settings=FLOAT32))
    inputs = ["s2:B04", "s2:B03", "s2:B02", "s2:B04+B03+B02"]
    models = ["rs-byol-1", "random init", "image statistics"]
    found = [(row.model, row.inputs, row.probe) for row in rows]
    assert found == [(m, i, p) for m in models for i in inputs for p in ("kNN", "MLP")]
    assert {(row.n_train, row.n_test) for row in rows} == {(45, 30)}
    assert all(row.ci95["macro_f1"][0] <= row.metrics["macro_f1"] <= row.ci95["macro_f1"][1] for row in rows)
    assert all("SIMULATED" in row.data and "published (split)" in row.data for row in rows)
    assert all(
        (row.simulated, row.data_set, row.is_floor) == (True, "memory", row.model != "rs-byol-1") for row in rows
    )
    assert {row.bands for row in rows if row.inputs == inputs[3]} == {("B04", "B03", "B02")}
    statistics = [row for row in rows if row.model == "image statistics" and row.probe == "kNN"]
    assert all(row.metrics["accuracy"] > 0.9 for row in statistics)


@pytest.mark.parametrize(("fast", "used"), [(True, "bfloat16"), (False, "float32")])
def test_every_protocol_names_the_precision_that_was_used(
    encoder: Encoder,
    card: EncoderCard,
    make_labelled: MakeLabelled,
    monkeypatch: pytest.MonkeyPatch,
    fast: bool,
    used: str,
) -> None:
    monkeypatch.setattr(device, "bf16_is_fast", lambda _: fast)
    rows = probe(
        encoder, card, make_labelled(), ProbePlan(GREEN, probes=("kNN",), settings=EmbedSettings(batch_size=32))
    )
    assert len(rows) == 3
    assert all(row.protocol.endswith(f", vectors in {used}") for row in rows)


@pytest.mark.slow
def test_the_quick_probes_are_what_is_fitted_by_default(
    encoder: Encoder, card: EncoderCard, make_labelled: MakeLabelled, tmp_path: Path
) -> None:
    plan = ProbePlan(GREEN, settings=FLOAT32)
    rows = probe(encoder, card, make_labelled(), plan)
    assert [row.probe for row in rows] == ["kNN", "logistic"] * 3
    assert probe_run(encoder, card, make_labelled(), tmp_path, plan) == rows == read_json(tmp_path / "probe.json")


def test_each_sample_passes_each_model_once(
    encoder: Encoder, card: EncoderCard, make_labelled: MakeLabelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_labelled()
    counted: list[int] = []
    real = evaluation.embed_vectors

    def spy(model: Any, source: Any, members: Any, *rest: Any) -> Any:
        archive.reads.clear()
        vectors = real(model, source, members, *rest)
        counted.append(len(members))
        assert set(archive.reads.values()) == {1}
        return vectors

    monkeypatch.setattr(evaluation, "embed_vectors", spy)
    probe(encoder, card, archive, ProbePlan(probes=("knn",), settings=FLOAT32))
    assert counted == [3, 3, 3]


class _Measured(WrapperArchive):
    """The same samples with their names, a number of each, and another that a few lack."""

    def table(self) -> pa.Table:
        numbers = np.linspace(0, 1, len(self))
        known = self.archive.table().append_column("height", pa.array(numbers))
        known = known.append_column("id", pa.array(self.ids.tolist()))
        return known.append_column("depth", pa.array([None, None, *numbers[2:]], pa.float64()))


def test_targets_of_the_same_samples_share_the_vectors(
    encoder: Encoder, card: EncoderCard, make_labelled: MakeLabelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, counted = _Measured(make_labelled()), list[int]()
    real = evaluation.embed_vectors

    def spy(model: Any, source: Any, members: Any, normaliser: Any, settings: Any, indices: Any, said: str) -> Any:
        counted.append(len(indices))
        return real(model, source, members, normaliser, settings, indices, said)

    targets = ("label", "depth", "height")
    alone = [
        row
        for target in targets
        for row in probe(encoder, card, archive, ProbePlan(GREEN, ("knn",), (target,), settings=FLOAT32))
    ]
    monkeypatch.setattr(evaluation, "embed_vectors", spy)
    together = probe(encoder, card, archive, ProbePlan(GREEN, ("knn",), targets, settings=FLOAT32))
    # The class and the height are known of all samples; the depth, of two fewer, is measured on others.
    assert counted == [90] * 3 + [88] * 3
    assert together == alone


def test_vectors_for_the_probes_are_what_the_file_of_vectors_holds(
    encoder: Encoder, card: EncoderCard, make_labelled: MakeLabelled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _Measured(make_labelled())
    plan = ProbePlan((EncoderInput.parse("s2:B03"), EncoderInput.parse("s2:rgb")), ("knn",), settings=FLOAT32)
    setup = set_up(encoder, card, archive, plan)
    embedded = embed_encoder(setup)
    table = embedding_table(setup, embedded)
    assert table.vectors.shape == (90, 3, encoder.features)
    assert table.ids.tolist() == archive.ids[used_samples(setup.tasks[0][0].splits)].tolist()
    assert table.columns["label"].to_pylist() == [f"class-{int(one.split('-')[1]) % 3}" for one in table.ids]
    assert table.provenance["batch_norms"] == "measured on the train split, for each input"
    green = [str(one) for one in table.inputs].index("s2:B03")
    assert np.array_equal(table.vectors[:, green], embedded.vectors(embedded.shown[0])[:, 0])
    expected = probe(encoder, card, archive, plan)
    monkeypatch.setattr(probing, "embed_encoder", pytest.fail)
    assert measure_run(setup, embedded, tmp_path) == expected


def test_encoder_is_left_bit_for_bit(encoder: Encoder, card: EncoderCard, make_labelled: MakeLabelled) -> None:
    encoder.train()
    encoder.model.layer1.eval()
    modes = [module.training for module in encoder.modules()]
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    probe(encoder, card, make_labelled(), ProbePlan(GREEN, (MlpProbe(epochs=1),), settings=FLOAT32))
    assert [module.training for module in encoder.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


@pytest.mark.slow
def test_normalisation_comes_from_the_train_split_only(
    encoder: Encoder, card: EncoderCard, make_labelled: MakeLabelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def spy(model: Any, archive: Any, inputs: Any, normaliser: Any, *rest: Any) -> Any:
        seen.append(normaliser.statistics)
        return real(model, archive, inputs, normaliser, *rest)

    real = evaluation.embed_vectors
    monkeypatch.setattr(evaluation, "embed_vectors", spy)
    for shift in (0.0, 5000.0):
        probe(encoder, card, make_labelled(shift=shift), ProbePlan(GREEN, ("knn",), settings=FLOAT32))
    assert seen[0] == seen[3]
    train = make_labelled()
    fitted = next(one for one in seen[0]["s2"] if one.band == "B03")
    assert fitted.mean == pytest.approx(train.pixels[train.split == "train", 1].mean(), rel=1e-5)


def test_a_three_band_encoder_sees_bands_together(card: EncoderCard, make_labelled: MakeLabelled) -> None:
    spec = BackboneSpec(name="resnet18", channels=3)
    three = card.model_copy(update={"backbone": spec, "recipe": "rs-byol-3-rgb-s1s2"})
    rows = probe(build_encoder(spec, seed=0), three, make_labelled(), ProbePlan(probes=("knn",), settings=FLOAT32))
    assert [row.inputs for row in rows] == ["s2:B04,B03,B02"] * 3
    with pytest.raises(BandError, match="the encoder takes 3"):
        probe(build_encoder(spec, seed=0), three, make_labelled(), ProbePlan((EncoderInput.parse("s2:B04"),)))


@pytest.mark.slow
def test_image_statistics_of_real_pixels_beat_chance(data_dir: Path, card: EncoderCard, encoder: Encoder) -> None:
    archive = EuroSatArchive(EuroSatSpec(root=data_dir / "eurosat_rgb"))
    small = SubsetArchive(archive, np.arange(0, len(archive), 14))
    plan = ProbePlan((EncoderInput.parse("s2:rgb"),), ("knn",), settings=EmbedSettings(size=32))
    rows = probe(encoder, card, small, plan)
    by_model = {row.model: row for row in rows}
    assert by_model["image statistics"].ci95["accuracy"][0] > 0.25
    assert (
        by_model["image statistics"].inputs
        == InputRow(tuple(EncoderInput(sensor="s2", bands=(b,)) for b in ("B04", "B03", "B02"))).name
    )


def test_image_statistics_stream_like_an_encoder(make_labelled: MakeLabelled, card: EncoderCard) -> None:
    from terrasieve.views.render import Normaliser

    archive = make_labelled(6)
    inputs = [EncoderInput(sensor="s2", bands=("B04",))]
    batches = embed_batches(ImageStatistics(), archive, inputs, Normaliser(archive.sensors, card.statistics), FLOAT32)
    ((_, vectors),) = batches
    assert np.allclose(vectors[:, 0, 0], archive.pixels[:, 0].mean(axis=(1, 2)), rtol=1e-4)


class _Placed(WrapperArchive):
    """The same samples along the equator, each overlapping the next by half; without a published split."""

    def table(self) -> pa.Table:
        shapes = [shapely.to_wkb(shapely.box(i / 20, 0, i / 20 + 0.1, 0.1)) for i in range(len(self))]
        known = self.archive.table().drop_columns(["split"])
        if "geometry" in known.column_names:
            known = known.drop_columns(["geometry"])
        return known.append_column("geometry", pa.array(shapes, pa.binary()))


def test_a_test_that_overlaps_what_is_fitted_on_is_told_and_squares_mend_it(
    encoder: Encoder, card: EncoderCard, make_labelled: MakeLabelled, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = _Placed(make_labelled())
    (by_chance, *_) = probe(encoder, card, archive, ProbePlan(inputs=GREEN, probes=("knn",), settings=FLOAT32))
    assert "92% of the test samples of label overlap train" in " ".join(capsys.readouterr().err.split())
    assert "of the test samples overlap" in by_chance.data
    plan = ProbePlan(inputs=GREEN, probes=("knn",), settings=FLOAT32, block_km=60)
    (by_square, *_) = probe(encoder, card, archive, plan)
    assert "overlap" not in capsys.readouterr().err + by_square.data
    assert "squares of 60 km held together" in by_square.data
