"""Commands on addresses: a run equals that on the local store, vectors are put whole, errors are one line."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from remote_server import Server
from terrasieve.cli import app
from terrasieve.cli.boundary import guarded
from terrasieve.files import object_store
from terrasieve.files.object_store import ObjectFolder, staging_path
from terrasieve.runs import RunFolder

SETTINGS = (
    "model.name=test_resnet",
    "views.branches.*.size=32",
    "train.batch_size=8",
    "train.steps=3",
    "train.precision=32",
    "train.collapse_std=0",
    "train.collapse_rank=0",
    "train.workers=0",
)


def run(*words: object) -> str:
    """Run a command that succeeds."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def fail(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that fails; what it says, without what it said on the way."""
    with pytest.raises(SystemExit):
        guarded(lambda: app([str(word) for word in words], standalone_mode=False))
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _pretrain(data: object, out: str, *more: object) -> None:
    settings = [part for one in SETTINGS for part in ("--set", one)]
    run("pretrain", "rs-byol-1", "--data", data, "--out", out, "--device", "cpu", *settings, *more)


@pytest.mark.slow
def test_a_run_on_a_far_store_equals_that_on_the_local_one(
    local: Path, address: str, server: Server, tmp_path: Path
) -> None:
    _pretrain(local, "near")
    server.asked.clear()
    _pretrain(address, "far", "--cache", "chunks", "--cache-size", "50MB")
    assert 1 <= server.count("s2/c/") <= 6  # each chunk once, however many steps read of it
    _pretrain(address, "bare", "--set", "train.workers=2")
    weights = [
        (RunFolder(tmp_path / name).encoder / "encoder.safetensors").read_bytes() for name in ("near", "far", "bare")
    ]
    assert weights[0] == weights[1] == weights[2]

    given = ("embed", "near", "--device", "cpu", "--input", "s2:B03", "--batch-size", 8)
    run(*given, "--data", local, "--out", "near.parquet")
    server.asked.clear()
    put = f"s3://{server.bucket}/vectors/far.parquet"
    assert put in run(*given, "--data", address, "--cache", "chunks", "--out", put)
    assert server.count("GET", "s2/c/") == 0  # the cache is that of the run
    folder = ObjectFolder(f"s3://{server.bucket}/vectors")
    assert sorted(folder.sizes()) == ["far.parquet", "far.parquet.collection.json"]
    assert not staging_path(put).exists()
    (tmp_path / "far.parquet").write_bytes(folder.read("far.parquet") or b"")
    near, far = pq.read_table(tmp_path / "near.parquet"), pq.read_table(tmp_path / "far.parquet")
    assert near.replace_schema_metadata(None).equals(far.replace_schema_metadata(None))


def test_commands_take_addresses(local: Path, address: str, server: Server) -> None:
    assert "samples  23" in run("info", address)
    run("verify", address)
    place = f"s3://{server.bucket}/made.zarr"
    assert f"16 samples in {place}" in run("pack", "simulated:3:16", "--out", place).replace("\n", "")
    run("verify", place)


def test_errors_are_one_line_that_says_what_to_do(
    address: str, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "has no bucket 'elsewhere'. Correct the address" in fail(capsys, "info", "s3://elsewhere/pairs.zarr")
    made = ("pack", "simulated:3:16", "--out")
    assert "has no bucket 'elsewhere'" in fail(capsys, *made, "s3://elsewhere/pairs.zarr")
    absent = fail(capsys, "info", f"s3://{server.bucket}/nothing.zarr")
    assert "has no zarr.json. Make one with terrasieve pack" in absent
    assert "write it as s3://BUCKET/NAME" in fail(capsys, *made, "s3:///pairs.zarr")
    assert "There is no plan of s3://" in fail(capsys, "merge", f"s3://{server.bucket}/p.zarr")
    given = ("pretrain", "rs-byol-1", "--out", "r", "--cache", "c", "--data")
    assert "leave --cache out" in fail(capsys, *given, "simulated")
    for size in ("plenty", "-1GB"):
        words = fail(capsys, *given, address, "--cache-size", size)
        assert f"--cache-size '{size}' is no size" in words


def test_refused_and_missing_credentials_are_one_line(
    address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ObjectFolder(address)
    denied = folder.explain(Exception("Server returned non-2xx status code: 403 Forbidden: <x>\n<y/>"), "read", "a")
    assert "refuses the credentials of AWS_ACCESS_KEY_ID" in str(denied)
    for name in ("year-2403", "a401", "redirects", "AccessDenied", "NoSuchBucket"):
        dropped = folder.explain(Exception(f"HTTP error: Error performing GET http://x/{name}/y"), "read", name)
        assert "the connection dropped" in str(dropped)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    words = fail(capsys, "info", address)
    assert words.startswith(f"RemoteError: {address}/zarr.json cannot be read: there are no credentials. Set AWS_ACC")


def test_without_the_extra_a_line_says_how_to_get_it(
    address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    for command in (("info", address), ("pack", "simulated:3:16", "--out", address)):
        assert "pip install 'terrasieve[s3]'" in fail(capsys, *command)


@pytest.mark.parametrize(
    ("said", "helps"),
    [
        ("HTTP error: request or response body error", True),
        ("after 1 retries, max_retries: 3, retry_timeout: 180s  - HTTP error: request or response body error", True),
        ("after 3 retries, max_retries: 3, retry_timeout: 180s  - HTTP error: request or response body error", False),
        ("after 1 retries, max_retries: 3, retry_timeout: 180s  - HTTP error: error sending request", False),
        ("Server returned non-2xx status code: 403 Forbidden", False),
    ],
)
def test_a_request_is_begun_anew_where_its_own_tries_were_not_all_made(said: str, helps: bool) -> None:
    assert object_store.may_help(Exception(said), 0) is helps
    assert not object_store.may_help(Exception(said), object_store.TRIES - 1)
