"""The page from this machine, for this machine: static files, and selections as Parquet."""

from __future__ import annotations

import tempfile
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from terrasieve.embeddings.chosen import write_chosen
from terrasieve.embeddings.table import EmbeddingTable
from terrasieve.errors import ConfigError, TerrasieveError
from terrasieve.schema import parse_json

HOST = "127.0.0.1"
_MOST_BYTES = 64 * 2**20
"""Of a request: the rows of two million samples take a quarter of it."""


class Explorer(ThreadingHTTPServer):
    """A server of one page on the loopback address, which no other machine reaches.

    Args:
        folder: Of the page, written with ``served=True``.
        table: The vectors that it shows.
        port: To listen on; a free one when 0.

    Raises:
        ConfigError: The port is taken, or may not be used.
    """

    daemon_threads = True

    def __init__(self, folder: Path, table: EmbeddingTable, port: int = 0) -> None:
        self.table = table
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
        """Answer rows of the table, a list in JSON, with a selection of them."""
        # Pages of others can send forms here, and no JSON, without asking first, which nothing here answers.
        is_json = self.headers.get("Content-Type") == "application/json"
        if not self._is_asked_by_own_page():
            return
        if self.path != "/selection" or not is_json:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            content = self._selected()
        except (TerrasieveError, ValueError) as error:
            self._answer(HTTPStatus.BAD_REQUEST, str(error).encode(), "text/plain; charset=utf-8")
            return
        self._answer(HTTPStatus.OK, content, "application/vnd.apache.parquet")

    def list_directory(self, path: Any) -> None:
        """Lists of files are shown to nobody."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not worth a line each."""

    def _is_asked_by_own_page(self) -> bool:
        """Whether the request names this address: another site whose name leads here does not."""
        if self.headers.get("Host") in (f"{HOST}:{self.server.server_port}", f"localhost:{self.server.server_port}"):
            return True
        self.send_error(HTTPStatus.FORBIDDEN)
        return False

    def _selected(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= _MOST_BYTES:
            raise ValueError(f"a request of {length} bytes")
        rows = np.array(parse_json(self.rfile.read(length)))
        count = len(self.server.table)
        if rows.ndim != 1 or rows.dtype.kind != "i" or not len(rows) or rows.min() < 0 or rows.max() >= count:
            raise ValueError(f"Give rows from 0 to {count - 1} in a list.")
        with tempfile.TemporaryDirectory() as scratch:
            chosen = write_chosen(
                Path(scratch) / "selection.parquet", self.server.table, np.unique(rows), {"chosen_by": "explore"}
            )
            return chosen.read_bytes()

    def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
