"""The file is valid GeoParquet, says where it comes from, and survives being stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import terrasieve
from terrasieve.embeddings import EmbedSettings, EncoderInput, embed, read_embeddings, write_embeddings
from terrasieve.embeddings.embedding_file import Parts, write_table
from terrasieve.embeddings.embedding_parts import hilbert_order
from terrasieve.errors import ArchiveError, ConfigError, SampleError
from terrasieve.models.backbone import Encoder
from terrasieve.models.export import EncoderCard
from terrasieve.views.render import Normaliser

SETTINGS = EmbedSettings(precision="32", batch_size=4)
INPUTS = [EncoderInput.parse("s2:B03"), EncoderInput.parse("optical:B02")]

MakeArchive = Callable[..., Any]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, normaliser: Normaliser, encoder: Encoder, card: EncoderCard) -> Write:
    def call(archive: Any, name: str = "vectors.parquet", **changed: Any) -> Path:
        arguments = {"inputs": INPUTS, "settings": SETTINGS, "rows_per_part": 8} | changed
        return write_embeddings(tmp_path / name, encoder, card, archive, normaliser=normaliser, **arguments)

    return call


def test_geopandas_opens_it(write: Write, make_archive: MakeArchive) -> None:
    path = write(make_archive(19, unplaced=[3, 11]))
    frame = geopandas.read_parquet(path)
    assert len(frame) == 19
    assert frame.crs.equals("OGC:CRS84")
    assert frame.geometry.isna().sum() == 2
    archive = make_archive(19)
    corners = frame.dropna(subset="geometry").set_index("id").geometry.bounds[["minx", "miny"]]
    for i in (0, 18):
        assert np.allclose(corners.loc[f"tile-{i}"], archive.corners[i])
    near = geopandas.read_parquet(path, bbox=(*archive.corners[4], *(archive.corners[4] + 0.1)))
    assert "tile-4" in set(near["id"])
    assert len(near) < 19


def test_vectors_in_memory_are_written_as_those_that_are_made(
    write: Write, make_archive: MakeArchive, encoder: Encoder, card: EncoderCard, normaliser: Normaliser, tmp_path: Path
) -> None:
    archive = make_archive(19, unplaced=[3, 11])
    made = write(archive)
    table = embed(encoder, card, archive, INPUTS, normaliser, SETTINGS, np.random.default_rng(0).permutation(19))
    written = write_table(tmp_path / "table.parquet", table)
    first, second = pq.read_table(made), pq.read_table(written)
    assert second.schema.equals(first.schema, check_metadata=True)
    assert second.drop_columns(["embedding"]).equals(first.drop_columns(["embedding"]))
    vectors = [np.stack(one["embedding"].to_numpy()) for one in (first, second)]
    # Batches of other samples may round otherwise.
    assert np.allclose(*vectors, rtol=1e-4, atol=1e-5)
    assert len(geopandas.read_parquet(written)) == 19


def test_columns_and_metadata(
    write: Write, make_archive: MakeArchive, encoder: Encoder, card: EncoderCard, normaliser: Normaliser
) -> None:
    file = pq.ParquetFile(write(make_archive(10)))
    schema = file.schema_arrow
    assert schema.names == ["id", "geometry", "time", "label", "bbox", "embedding"]
    assert schema.field("embedding").type == pa.list_(pa.float32(), 2 * encoder.features)
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    geo = json.loads(schema.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    emb = json.loads(schema.metadata[b"emb"])
    assert (emb["emb:type"], emb["emb:dimensions"]) == ("chip", 2 * encoder.features)
    assert emb["inputs"] == ["s2:B03", "s2:B02"]
    assert emb["emb:model"]["weights_sha256"] == card.weights_sha256
    assert emb["emb:model"]["recipe"] == "rs-byol-1"
    assert len(emb["emb:model"]["card_sha256"]) == 64
    assert emb["emb:source-data"]["fingerprint"] == "n=10"
    assert [row["band"] for row in emb["normalisation"]["s2"]] == ["B03", "B02"]
    assert emb["normalisation"]["s2"][0]["mean"] == 1600
    assert emb["terrasieve"] == terrasieve.__version__


def test_reading_gives_what_embedding_in_memory_gives(
    write: Write, make_archive: MakeArchive, encoder: Encoder, card: EncoderCard, normaliser: Normaliser
) -> None:
    archive = make_archive(13)
    read = read_embeddings(write(archive, indices=np.arange(2, 13)))
    expected = embed(encoder, card, archive, INPUTS, normaliser, SETTINGS)
    rows = [int(name.removeprefix("tile-")) for name in read.ids]
    assert sorted(rows) == list(range(2, 13))
    assert np.allclose(read.vectors, expected.vectors[rows], atol=1e-5)
    assert read.inputs == expected.inputs
    assert read.columns.equals(expected.columns.take(rows))
    assert read.provenance == expected.provenance


def test_stopped_run_continues_after_its_last_whole_part(
    write: Write, make_archive: MakeArchive, tmp_path: Path
) -> None:
    whole = write(make_archive(30))
    order = [int(name.removeprefix("tile-")) for name in read_embeddings(whole).ids]
    with pytest.raises(SampleError):
        write(make_archive(30, broken=[order[18]]), "stopped.parquet")
    assert not (tmp_path / "stopped.parquet").exists()
    assert len(list((tmp_path / "stopped.parquet.parts").glob("part-*.parquet"))) == 2
    mended = make_archive(30)
    resumed = write(mended, "stopped.parquet")
    assert set(mended.reads) == set(order[16:])
    assert pq.read_table(resumed).equals(pq.read_table(whole))
    assert resumed.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "stopped.parquet.parts").exists()


def test_parts_of_files_that_changed_are_made_anew(
    write: Write, make_archive: MakeArchive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pixels.tif").write_bytes(b"old")
    archives = [make_archive(30, broken=[7]), make_archive(30), make_archive(30)]
    for archive in archives:
        archive.files = lambda _: [tmp_path / "pixels.tif"]
    with pytest.raises(SampleError):
        write(archives[0], "stopped.parquet")
    os.utime(tmp_path / "pixels.tif", ns=(1, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parts, "merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write(archives[1], "stopped.parquet")
    assert len(archives[1].reads) == 30
    assert "embedded anew" in capsys.readouterr().err
    write(archives[2], "stopped.parquet")
    assert not archives[2].reads  # nothing changed since: every part is taken over


@pytest.mark.parametrize("left", [["part-00001.parquet", "part-00003.parquet"], ["part-00000.parquet"]])
def test_what_a_kill_left_of_removed_parts_gets_into_no_file(left: list[str], tmp_path: Path) -> None:
    plan, target = {"rows_sha256": "a"}, tmp_path / "e.parquet"
    parts = Parts.resume(target, plan)
    for name in left:
        (parts.folder / name).touch()
    if len(left) > 1:  # with a gap before them
        Parts.resume(target, plan)
    else:
        (parts.folder / "provenance.json").unlink()
        Parts.resume(target, {"rows_sha256": "of another embedding"})
    assert [path.name for path in parts.folder.iterdir()] == ["provenance.json"]


def test_parts_of_another_embedding_are_refused(write: Write, make_archive: MakeArchive) -> None:
    with pytest.raises(SampleError):
        write(make_archive(30, broken=[7]))
    with pytest.raises(ConfigError, match=r"differs in inputs.*delete the folder"):
        write(make_archive(30), inputs=INPUTS[:1])
    with pytest.raises(ConfigError, match="differs in rows_sha256"):
        write(make_archive(30), indices=np.arange(20))


def test_rows_follow_a_hilbert_curve(make_archive: MakeArchive) -> None:
    archive = make_archive(200, unplaced=[0, 50])
    order = hilbert_order(archive.table(), np.arange(200))
    assert sorted(order) == list(range(200))
    assert order[-2:].tolist() == [0, 50]

    def steps(rows: np.ndarray) -> float:
        return float(np.linalg.norm(np.diff(archive.corners[rows], axis=0), axis=1).sum())

    assert steps(order[:-2]) < 0.3 * steps(np.arange(200))
    nowhere = make_archive(5, unplaced=range(5))
    assert hilbert_order(nowhere.table(), np.array([3, 1])).tolist() == [3, 1]


def test_other_files_are_refused(tmp_path: Path, write: Write, make_archive: MakeArchive) -> None:
    with pytest.raises(ArchiveError, match="terrasieve embed"):
        read_embeddings(tmp_path / "none.parquet")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "plain.parquet")
    with pytest.raises(ArchiveError, match="no embeddings"):
        read_embeddings(tmp_path / "plain.parquet")
    with pytest.raises(ArchiveError, match="no sample to embed"):
        write(make_archive(3), indices=np.arange(0))
