"""The main job in a few calls: train, embed, search, probe, curate, report."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

import terrasieve as ts
from apart import run_apart
from terrasieve.archive.protocol import Archive
from terrasieve.embeddings import EmbedSettings, EncoderInput, embed, normaliser_for
from terrasieve.errors import BandError, CheckpointError, ConfigError
from terrasieve.models.export import load_encoder
from terrasieve.views.render import Normaliser

HEAVY = ("torch", "numpy", "pandas", "rasterio", "timm", "pyarrow", "matplotlib")


def test_importing_the_library_imports_nothing_heavy() -> None:
    code = f"import sys, terrasieve; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_everything_that_is_offered_is_there_and_nothing_else() -> None:
    for name in ts.__all__:
        assert getattr(ts, name) is not None
    assert set(ts.__all__) <= set(dir(ts))
    with pytest.raises(AttributeError, match="no attribute 'pretran'"):
        ts.pretran  # noqa: B018


def test_what_is_offered_stays_so_when_modules_are_imported() -> None:
    code = (
        "import terrasieve as ts, pkgutil, importlib\n"
        "for one in pkgutil.iter_modules(ts.__path__):\n"
        "    importlib.import_module('terrasieve.' + one.name)\n"
        "hidden = [name for name in ts.__all__ if type(getattr(ts, name)).__name__ == 'module']\n"
        "assert hidden == [], hidden"
    )
    assert run_apart(code) == (0, "")


def test_a_run_gives_encoder_log_configuration_and_page(run: ts.Run) -> None:
    assert run.config.train.steps == 2
    assert run.log["step"].iloc[-1] == 2
    assert run.encoder.channels == 1
    assert run.scores.empty
    assert run.report.is_file()
    assert "2 logged steps" in repr(run) or "1 logged steps" in repr(run)


def test_a_folder_without_a_run_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        ts.Run(tmp_path)


def test_a_setting_that_is_none_is_an_error_with_the_nearest_one(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        ts.pretrain("rs-byol-1-small", archive, tmp_path / "run", train__epoch=2)


def test_vectors_are_those_of_the_parts_underneath(run: ts.Run, archive: Archive) -> None:
    found = run.encoder.embed(archive, "s2:B04,B03", device="cpu", progress=False)
    encoder, card = load_encoder(run.path)
    inputs = [EncoderInput.parse("s2:B04"), EncoderInput.parse("s2:B03")]
    wanted = embed(encoder, card, archive, inputs, normaliser_for("encoder", card, archive, inputs), EmbedSettings())
    assert np.array_equal(found.vectors, wanted.vectors)
    assert found.ids.tolist() == archive.ids.tolist()


def test_a_scene_becomes_a_map_however_its_archive_is_cut(
    run: ts.Run, tmp_path: Path, write_tif: Callable[..., NDArray[np.uint16]]
) -> None:
    names = ts.open("simulated:0:8").sensors["s2"].names
    pixels = np.random.default_rng(0).integers(1, 5000, (len(names), 70, 100)).astype(np.uint16)
    write_tif(tmp_path / "s2" / "a.tif", pixels, names=names)
    for tile in (16, 64):
        archive = ts.open(tmp_path, sensor={"s2": "s2-l2a"}, tile=tile)
        out = tmp_path / f"{tile}.zarr"
        path = run.encoder.embed_dense(archive, out, "s2:B04,B03", stride=8, tile=32, device="cpu", progress=False)
        assert path == out
    found, again = (ts.open_maps(tmp_path / f"{tile}.zarr")["a"] for tile in (16, 64))
    assert found.shape == (9, 13, 2 * run.encoder.features)
    np.testing.assert_array_equal(found.read(), again.read())
    with pytest.raises(ConfigError, match="whose samples are cut already"):
        run.encoder.embed_dense("simulated:0:8", tmp_path / "b.zarr", "s2:B04", device="cpu", progress=False)
    with pytest.raises(ConfigError, match=r"let it end in \.zarr or \.tif"):
        run.encoder.embed_dense(archive, tmp_path / "b.npy", "s2:B04")


def test_an_array_is_embedded_as_the_archive_that_it_came_from(run: ts.Run, archive: Archive) -> None:
    bands = ["B04", "B03", "B02"]
    pixels = np.stack([archive.read(index, "s2", bands) for index in range(len(archive))])
    of_array = run.encoder.embed(pixels, bands, device="cpu", progress=False)
    of_archive = run.encoder.embed(archive, "s2:B04,B03,B02", device="cpu", progress=False)
    assert np.array_equal(of_array.vectors, of_archive.vectors)
    with pytest.raises(BandError, match="second axis"):
        run.encoder.embed(pixels)
    with pytest.raises(BandError, match="No sensor has the bands B04, B99"):
        run.encoder.embed(pixels[:, :2], ["B04", "B99"])


def test_bands_without_a_sensor_are_of_the_only_one(run: ts.Run, archive: Archive) -> None:
    with pytest.raises(BandError, match="of which sensor"):
        run.encoder.embed(archive, "rgb", progress=False)


def test_preprocess_standardises_as_training_does(run: ts.Run, archive: Archive) -> None:
    pixels = archive.read(0, "s2", ["B03"])[None]
    given = run.encoder.preprocess(pixels, "s2:B03")
    normaliser = Normaliser(archive.sensors, run.encoder.card.statistics)
    assert torch.equal(given, normaliser(torch.from_numpy(pixels), [("s2", "B03")]))
    assert run.encoder(given).shape == (1, run.encoder.features)
    with pytest.raises(BandError, match="shape"):
        run.encoder.preprocess(pixels[0], "s2:B03")


def test_an_encoder_of_others_is_shown_one_band_as_copies(archive: Archive) -> None:
    encoder = ts.load_encoder("random:resnet18:3")
    table = encoder.embed(archive[:6], "s2:B04", device="cpu", progress=False)
    assert table.vectors.shape == (6, 1, encoder.features)
    assert not encoder.training


def test_what_is_no_encoder_says_what_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the folder of a run"):
        ts.load_encoder("nothing-of-that-name")
    with pytest.raises(CheckpointError):
        ts.load_encoder(tmp_path)


def test_a_probe_gives_a_frame_with_intervals_and_floors(run: ts.Run) -> None:
    found = ts.probe(run, "simulated:1:80", bands="s2:B03", probes=["knn"], device="cpu")
    assert found["model"].tolist() == ["rs-byol-1-small", "random init", "image statistics"]
    assert (found["accuracy_low"] <= found["accuracy"]).all()
    assert (found["accuracy"] <= found["accuracy_high"]).all()


def test_curation_of_a_table_and_of_its_vectors_choose_alike(run: ts.Run, archive: Archive, tmp_path: Path) -> None:
    table = run.encoder.embed(archive, "s2:B03", device="cpu", progress=False)
    chosen = ts.curate(
        table, 0.25, seed=3, levels=[8, 2], out=tmp_path / "kept.parquet", device="cpu"
    ).selection.indices
    assert len(chosen) == 10
    again = ts.curate(table.joined, 10, seed=3, levels=[8, 2], device="cpu").selection.indices
    assert np.array_equal(chosen, again)
    part = archive[chosen]
    assert len(part) == 10


def test_the_page_of_several_runs_is_where_it_is_asked_for(run: ts.Run, tmp_path: Path) -> None:
    page = ts.report(run, run.path, out=tmp_path / "both.html")
    assert page == tmp_path / "both.html"
    assert page.is_file()


# ------------------------------------------------------------------- the table


@pytest.fixture
def table() -> ts.EmbeddingTable:
    """30 vectors in three directions, of which every tenth lies nowhere."""
    return _table(np.random.default_rng(1))


def _table(rng: np.random.Generator) -> ts.EmbeddingTable:
    import pyarrow as pa
    import shapely

    directions = np.eye(3, 8)[np.arange(30) % 3]
    vectors = (directions + 0.05 * rng.normal(size=(30, 8))).astype(np.float32)
    places = [None if index % 10 == 9 else shapely.box(index, 0, index + 1, 1).wkb for index in range(30)]
    columns = pa.table(
        {
            "geometry": pa.array(places, pa.binary()),
            "time": pa.nulls(30, pa.timestamp("us", "UTC")),
            "label": [f"class {index % 3}" for index in range(30)],
        }
    )
    ids = np.array([f"sample-{index}" for index in range(30)])
    return ts.EmbeddingTable(ids, vectors[:, None], (EncoderInput.parse("s2:B03"),), columns, {})


def cosines(table: ts.EmbeddingTable, query: NDArray[np.float32]) -> NDArray[np.float64]:
    rows = table.joined.astype(np.float64)
    return rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)


def test_the_nearest_are_those_of_the_highest_cosine_without_the_row_itself(table: ts.EmbeddingTable) -> None:
    found = table.nearest(4, k=5)
    order = np.argsort(-cosines(table, table.joined[4].astype(np.float64)), kind="stable")
    assert found["row"].tolist() == [row for row in order if row != 4][:5]
    assert found["rank"].tolist() == [1, 2, 3, 4, 5]
    assert found["id"].tolist() == table.ids[found["row"]].tolist()
    assert (found["label"] == "class 1").all()


def test_several_queries_are_told_apart_and_may_be_any_vectors(table: ts.EmbeddingTable) -> None:
    found = table.nearest(table.joined[[0, 1]] * 7, k=2)
    assert found["query"].tolist() == [0, 0, 1, 1]
    assert found.loc[found["rank"] == 1, "row"].tolist() == [0, 1]
    assert np.allclose(found.loc[found["rank"] == 1, "similarity"], 1)


def test_no_more_are_found_than_there_are(table: ts.EmbeddingTable) -> None:
    assert len(table.nearest(0, k=100)) == 29
    assert len(table.nearest(table.joined[0], k=100)) == 30


def test_an_index_finds_what_comparing_all_finds_in_well_parted_vectors(table: ts.EmbeddingTable) -> None:
    pytest.importorskip("faiss")
    assert set(table.nearest(4, k=5, exact=False)["row"]) == set(table.nearest(4, k=5)["row"])


@pytest.mark.parametrize(
    ("query", "k", "said"), [(30, 1, "30 rows"), (0, 0, "one sample"), (np.zeros(5), 1, "8 numbers")]
)
def test_a_query_that_does_not_fit_says_what_does(table: ts.EmbeddingTable, query: object, k: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        table.nearest(query, k)  # type: ignore[arg-type]


def test_clusters_are_the_three_directions(table: ts.EmbeddingTable) -> None:
    clusters = table.cluster(3)
    assert len({(cluster, label) for cluster, label in zip(clusters, table.to_pandas()["label"], strict=True)}) == 3


def test_frames_hold_ids_vectors_and_outlines(table: ts.EmbeddingTable) -> None:
    frame = table.to_pandas(vectors=True)
    assert isinstance(frame, pd.DataFrame)
    assert np.array_equal(np.stack(frame["embedding"]), table.joined)
    placed = table.to_geopandas()
    assert placed.crs.to_epsg() == 4326
    assert placed.geometry.isna().sum() == 3
    assert placed.geometry.iloc[4].bounds == (4, 0, 5, 1)


def test_drawings_of_vectors_say_how_many_are_shown(table: ts.EmbeddingTable) -> None:
    for colour in ("label", table.cluster(3), np.linspace(0, 1, 30)):
        drawn = table.plot(colour, samples=12)
        assert "12 of 30" in drawn.figure.axes[0].get_title(loc="left")
        assert sum(len(part.get_offsets()) for part in drawn.figure.axes[0].collections) == 12
    with pytest.raises(ConfigError, match="no column 'labels'"):
        table.plot("labels")


def test_a_map_has_a_dot_for_each_sample_that_lies_somewhere(table: ts.EmbeddingTable) -> None:
    pytest.importorskip("folium")
    page = table.map().get_root().render()
    assert page.count("L.circleMarker(") == 27
    assert "sample-9:" not in page
    assert "sample-8: class 2" in page


def test_a_cube_is_embedded_by_the_names_of_its_bands(run: ts.Run, pixels: NDArray[np.uint16]) -> None:
    xarray = pytest.importorskip("xarray")
    cube = xarray.DataArray(pixels, dims=("time", "band", "y", "x"), coords={"band": ["B04", "B03", "B02"]})
    found = run.encoder.embed(cube, "s2:B04,B03,B02", device="cpu", progress=False)
    of_array = run.encoder.embed(pixels, ["B04", "B03", "B02"], device="cpu", progress=False)
    assert np.allclose(found.vectors, of_array.vectors, atol=1e-5)
    assert run.encoder.embed(cube, device="cpu", progress=False).vectors.shape[0] == 6
