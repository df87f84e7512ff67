"""Objects on a server that speaks S3: read, written and listed, with bounded retries and errors that say what to do.

The extra ``s3`` brings the library that does the talking. Endpoint, region and credentials come from the standard AWS
variables, such as ``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, or from
the role of the machine. An address is taken from whoever calls the program, and never from within a file.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from terrasieve.errors import ConfigError, RemoteError, TerrasieveError
from terrasieve.files.writing import refused_write
from terrasieve.processes.parallel import fork_no_more

T = TypeVar("T")

_SCHEME = "s3://"
RETRIES: dict[str, Any] = {
    "max_retries": 8,
    "retry_timeout": timedelta(minutes=3),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=20), "base": 2},
}
"""How often a request that failed is made again, and how long apart."""
TRIES = 3
"""How often a request is begun anew that the library gives up: it does where an answer drops in its midst."""
_WAITS: dict[str, Any] = {
    "connect_timeout": timedelta(seconds=10),
    # Between two reads, which tells a connection that is dead from one that is slow.
    "read_timeout": timedelta(seconds=60),
    "timeout": timedelta(minutes=10),
}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_ROLE_SERVICES = ("169.254.169.254", "169.254.170.2", "/latest/api/token", "/latest/meta-data")
"""Where a machine or container in the cloud has the credentials of its role: asked when no variable gives any."""
_AT_ONCE = 256 * 2**20
"""Bytes of the largest object that goes in one request, which a condition needs and which lies in memory."""
_started_by: int | None = None


def is_address(place: object) -> bool:
    """Whether a place that a user named is an address of objects, ``s3://bucket/name``."""
    return str(place).startswith(_SCHEME)


def split_address(address: str) -> tuple[str, str]:
    """The address of the folder that an object stands in, and the object's name.

    Raises:
        ConfigError: It names a bucket alone.
    """
    folder, _, name = address.rstrip("/").rpartition("/")
    if len(folder) <= len(_SCHEME):
        raise ConfigError(f"{address} names no object: write it as {_SCHEME}BUCKET/NAME.")
    return folder, name


def staging_path(address: str) -> Path:
    """The folder, in the one that the program was started in, where what goes to an address is made.

    It has the name of the object, and another for each address, so that the same command finds what it began.
    """
    name = address.rstrip("/").rpartition("/")[2]
    return Path(f"{name}.{hashlib.blake2b(address.rstrip('/').encode(), digest_size=4).hexdigest()}.upload")


