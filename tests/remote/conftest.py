"""A server that speaks S3, a store on it, and a proxy that drops connections."""

from __future__ import annotations

import logging
import urllib.request
import zlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from remote_server import Dropping, Server
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed import packing
from terrasieve.archive.packed.packing import pack
from terrasieve.files import object_store
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

SAMPLES = 23
CHUNK = 4 * 12 * 32 * 32 * 2
"""Bytes of the largest chunk of the store: four samples."""


class _Noted(logging.Handler):
    """Takes the lines that the server logs, one a request."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture(scope="session")
def _moto() -> Iterator[tuple[int, list[str]]]:
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    moto = pytest.importorskip("moto.server", reason="moto, the server of these tests, is not installed")
    log, noted = logging.getLogger("werkzeug"), _Noted()
    log.addHandler(noted)
    log.setLevel(logging.INFO)
    log.propagate = False
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1], noted.lines
    server.stop()


@pytest.fixture
def server(_moto: tuple[int, list[str]], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server with an empty bucket, which the AWS variables name."""
    port, asked = _moto
    bucket = f"b{zlib.crc32(request.node.nodeid.encode())}"
    made = urllib.request.Request(f"http://127.0.0.1:{port}/{bucket}", method="PUT")
    urllib.request.urlopen(made).close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    quick = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5), "base": 2}
    monkeypatch.setattr(object_store, "RETRIES", {**object_store.RETRIES, "max_retries": 3, "backoff": quick})
    asked.clear()
    return Server(port, bucket, asked)


@pytest.fixture(scope="session")
def near(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A packed store of simulated pairs on this machine, of six chunks a sensor; and the same compressed."""
    made = {compress: tmp_path_factory.mktemp("packed") / "pairs.zarr" for compress in (False, True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "CHUNK_BYTES", CHUNK)
        pack(SimulatedArchive(SimulatedSpec(seed=0, samples=SAMPLES, size=32)), made[False])
        pack(open_archive(made[False]), made[True], compress=True)
    return made


@pytest.fixture
def local(request: pytest.FixtureRequest, near: dict[bool, Path]) -> Path:
    """The plain store; the compressed one where a test asks for it."""
    return near[getattr(request, "param", False)]


@pytest.fixture
def address(local: Path, server: Server) -> str:
    """The same store, copied to the server."""
    place = f"s3://{server.bucket}/far/pairs.zarr"
    folder = object_store.ObjectFolder(place)
    for path in local.rglob("*"):
        if path.is_file():
            folder.write(path.relative_to(local).as_posix(), path)
    server.asked.clear()
    return place


@pytest.fixture
def dropping(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dropping]:
    """A proxy in the place of the server."""
    proxy = Dropping(server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    yield proxy
    proxy.close()
