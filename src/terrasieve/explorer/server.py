"""The page from this machine, for this machine: static files, selections as Parquet, and what is like a picture."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from terrasieve.archive.readers.gdal import DRIVERS
from terrasieve.archive.readers.geotiff import read_header
from terrasieve.embeddings.chosen import write_chosen
from terrasieve.embeddings.query import QueryEncoder
from terrasieve.embeddings.table import EmbeddingTable
from terrasieve.errors import ConfigError, TerrasieveError
from terrasieve.schema import parse_json

HOST = "127.0.0.1"
MOST_BYTES = 64 * 2**20
"""Of a request: the rows of two million samples take a quarter of it."""
_MOST_PIXELS = 2**24
"""Of a picture, which passes through the encoder as a whole where the samples did so: some gigabytes of memory."""
_LIKE = 20


class Explorer(ThreadingHTTPServer):
    """A server of one page on the loopback address, which no other machine reaches.

    Args:
        folder: Of the page, written with ``served=True``.
        table: The vectors that it shows.
        port: To listen on; a free one when 0.
        encoder: Embeds pictures that the page is searched by; when None, none are taken.

    Raises:
        ConfigError: The port is taken, or may not be used.
    """

    daemon_threads = True

    def __init__(self, folder: Path, table: EmbeddingTable, port: int = 0, encoder: QueryEncoder | None = None) -> None:
        self.table, self.encoder = table, encoder
        self.embedding = Lock()
        try:
            super().__init__((HOST, port), partial(_Handler, directory=str(folder)))
        except OSError as error:
            raise ConfigError(f"--port {port} cannot be listened on: {error.strerror}. Choose another one.") from error

    @property
    def address(self) -> str:
        """Where a browser of this machine finds the page."""
        return f"http://{HOST}:{self.server_port}/"


class _Handler(SimpleHTTPRequestHandler):
    server: Explorer

    def do_GET(self) -> None:
        if self._is_asked_by_own_page():
            super().do_GET()

    def do_HEAD(self) -> None:
        if self._is_asked_by_own_page():
            super().do_HEAD()

    def do_POST(self) -> None:
        """Answer rows of the table, a list in JSON, with a selection of them; a picture with the rows most like it."""
        if not self._is_asked_by_own_page():
            return
        # Pages of others can send forms here, and neither of these kinds without asking first, which nothing answers.
        kind, asked = self.headers.get("Content-Type"), urlsplit(self.path)
        try:
            if (asked.path, kind) == ("/selection", "application/json"):
                self._answer(HTTPStatus.OK, self._selected(), "application/vnd.apache.parquet")
            elif (asked.path, kind) == ("/similar", "application/octet-stream") and self.server.encoder:
                found = self._similar(self.server.encoder, parse_qs(asked.query).get("suffix", [""])[0])
                self._answer(HTTPStatus.OK, found, "application/json")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)
        # What a network cannot do with a picture's size it says in an error of torch's.
        except (TerrasieveError, ValueError, RuntimeError, AssertionError) as error:
            line = " ".join(str(error).split())
            self._answer(HTTPStatus.BAD_REQUEST, line.encode(), "text/plain; charset=utf-8")

    def list_directory(self, path: Any) -> None:
        """Lists of files are shown to nobody."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not worth a line each."""

    def _is_asked_by_own_page(self) -> bool:
        """Whether the request names this address, and no page of another site sends it."""
        names = [f"{host}:{self.server.server_port}" for host in (HOST, "localhost")]
        origin = self.headers.get("Origin")
        if self.headers.get("Host") in names and origin in (None, *(f"http://{name}" for name in names)):
            return True
        self.send_error(HTTPStatus.FORBIDDEN)
        return False

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= MOST_BYTES:
            raise ValueError(f"Send between 1 and {MOST_BYTES:,} bytes, not {length:,}.")
        return self.rfile.read(length)

    def _selected(self) -> bytes:
        rows = np.array(parse_json(self._body()))
        count = len(self.server.table)
        if rows.ndim != 1 or rows.dtype.kind != "i" or not len(rows) or rows.min() < 0 or rows.max() >= count:
            raise ValueError(f"Give rows from 0 to {count - 1} in a list.")
        with tempfile.TemporaryDirectory() as scratch:
            chosen = write_chosen(
                Path(scratch) / "selection.parquet", self.server.table, np.unique(rows), {"chosen_by": "explore"}
            )
            return chosen.read_bytes()

    def _similar(self, encoder: QueryEncoder, suffix: str) -> bytes:
        """Rows of the table and their cosines with the picture that was sent, the most alike first."""
        if suffix not in DRIVERS:
            raise ValueError(f"A picture is one of {', '.join(DRIVERS)}.")
        content = self._body()
        # One at a time: memory is bounded for one.
        with self.server.embedding, tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / f"picture{suffix}"
            path.write_bytes(content)
            try:
                header = read_header(path)
                if header.height * header.width > _MOST_PIXELS:
                    raise ValueError(f"{path} has more than {_MOST_PIXELS:,} pixels. Cut out a part of it.")
                vector = encoder.embed(path)
            except (TerrasieveError, ValueError) as error:
                # The page knows what it is called, and nobody where it lies for a moment.
                raise ValueError(str(error).replace(str(path), "The picture")) from error
        found = self.server.table.nearest(vector, _LIKE)
        pairs = zip(found["row"].tolist(), found["similarity"].tolist(), strict=True)
        return json.dumps(list(pairs), allow_nan=False).encode()

    def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