class ObjectFolder:
    """All objects whose names begin with one address.

    Args:
        address: ``s3://BUCKET``, or ``s3://BUCKET/NAME``, under which objects are named relative to it.

    Attributes:
        address: The same, without a slash at its end.
        bucket: Name of the bucket.

    Raises:
        ConfigError: It is no such address.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.bucket, _, self._prefix = self.address.removeprefix(_SCHEME).partition("/")
        if not is_address(address) or not self.bucket:
            raise ConfigError(f"{address!r} is no address of objects: write it as {_SCHEME}BUCKET/NAME.")

    def __reduce__(self) -> tuple[type[ObjectFolder], tuple[str]]:
        return type(self), (self.address,)

    @property
    def client(self) -> Any:
        """The store of the library that does the talking.

        Raises:
            RemoteError: The extra is not installed, or this process was forked from one that talks already.
        """
        global _started_by  # the library's threads belong to a process
        if _started_by not in (None, os.getpid()):
            # It would wait for them for ever.
            raise RemoteError(f"{self.address} cannot be reached from a forked process. Run it with --workers 0.")
        _started_by = os.getpid()
        return self._client

    @cached_property
    def _client(self) -> Any:
        try:
            from obstore.store import S3Store
        except ImportError as error:
            raise RemoteError(
                f"{self.address} is read and written with the extra s3: pip install 'terrasieve[s3]'."
            ) from error
        fork_no_more()
        endpoint = _endpoint()
        waits = {**_WAITS, "allow_http": bool(endpoint and endpoint.startswith("http://"))}
        chosen: dict[str, Any] = {"client_options": waits, "retry_config": RETRIES}
        if endpoint:
            chosen["endpoint"] = endpoint
        return self._tried(partial(S3Store, self.bucket, prefix=self._prefix or None, **chosen), "reached")

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes | None:
        """The content of an object, or a part of it; None where there is no such object.

        Args:
            name: Relative to the address.
            start: The first byte.
            length: Number of bytes, from 1; all when None.

        Raises:
            RemoteError: It cannot be read, however often it was tried.
        """
        client = self.client
        import obstore

        def get() -> bytes:
            if length is None:
                return bytes(obstore.get(client, name).bytes())
            return bytes(obstore.get_range(client, name, start=start, length=length))

        return self._found(get, name)

    def dated(self, name: str) -> tuple[bytes, datetime] | None:
        """The content of an object, and when it was put there by the server's clock; None where there is none.

        Args:
            name: Relative to the address.

        Raises:
            RemoteError: As for :meth:`read`.
        """
        client = self.client
        import obstore

        def get() -> tuple[bytes, datetime]:
            found = obstore.get(client, name)
            return bytes(found.bytes()), found.meta["last_modified"]

        return self._found(get, name)

    def bring(self, name: str, path: Path) -> bool:
        """Copy an object into a file, of which no more than some megabytes are in memory.

        Args:
            name: Relative to the address.
            path: The file, in a folder that is there; one that is there is replaced.

        Returns:
            Whether there is such an object.

        Raises:
            RemoteError: As for :meth:`read`.
            WriteError: The system refused the file.
        """
        client = self.client
        import obstore

        def get() -> bool:
            found = obstore.get(client, name)
            try:
                with path.open("wb") as file:
                    for some in found.stream():
                        file.write(some)
            except OSError as error:
                if error.errno is None:  # the library's
                    raise
                raise refused_write(path, error) from error
            return True

        return self._found(get, name) or False

    def write(self, name: str, content: bytes | Path, create: bool = False) -> bool:
        """Put an object, whole or not at all.

        Args:
            name: Relative to the address.
            content: What it is to hold, or the file that does.
            create: Whether an object that is there stays; up to 256 MiB the server decides, so that of two writers one
                wins.

        Returns:
            Whether it holds that content now.

        Raises:
            RemoteError: It cannot be written, however often it was tried.
        """
        client = self.client
        import obstore
        from obstore.exceptions import AlreadyExistsError

        length = content.stat().st_size if isinstance(content, Path) else len(content)
        if create and length > _AT_ONCE and self.holds(name):
            return False
        whole: dict[str, Any] = {"mode": "create", "use_multipart": False} if create and length <= _AT_ONCE else {}

        def put() -> bool:
            try:
                obstore.put(client, name, content, **whole)
            except AlreadyExistsError:
                # It is our own where the answer to the first try was lost.
                return self.read(name) == (content.read_bytes() if isinstance(content, Path) else content)
            return True

        return self._tried(put, "written", name)

    def holds(self, name: str) -> bool:
        """Whether there is an object of that name.

        Raises:
            RemoteError: The server does not say.
        """
        client = self.client
        import obstore

        def look() -> bool:
            try:
                obstore.head(client, name)
            except FileNotFoundError:
                return False
            return True

        return self._tried(look, "looked at", name)

    def sizes(self) -> dict[str, int]:
        """Bytes of every object below the address, by name relative to it.

        Raises:
            RemoteError: They cannot be listed.
        """
        client = self.client
        import obstore

        return self._tried(
            lambda: {one["path"]: one["size"] for some in obstore.list(client) for one in some}, "listed"
        )

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are absent already do no harm.

        Raises:
            RemoteError: They cannot be removed.
        """
        client = self.client
        import obstore

        def remove(name: str) -> None:
            with suppress(FileNotFoundError):
                obstore.delete(client, name)

        for name in names:
            self._tried(partial(remove, name), "removed", name)

    def explain(self, error: Exception, done: str, name: str = "") -> RemoteError:
        """The error that says in one line what failed, why, and what to do.

        Args:
            error: What the library raised.
            done: What was to be done, as ``read`` or ``written``.
            name: The object; the address itself when empty.
        """
        what = f"{self.address}/{name}" if name else self.address
        where = _endpoint() or "Amazon S3"
        said = str(error).partition("\n")[0].removeprefix("Generic S3 error: ").strip()
        return RemoteError(f"{what} cannot be {done}: {_reason(str(error), said, self.bucket, where)}")

    def _found(self, request: Callable[[], T], name: str) -> T | None:
        """The answer to a request for an object; None where there is none."""

        def ask() -> T | None:
            try:
                return request()
            except FileNotFoundError as error:
                if _NO_BUCKET in str(error):
                    raise
                return None

        return self._tried(ask, "read", name)

    def _tried(self, request: Callable[[], T], done: str, name: str = "") -> T:
        """The answer to a request, which is made again where that may help."""
        for past in itertools.count():
            try:
                return request()
            except TerrasieveError:
                raise
            except Exception as error:
                if not may_help(error, past):
                    raise self.explain(error, done, name) from error
                time.sleep(pause(past))
        raise AssertionError


_NO_BUCKET = "<Code>NoSuchBucket<"
_REFUSED = re.compile(r"status code: 40[13]\b|<Code>(AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch)<")


def may_help(error: Exception, past: int) -> bool:
    """Whether another try may help after a failure, and so many tries before it.

    Args:
        error: What the library raised. Where it made all its own tries, another does not help; it leaves them where an
            answer drops in its midst.
        past: From 0.
    """
    said = str(error).partition("\n")[0]
    made = re.search(r"after (\d+) retries, max_retries: (\d+)", said)
    left = made is None or (int(made[1]) < int(made[2]) and "body error" in said)
    return past + 1 < TRIES and "HTTP error" in said and left


def pause(past: int) -> float:
    """Seconds to wait before another try, after so many before it from 0."""
    first: timedelta = RETRIES["backoff"]["init_backoff"]
    return first.total_seconds() * 2.0**past


def _endpoint() -> str | None:
    return next((value for name in _ENDPOINTS if (value := os.environ.get(name))), None)


def _reason(text: str, said: str, bucket: str, where: str) -> str:
    """Why a request failed, and what to do about it."""
    # Names of buckets and objects stand in the text, too: only what the server said counts.
    if _NO_BUCKET in text:
        return f"{where} has no bucket {bucket!r}. Correct the address, or make the bucket."
    if any(service in text for service in _ROLE_SERVICES):
        return (
            "there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or run "
            "on a machine with a role; for a public bucket set AWS_SKIP_SIGNATURE=true."
        )
    if _REFUSED.search(text):
        return (
            f"{where} refuses the credentials of AWS_ACCESS_KEY_ID for this. Correct them, or have the bucket's owner "
            "allow it."
        )
    if "Received redirect" in text or "<Code>AuthorizationHeaderMalformed<" in text:
        return "the bucket is in another region. Set AWS_REGION to its own."
    return (
        f"{where} could not be reached, or the connection dropped, as often as it was tried ({said}). Check the "
        "network and AWS_ENDPOINT_URL, and run the same command again."
    )
