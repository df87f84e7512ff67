"""What the explorer's folder is made of, without a browser."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from shapely.geometry import shape

from terrasieve.archive.in_memory import ArrayArchive
from terrasieve.archive.selection import write_selection
from terrasieve.embeddings import EmbeddingTable, EncoderInput
from terrasieve.embeddings.embedding_file import write_table
from terrasieve.errors import ArchiveError, CurationError, WriteError
from terrasieve.explorer.atlas import ACROSS, SIZE, draw_atlas
from terrasieve.explorer.coasts import land_around
from terrasieve.explorer.columns import category, columns_of
from terrasieve.explorer.explored import Explored, open_explored, rows_named
from terrasieve.explorer.explorer_page import check_folder, write_explorer
from terrasieve.explorer.plane import TSNE_ROWS, encode, lay_out
from terrasieve.explorer.server import Explorer
from terrasieve.sensors import SENSORS


def make_table(count: int = 12, **columns: Any) -> EmbeddingTable:
    vectors = np.random.default_rng(count).normal(size=(count, 1, 16)).astype(np.float32)
    ids = np.array([f"</script>{row}" for row in range(count)])
    known = {"geometry": pa.nulls(count, pa.binary()), "time": pa.nulls(count, pa.timestamp("us", "UTC")), **columns}
    facts = {"inputs": ["s2:B04"], "emb:dimensions": 16}
    return EmbeddingTable(ids, vectors, (EncoderInput.parse("s2:B04"),), pa.table(known), facts)


def values_of(script: Path) -> Any:
    """What a script leaves to the page."""
    return json.loads(script.read_text("ascii").partition(" = ")[2].rstrip(";\n"))


def test_names_stand_in_scripts_as_json_and_never_in_the_page(tmp_path: Path) -> None:
    page = write_explorer(
        tmp_path / "page", Explored("<b>", make_table(label=pa.array(["</script>"] * 12))), clusters=0
    )
    text = page.read_text("utf-8")
    assert "<h1>Explorer: &lt;b&gt;</h1>" in text
    assert text.count("</script>") == text.count("<script")
    assert values_of(tmp_path / "page/data/ids.js") == [f"</script>{row}" for row in range(12)]
    facts = values_of(tmp_path / "page/data/facts.js")
    assert facts["columns"] == [
        {"key": "column0", "name": "label", "kind": "category", "names": ["</script>"], "cut": False}
    ]
    assert not facts["located"]
    assert 'id="map"' not in text
    plane = np.frombuffer(base64.b64decode(values_of(tmp_path / "page/data/plane.js")), "<f4").reshape(-1, 2)
    assert plane.shape == (12, 2)
    assert np.abs(plane).max() == pytest.approx(1, abs=1e-6)


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/index.html").write_text("mine")
    subject = Explored("made", make_table())
    with pytest.raises(WriteError, match="no page of terrasieve explore"):
        write_explorer(tmp_path / "letters", subject)
    assert (tmp_path / "letters/index.html").read_text() == "mine"
    write_explorer(tmp_path / "page", subject, clusters=0)
    with pytest.raises(WriteError, match="already there"):
        check_folder(tmp_path / "page", overwrite=False)
    write_explorer(tmp_path / "page", Explored("again", make_table()), clusters=0)
    assert "Explorer: again" in (tmp_path / "page/index.html").read_text()
    with pytest.raises(ArchiveError, match="no sample"):
        write_explorer(tmp_path / "none", Explored("made", make_table(0)))


def test_codes_keep_cosines_and_find_neighbours() -> None:
    rng = np.random.default_rng(0)
    # A common direction that is much stronger than what tells the samples apart, as encoders give it.
    vectors = (rng.normal(size=(400, 8)) @ rng.normal(size=(8, 96)) + 20).astype(np.float32)
    made = encode(vectors, 64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    decoded = made.decoded / np.linalg.norm(made.decoded, axis=1, keepdims=True)
    np.testing.assert_allclose(decoded @ decoded.T, unit @ unit.T, atol=0.001)
    assert made.agreement > 0.95
    assert encode(vectors, 2).agreement < made.agreement


def test_many_vectors_are_laid_out_by_their_principal_components() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(TSNE_ROWS + 1, 12)).astype(np.float32) * np.geomspace(8, 0.1, 12, dtype=np.float32)
    plane = lay_out(vectors, 0)
    assert "principal components" in plane.method
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    left, strengths, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    for axis in range(2):
        assert abs(np.corrcoef(plane.positions[:, axis], left[:, axis])[0, 1]) > 0.9999
    assert strengths[0] > strengths[1]
    few = lay_out(vectors[:3], 0)
    assert few.positions.shape == (3, 2)
    assert np.isfinite(lay_out(np.ones((20, 4), dtype=np.float32), 0).positions).all()


def test_categories_are_ordered_by_their_number_and_unknown_ones_are_told() -> None:
    made = category("label", ["b", None, "a", "b"])
    assert made.names == ("b", "a")
    assert made.values.tolist() == [0, -1, 1, 0]
    many = category("label", [str(one) for one in range(1500)])
    assert (len(many.names), many.cut, (many.values < 0).sum()) == (1000, True, 500)
    known = {"label": [None, *["x", "y"] * 5, "x"], "swh": [np.nan, *np.arange(11.0)], "name": list("abcdefghijkl")}
    table = make_table(12, **{name: pa.array(values) for name, values in known.items()})
    found = {one.name: one for one in columns_of(Explored("made", table), 2, 0)}
    assert list(found) == ["label", "cluster", "swh"], "a column of names has no colours, nor one without values"
    assert found["swh"].described("k")["high"] == 10


def test_pictures_are_those_of_the_samples(tmp_path: Path) -> None:
    pixels = np.zeros((40, 1, 5, 7), dtype=np.uint16)
    pixels[:, 0] = np.arange(1, 41)[:, None, None] * 100
    archive = ArrayArchive({"s2": pixels}, {"s2": SENSORS["s2-l2a"].select("B04")})
    rows = np.arange(40)[::-1]
    atlas = draw_atlas(archive, rows, "s1", 20)
    assert atlas.sensor == "s2"
    shown = np.flatnonzero(atlas.places >= 0)
    assert len(shown) == 20
    assert {0, 39} <= set(shown.tolist())
    (sheet,) = atlas.sheets
    assert sheet.shape == (ACROSS * SIZE, ACROSS * SIZE, 3)
    centre = [sheet[SIZE // 2, place * SIZE + SIZE // 2, 0] for place in atlas.places[shown]]
    # Brightness falls with the sample's position here, since the archive has them in the other order.
    assert centre == sorted(centre, reverse=True)
    assert centre[0] > centre[-1]


def test_land_is_fine_where_samples_are_and_covers_the_earth() -> None:
    land = shape(land_around(np.array([[-118.4, 33.9], [-118.2, 34.1]])))
    inland, ocean, far = shapely.Point(-117.9, 34.05), shapely.Point(-119.5, 33.0), shapely.Point(10, 50)
    assert [bool(land.contains(one)) for one in (inland, ocean, far)] == [True, False, True]
    # Santa Catalina is an island of the finer of the two coastlines alone.
    assert land.contains(shapely.Point(-118.42, 33.39))


def test_a_run_is_explored_with_its_rounds(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="terrasieve embed"):
        open_explored(tmp_path)
    table = make_table()
    write_table(tmp_path / "embeddings.parquet", table)
    assert open_explored(tmp_path).rounds == ()
    assert open_explored(tmp_path / "embeddings.parquet").name == "embeddings"
    (tmp_path / "ids.csv").write_text('id\r\n"</script>3"\r\n</script>1\r\n')
    assert rows_named(tmp_path / "ids.csv", table).tolist() == [1, 3]
    for text, said in (("name\na\n", "no column 'id'"), ("id\nabsent\n", "'absent'")):
        (tmp_path / "ids.csv").write_text(text)
        with pytest.raises(CurationError, match=said):
            rows_named(tmp_path / "ids.csv", table)


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Callable[..., tuple[int, bytes]]]:
    """Ask a server of a page for something."""
    table = make_table()
    folder = write_explorer(tmp_path / "page", Explored("made", table), clusters=0, served=True).parent
    with Explorer(folder, table) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

        def asked(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
            connection = HTTPConnection("127.0.0.1", server.server_port, timeout=20)
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()

        yield asked
        server.shutdown()


def test_the_server_answers_its_own_page_alone(ask: Callable[..., tuple[int, bytes]], tmp_path: Path) -> None:
    assert ask("GET", "/")[0] == 200
    assert ask("GET", "/data/")[0] == 404, "folders are not listed"
    assert ask("GET", "/../../etc/passwd")[0] == 404
    assert ask("GET", "/", Host="somewhere.example:80")[0] == 403, "a name of another site that leads here"
    status, content = ask("POST", "/selection", b"[3, 1, 3]", Content_Type="application/json")
    assert status == 200
    (tmp_path / "s.parquet").write_bytes(content)
    assert pq.read_table(tmp_path / "s.parquet")["id"].to_pylist() == ["</script>1", "</script>3"]
    assert ask("POST", "/selection", b"[3]", Content_Type="text/plain")[0] == 404, "a form of another site"
    for body in (b"[12]", b"[-1]", b"[]", b"{}", b"[0.5]", b"[[1]]", b"nonsense", b'["a"]'):
        assert ask("POST", "/selection", body, Content_Type="application/json")[0] == 400, body


def test_curation_is_told_by_what_rounds_kept(tmp_path: Path) -> None:
    from terrasieve.explorer.explored import Round, _kept

    table = make_table()
    write_selection(tmp_path / "r.parquet", np.array([2, 5]), table.ids[[2, 5]], np.zeros(2, dtype=np.int64), {"n": 12})
    kept = _kept(tmp_path / "r.parquet", table)
    assert np.flatnonzero(kept).tolist() == [2, 5]
    rounds = (Round(1, ~kept), Round(4, kept))
    found = {one.name: one for one in columns_of(Explored("made", table, rounds), 0, 0)}
    states = [found["curation"].names[code] for code in found["curation"].values]
    assert states[2] == "kept by round 4"
    assert states[0] == "kept earlier, dropped since"
    assert found["last kept in round"].values[[0, 2]].tolist() == [1, 4]
