"""A search by a picture, as the page asks its server for it."""

from __future__ import annotations

import io
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from small_encoders import embedded_pictures
from terrasieve.embeddings import EmbeddingTable
from terrasieve.embeddings.query import QueryEncoder
from terrasieve.explorer import server as served
from terrasieve.explorer.explored import Explored
from terrasieve.explorer.explorer_page import write_explorer
from terrasieve.explorer.server import MOST_BYTES, Explorer

BINARY = {"Content-Type": "application/octet-stream"}
PIXELS = np.random.default_rng(0).integers(0, 255, (30, 3, 32, 32), dtype=np.uint8)
Ask = Callable[..., tuple[int, str]]


def as_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PICTURE = as_png(PIXELS[17].transpose(1, 2, 0))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def table(run: Path) -> EmbeddingTable:
    return embedded_pictures(run, PIXELS)


@pytest.fixture(scope="module")
def folder(table: EmbeddingTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page") / "page"
    return write_explorer(
        place, Explored("made", table), clusters=0, served=True, picture_bytes=MOST_BYTES, notes=["So much for that."]
    ).parent


def asking(folder: Path, table: EmbeddingTable, encoder: QueryEncoder | None) -> Iterator[Ask]:
    with Explorer(folder, table, encoder=encoder) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

        def asked(body: bytes, path: str = "/similar?suffix=.png", **headers: str) -> tuple[int, str]:
            connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            connection.request("POST", path, body, {**BINARY, **headers})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

        yield asked
        server.shutdown()


@pytest.fixture(scope="module")
def ask(folder: Path, table: EmbeddingTable, run: Path) -> Iterator[Ask]:
    yield from asking(folder, table, QueryEncoder(table, run, "cpu"))


def test_the_samples_most_like_a_picture_are_those_of_its_vector(
    ask: Ask, table: EmbeddingTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    status, answer = ask(PICTURE)
    assert status == 200
    found, exact = json.loads(answer), table.nearest(table.joined[17], 20)
    assert [row for row, _ in found] == exact["row"].tolist()
    assert found[0][0] == 17
    # Batches of another length add up in another order.
    np.testing.assert_allclose([cosine for _, cosine in found], exact["similarity"], atol=1e-4)
    assert list(tmp_path.iterdir()) == [], "nothing of it is kept"


def test_what_is_no_picture_for_this_encoder_is_a_line(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [
        (PICTURE, ".vrt", "A picture is one of .tif"),
        (PICTURE, ".tif/../../x.png", "A picture is one of .tif"),
        (b"<VRTDataset/>", ".tif", "The picture cannot be read"),
        (PICTURE, ".jpg", "The picture cannot be read"),
        (as_png(PIXELS[0, 0]), ".png", "The picture has 1 bands"),
        (b"", ".png", "Send between 1 and"),
    ]
    for body, suffix, said in wrong:
        status, answer = ask(body, f"/similar?suffix={suffix}")
        assert status == 400, said
        assert answer.startswith(said)
        assert "\n" not in answer
        assert tempfile.gettempdir() not in answer
    monkeypatch.setattr(served, "_MOST_PIXELS", 32 * 31)
    assert ask(PICTURE) == (400, "The picture has more than 992 pixels. Cut out a part of it.")
    monkeypatch.setattr(served, "MOST_BYTES", 100)
    assert ask(PICTURE)[1] == f"Send between 1 and 100 bytes, not {len(PICTURE):,}."


def test_pages_of_other_sites_are_not_answered(ask: Ask) -> None:
    assert ask(PICTURE, Host="somewhere.example:80")[0] == 403
    for origin in ("http://somewhere.example", "null", "http://127.0.0.1:1"):
        assert ask(PICTURE, Origin=origin)[0] == 403, origin
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        assert ask(PICTURE, **{"Content-Type": kind})[0] == 404, "a form of another site"


def test_without_an_encoder_there_is_no_search(folder: Path, table: EmbeddingTable, tmp_path: Path) -> None:
    asked = asking(folder, table, None)
    assert next(asked)(PICTURE)[0] == 404
    asked.close()
    page = write_explorer(tmp_path / "page", Explored("made", table), clusters=0)
    assert 'id="picture"' not in page.read_text("utf-8")
    assert not (page.parent / "picture.js").exists()
    offered = (folder / "index.html").read_text("utf-8")
    assert 'id="picture"' in offered
    assert "So much for that." in offered
