"""A comparison holds sites out, stands beside its floors, and leaves the encoder alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import shapely
import torch

from terrasieve.archive.opening import open_archive, scenes_spec_from_options
from terrasieve.embeddings import EmbedSettings, EncoderInput
from terrasieve.errors import BandError, ConfigError
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.models.export import EncoderCard
from terrasieve.probes.models import Candidate
from terrasieve.probes.results import PER_PIXEL
from terrasieve.probes.row_tables import score_tables
from terrasieve.probes.segmentation import (
    DeepLabProbe,
    PatchLinear,
    PixelValues,
    evaluate_segmentation,
    make_folds,
    prepare_segmentation,
    segment,
    segmentation_probes_named,
)
from terrasieve.probes.segmentation.map_probe import FeatureMaps, LabelledImages, SegmentationProbe

MakeMapped = Callable[..., Any]
FLOAT32 = EmbedSettings(precision="32", batch_size=8)
RGB = [EncoderInput.parse("s2:rgb")]
PIXELS = Candidate(PER_PIXEL, PixelValues(), 1, is_floor=True)


def prepared(archive: Any, sensor: str, probes: list[SegmentationProbe], ignore: tuple[int, ...] = ()) -> Any:
    folds = make_folds(archive.table(), sensor)
    return prepare_segmentation(archive, sensor, folds, probes, ignore, settings=FLOAT32)


class Spy(SegmentationProbe):
    """Remembers what it was given, predicts the first class."""

    name: ClassVar[str] = "spy"
    on_pixels: ClassVar[bool] = True
    settings = "none"

    def __init__(self) -> None:
        self.given: list[tuple[torch.Tensor, np.ndarray]] = []

    def fit(self, maps: FeatureMaps, train: LabelledImages, report: Any = None) -> Spy:
        self.given.append((train.pixels.clone(), train.labels.copy()))
        return self

    def predict(self, maps: FeatureMaps, pixels: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
        return np.zeros((len(pixels), *size), dtype=np.int64)


@pytest.fixture
def card() -> EncoderCard:
    return EncoderCard(
        backbone=BackboneSpec(name="resnet18", channels=1),
        method="byol",
        recipe="tiny",
        image_size=32,
        sensors={},
        view_bands=(),
        statistics={},
    )


@pytest.mark.slow
def test_every_model_stands_beside_its_floors(single_band: Encoder, card: EncoderCard, make_mapped: MakeMapped) -> None:
    archive = make_mapped(sites=3)
    archive.cover[:, :4, :4] = 0
    before = {name: tensor.clone() for name, tensor in single_band.state_dict().items()}
    single_band.train()
    probes = [PatchLinear(pixels=100, components=8), DeepLabProbe(steps=1, batch_size=2, width=8)]
    inputs = [EncoderInput.parse("s2:B03")]
    rows = segment(single_band, card, archive, "cover", inputs, probes, ignore=[0], settings=FLOAT32)
    found = [(row.model, row.inputs, row.probe) for row in rows]
    assert found == [
        (model, "s2:B03", probe)
        for model, names in (("tiny", 2), ("random init", 2), ("per-pixel", 1))
        for probe in ("patch linear", "DeepLabV3")[:names]
    ]
    for row in rows:
        assert (row.task, row.target, row.classes) == ("segmentation", "cover", ("1", "2", "4"))
        assert np.sum(row.confusion) == np.sum(archive.cover != 0)
        assert (row.n_train, row.n_test) == (4, 6)
        assert "SIMULATED" in row.data
        assert (row.simulated, row.data_set) == (True, archive.source["layout"])
        assert row.is_floor == (row.model != "tiny")
        assert "0 (ignored)" in row.data
        assert "only 3" in row.data
        assert row.protocol.startswith(f"{row.probe} v1: ")
        assert row.protocol.endswith(", feature maps in float32")
    assert single_band.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in single_band.state_dict().items())
    tables = score_tables(rows)
    assert [table.columns for table in tables[::2]] == [
        ("input", "tiny", "random init", "per-pixel"),
        ("input", "tiny", "random init"),
    ]
    assert all("mIoU" in table.title for table in tables[::2])


@pytest.mark.parametrize("coarse", [1, 4])
def test_classes_that_the_pixels_tell_are_found_without_error(make_mapped: MakeMapped, coarse: int) -> None:
    # Also where a pixel of the label map covers several of the image.
    task = prepared(make_mapped(coarse=coarse), "cover", [PatchLinear(pixels=400)])
    (row,) = evaluate_segmentation([PIXELS], RGB, task)
    assert row.inputs == "s2:B04+B03+B02"
    assert row.metrics == {"miou": 1, "average_accuracy": 1, "overall_accuracy": 1}
    assert row.ci95["miou"] == (1, 1)


def test_nothing_of_a_held_out_site_reaches_the_fit(make_mapped: MakeMapped) -> None:
    plain, spoilt = make_mapped(), make_mapped()
    spoilt.pixels[spoilt.sites == 2] = 9 * spoilt.pixels[spoilt.sites == 2] + 77
    given = []
    for archive in (plain, spoilt):
        spy = Spy()
        evaluate_segmentation([PIXELS], RGB, prepared(archive, "cover", [spy]))
        given.append(spy.given)
    same = [torch.equal(one[0], other[0]) for one, other in zip(*given, strict=True)]
    assert same == [False, False, True, False]
    for fold, (pixels, labels) in enumerate(given[0]):
        assert np.array_equal(labels, np.searchsorted([1, 2, 4], plain.cover[plain.sites != fold]))
        # Standardised by the train images: parts are bands shown one by one.
        torch.testing.assert_close(pixels.mean(dim=(0, 2, 3, 4)), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(pixels.std(dim=(0, 2, 3, 4)), torch.ones(3), atol=1e-3, rtol=0)


def test_intervals_resample_sites(make_mapped: MakeMapped) -> None:
    archive = make_mapped(sites=2)
    archive.cover[archive.sites == 0] = np.where(archive.cover[archive.sites == 0] == 4, 2, 1)
    archive.cover[:, 0, 0] = 4
    task = prepared(archive, "cover", [Spy()])
    (row,) = evaluate_segmentation([PIXELS], RGB, task)
    shares = [float((archive.cover[archive.sites == site] == 1).mean()) for site in (0, 1)]
    assert row.ci95["overall_accuracy"] == pytest.approx((min(shares), max(shares)))
    assert row.metrics["overall_accuracy"] == pytest.approx(np.mean(shares))


def test_an_image_without_a_pixel_that_counts_is_left_out(make_mapped: MakeMapped) -> None:
    archive = make_mapped(sites=4)
    archive.cover[archive.sites == 1] = 0
    spy = Spy()
    task = prepared(archive, "cover", [spy], ignore=(0,))
    (row,) = evaluate_segmentation([PIXELS], RGB, task)
    assert (row.n_train, row.n_test) == (4, 6)
    assert [len(labels) for _, labels in spy.given] == [4, 4, 4]


@pytest.mark.slow
def test_a_band_copied_for_a_baseline_is_marked(make_mapped: MakeMapped) -> None:
    baseline = build_encoder(BackboneSpec(name="resnet18", channels=3), seed=0)
    task = prepared(make_mapped(sites=2), "cover", [PatchLinear(pixels=100, components=8)])
    wanted = [EncoderInput.parse("s2:B04"), *RGB]
    rows = evaluate_segmentation([Candidate("baseline", baseline, 3), PIXELS], wanted, task)
    assert [(row.inputs, row.note) for row in rows] == [
        ("s2:B04", "band copied 3 times"),
        ("s2:B04,B03,B02", ""),
        ("s2:B04", ""),
        ("s2:B04+B03+B02", ""),
    ]
    with pytest.raises(BandError, match="takes 3"):
        evaluate_segmentation([Candidate("baseline", baseline, 3)], [EncoderInput.parse("s2:B04,B03")], task)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_rows(single_band: Encoder, make_mapped: MakeMapped) -> None:
    def rows(seed: int) -> list[Any]:
        probes = [PatchLinear(100, components=8, seed=seed), DeepLabProbe(steps=2, batch_size=2, width=8, seed=seed)]
        task = prepared(make_mapped(sites=2), "cover", probes)
        return evaluate_segmentation([Candidate("one", single_band, 1)], [EncoderInput.parse("s2:B04")], task)

    first, again, other = rows(1), rows(1), rows(2)
    assert first == again
    assert all(one.confusion != two.confusion for one, two in zip(first, other, strict=True))


def test_sites_that_overlap_are_told_by_the_share_and_the_switch_that_holds_them_out(
    make_mapped: MakeMapped, single_band: Encoder, card: EncoderCard, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = make_mapped(2, 2)
    shapes = [shapely.to_wkb(shapely.box(0.5 * place, 0, 0.5 * place + 1, 1)) for place in (0, 5, 1, 20)]
    archive.columns = {"geometry": shapes, "place": ["a", "b", "a", "c"]}
    shown = [EncoderInput(sensor="s2", bands=("B04",))]
    segment(single_band, card, archive, "cover", shown, [Spy()], settings=FLOAT32)
    said = " ".join(capsys.readouterr().err.split())
    assert "50% of the test images overlap train images, so that scores are too good; --group COLUMN holds" in said
    segment(single_band, card, archive, "cover", shown, [Spy()], group="place", settings=FLOAT32)
    assert "overlap" not in capsys.readouterr().err


def test_probes_go_by_name() -> None:
    assert [probe.name for probe in segmentation_probes_named(["DeepLab", "patch", "deeplab"])] == [
        "DeepLabV3",
        "patch linear",
    ]
    assert [probe.name for probe in segmentation_probes_named([])] == ["patch linear"]
    with pytest.raises(ConfigError, match="Did you mean 'deeplab'"):
        segmentation_probes_named(["deeplabv"])


def test_land_cover_of_real_sites_from_radar(data_dir: Path) -> None:
    sensors = ["s1=s1:S1RTC", "lulc=land-cover:LULC"]
    archive = open_archive(scenes_spec_from_options(data_dir / "terramesh_sites", sensors, tile=112))
    task = prepared(archive, "lulc", [PatchLinear(pixels=1500)])
    (row,) = evaluate_segmentation([PIXELS], [EncoderInput.parse("s1:all")], task)
    # Flooded vegetation, bare ground and snow occur at one site each, and one site is nothing but snow.
    assert row.classes == ("1", "2", "4", "5", "9")
    assert (row.n_train, row.n_test, len(task.folds.parts)) == (12, 16, 4)
    assert np.sum(row.confusion) == 4 * 224**2 - 90 - 3316
