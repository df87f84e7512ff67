"""A server of objects as tests see it, and a proxy in its place that drops connections."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Server:
    """The server, and what it was asked for.

    Attributes:
        port: On this machine.
        bucket: Name of the bucket of this test.
        asked: Method and path of every request, in order.
    """

    port: int
    bucket: str
    asked: list[str] = field(default_factory=list)

    def count(self, *words: str) -> int:
        """Requests that hold all these words."""
        return sum(all(word in one for word in words) for one in self.asked)


class Dropping:
    """A proxy of the server that cuts connections.

    Attributes:
        port: On this machine.
        cut: How many connections it cut, each when its first bytes had gone to the client.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.cut = self._last = 0
        self._counting = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self, connections: int) -> None:
        """Cut so many of the connections that follow, and then no more."""
        with self._counting:
            self._last = self.cut + connections

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listening.accept()[0]
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", self._server))
            for source, sink, answers in ((client, upstream, False), (upstream, client, True)):
                threading.Thread(target=self._pass_on, args=(source, sink, answers), daemon=True).start()

    def _cuts_one(self) -> bool:
        with self._counting:
            cuts = self.cut < self._last
            self.cut += cuts
        return cuts

    def _pass_on(self, source: Any, sink: Any, answers: bool) -> None:
        try:
            while data := source.recv(2**16):
                if answers and self._cuts_one():
                    sink.sendall(data[: len(data) // 2])
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
