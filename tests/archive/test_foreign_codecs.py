"""Zarr stores from elsewhere: no codec that may run code is reached, in whatever place its name stands."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.readers.zarr_codecs import check_codecs, check_zip, parse_metadata
from terrasieve.errors import ArchiveError, SampleError
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

PICKLE = {"id": "pickle"}
NUMBERS = {"dtype": "<i8", "filters": None, "compressor": None}
SHARDS = {"name": "sharding_indexed", "configuration": {"codecs": [{"name": "bytes"}], "index_codecs": ["crc32c"]}}


class Touch:
    """What runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def nested(configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {"codecs": [{"name": "sharding_indexed", "configuration": dict(configuration)}]}


@pytest.mark.parametrize(
    "metadata",
    [
        NUMBERS | {"filters": [PICKLE]},
        NUMBERS | {"filters": [{"id": "vlen-utf8"}, PICKLE]},
        NUMBERS | {"filters": PICKLE},
        NUMBERS | {"compressor": PICKLE},
        NUMBERS | {"compressor": {"id": ["pickle"]}},
        NUMBERS | {"compressor": "pickle"},
        {"metadata": {"a/.zarray": NUMBERS, "attributes/.zarray": NUMBERS | {"compressor": PICKLE}}},
        {"codecs": [{"name": "numcodecs.pickle"}]},
        {"codecs": ["numcodecs.pickle"]},
        nested({"codecs": [{"name": "numcodecs.pickle"}]}),
        nested({"codecs": [SHARDS], "index_codecs": [{"name": "numcodecs.pickle"}]}),
        nested(nested({"codecs": ["numcodecs.pickle"]})),
        {"storage_transformers": [{"name": "anything"}]},
        {"consolidated_metadata": {"metadata": {"attributes": {"codecs": [{"name": "numcodecs.pickle"}]}}}},
    ],
)
def test_a_codec_that_may_run_code_is_refused_wherever_it_is_named(metadata: Mapping[str, Any]) -> None:
    with pytest.raises(SampleError, match=r"x names the codec .* may run code"):
        check_codecs(metadata, "x")


@pytest.mark.parametrize(
    "metadata",
    [
        NUMBERS | {"filters": [{"id": "vlen-utf8"}], "compressor": {"id": "blosc", "cname": "lz4"}},
        {"codecs": [SHARDS], "attributes": {"codecs": ["numcodecs.pickle"], "filters": [PICKLE]}},
        {"consolidated_metadata": None, "storage_transformers": []},
    ],
)
def test_codecs_that_only_compute_are_read(metadata: Mapping[str, Any]) -> None:
    check_codecs(metadata, "x")


@pytest.mark.parametrize("place", ["filter", "hidden", "compressor", "consolidated"])
def test_nothing_runs_when_a_zipped_store_is_opened(tmp_path: Path, place: str) -> None:
    file = tmp_path / "ds/train/S1GRD/ssl4eos12_train_seasonal_data_000001.zarr.zip"
    file.parent.mkdir(parents=True)
    shape = {"zarr_format": 2, "shape": [1], "chunks": [1], "order": "C", "fill_value": None}
    filters = {"filter": [PICKLE], "hidden": [{"id": "vlen-utf8"}, PICKLE]}.get(place)
    names = shape | {"dtype": "|O" if filters else "<i8", "filters": filters}
    names |= {"compressor": None if filters else PICKLE}
    pixels = shape | {"shape": [1, 4, 2, 264, 264], "chunks": [1, 4, 2, 264, 264], "filters": None, "compressor": None}
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr(".zgroup", '{"zarr_format": 2}')
        opened.writestr("bands/.zarray", json.dumps(pixels | {"dtype": "<f2"}))
        if place == "consolidated":
            opened.writestr(".zmetadata", json.dumps({"metadata": {"sample/.zarray": names}}))
        else:
            opened.writestr("sample/.zarray", json.dumps(names))
        opened.writestr("sample/0", pickle.dumps(Touch(tmp_path / "ran")))
    with pytest.raises(ArchiveError, match="names the codec 'pickle'"):
        open_archive(tmp_path / "ds")
    assert not (tmp_path / "ran").exists()


def test_every_entry_of_a_zip_is_looked_at(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr("deep/down/.zarray", json.dumps({"compressor": PICKLE}))
        with pytest.warns(UserWarning, match="Duplicate name"):
            opened.writestr("deep/down/.zarray", json.dumps({"compressor": None}))
    with pytest.raises(SampleError, match=re.escape("a.zip/deep/down/.zarray names the codec 'pickle'")):
        check_zip(tmp_path / "a.zip")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a": ' + "[" * 99 + "]" * 99 + "}"])
def test_nesting_without_end_is_one_clear_line(text: str) -> None:
    with pytest.raises(SampleError, match="x has more than 64 levels of nesting"):
        parse_metadata(text, "x")


@pytest.mark.parametrize(("text", "why"), [("{", "not valid JSON"), ("[]", "no JSON object"), (b"\xff", "not valid")])
def test_what_is_no_object_is_named(text: str | bytes, why: str) -> None:
    with pytest.raises(SampleError, match=why):
        parse_metadata(text, "x")


def test_brackets_within_texts_are_no_nesting() -> None:
    assert parse_metadata(json.dumps({"a": '"[' * 200}), "x") == {"a": '"[' * 200}


@pytest.fixture(scope="module", params=[False, True])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("foreign") / "store.zarr"
    pack(SimulatedArchive(SimulatedSpec(seed=1, samples=3, size=32)), out, compress=request.param)
    return out


@pytest.mark.parametrize("file", ["zarr.json", "s2/zarr.json"])
def test_a_packed_store_with_another_codec_is_not_opened(packed: Path, tmp_path: Path, file: str) -> None:
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    metadata = json.loads((copy / file).read_text())
    array = metadata["consolidated_metadata"]["metadata"]["id"] if file == "zarr.json" else metadata
    array["codecs"] = [*array["codecs"], {"name": "numcodecs.pickle", "configuration": {}}]
    (copy / file).write_text(json.dumps(metadata))
    for place in (copy, f"file://{copy}"):
        with pytest.raises(ArchiveError, match=r"names the codec 'numcodecs\.pickle'"):
            PackedArchive(place)
    np.testing.assert_array_equal(PackedArchive(packed).read(0, "s2").shape, (12, 32, 32))


@pytest.mark.parametrize("file", ["zarr.json", "s2/zarr.json"])
def test_a_packed_store_that_is_nested_without_end_is_not_opened(packed: Path, tmp_path: Path, file: str) -> None:
    copy = Path(shutil.copytree(packed, tmp_path / "copy"))
    deep = "[" * 50_000 + "]" * 50_000
    (copy / file).write_text(f'{{"attributes": {{"a": {deep}}}, {(copy / file).read_text().lstrip()[1:]}')
    for place in (copy, f"file://{copy}"):
        with pytest.raises(ArchiveError, match="more than 64 levels of nesting"):
            PackedArchive(place)
