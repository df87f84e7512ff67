"""Damage of every sort to real layouts: whatever is wrong is said with the file's name, and no sample gets lost.

``TERRASIEVE_FUZZ=2000 pytest tests/archive/test_fuzz.py`` tries other damage, and more of it, than every run does.
"""

from __future__ import annotations

import csv
import os
import resource
import shutil
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import Affine

from small_archives.geobench2 import as_tif, stated
from small_archives.geobench2 import write as write_tortilla
from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.layouts.bigearthnet import BigEarthNetSpec
from terrasieve.archive.layouts.eurosat import CLASSES, EuroSatSpec
from terrasieve.archive.layouts.geobench2 import GeoBench2Spec
from terrasieve.archive.layouts.plain_table import PlainTableSpec
from terrasieve.archive.opening import open_archive, scenes_spec_from_options
from terrasieve.archive.protocol import Archive
from terrasieve.errors import TerrasieveError
from terrasieve.schema import Spec
from terrasieve.sensors import SENSORS

EXAMPLES = int(os.environ.get("TERRASIEVE_FUZZ", "15"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="TERRASIEVE_FUZZ" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ROOM = 2**30
"""Bytes of address space that a test may take beyond what the process had: damage never makes it take more."""


# ------------------------------------------------------------------------------ layouts


def _tif(path: Path, pixels: np.ndarray, east: float = 500_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": pixels.dtype}
    grid = {"crs": "EPSG:32632", "transform": Affine(10, 0, east, 0, -10, 5_000_000)}
    with rasterio.open(path, "w", compress="deflate", **profile, **grid) as dataset:
        dataset.write(pixels)


def _optical(rng: np.random.Generator, bands: int, size: int) -> np.ndarray:
    return rng.integers(200, 3000, (bands, size, size)).astype(np.uint16)


def _radar(rng: np.random.Generator, bands: int, size: int) -> np.ndarray:
    return rng.normal(-12, 3, (bands, size, size)).astype(np.float32)


def _make_scenes(root: Path, rng: np.random.Generator) -> None:
    for name, east in (("a", 500_000), ("b", 501_000)):
        _tif(root / "s2" / f"{name}.tif", _optical(rng, 12, 32), east)
        _tif(root / "s1" / f"{name}.tif", _radar(rng, 2, 32), east)


def _make_eurosat_rgb(root: Path, rng: np.random.Generator) -> None:
    for label in CLASSES:
        path = root / "2750" / label / f"{label}_1.jpg"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    for split, some in (("train", CLASSES[:6]), ("val", CLASSES[6:8]), ("test", CLASSES[8:])):
        (root / f"eurosat-{split}.txt").write_text("".join(f"{label}_1.jpg\n" for label in some))


def _make_eurosat_ms(root: Path, rng: np.random.Generator) -> None:
    for label in CLASSES:
        _tif(root / "tif" / label / f"{label}_1.tif", _optical(rng, 13, 64))


def _make_bigearthnet(root: Path, rng: np.random.Generator) -> None:
    rows = []
    for number in range(2):
        s2, s1 = f"S2A_MSIL2A_20170617T113321_N9999_R080_T29UPU_{number}_5", f"S1A_IW_20170617T064724_29UPU_{number}_5"
        for band in SENSORS["s2-l2a"].bands:
            path = root / "BigEarthNet-S2" / s2.rsplit("_", 2)[0] / s2 / f"{s2}_{band.name}.tif"
            _tif(path, _optical(rng, 1, round(1200 / band.gsd)))
        for name in ("VV", "VH"):
            _tif(root / "BigEarthNet-S1" / "S1A_IW" / s1 / f"{s1}_{name}.tif", _radar(rng, 1, 120))
        rows.append({"patch_id": s2, "s1_name": s1, "split": "train", "labels": ["Pastures"]})
    pq.write_table(pa.Table.from_pylist(rows), root / "metadata.parquet")


def _make_geobench2(root: Path, rng: np.random.Generator) -> None:
    rasters = [{"s1": as_tif(_radar(rng, 2, 16)), "s2": as_tif(_optical(rng, 12, 16))} for _ in range(4)]
    write_tortilla(root / "geobench_benv2.tortilla", rasters, [stated(16, labels=["Pastures"])] * 4)


def _make_table(root: Path, rng: np.random.Generator, suffix: str) -> None:
    names = [f"files/{i}.tif" for i in range(4)]
    for name in names:
        _tif(root / name, _radar(rng, 2, 16))
    rows = pa.table({"id": [f"n{i}" for i in range(4)], "path": names, "label": list("abab")})
    if suffix == ".parquet":
        pq.write_table(rows, root / "table.parquet")
    else:
        lines = [",".join(map(str, row.values())) for row in rows.to_pylist()]
        (root / "table.csv").write_text("\n".join(["id,path,label", *lines]) + "\n")


@dataclass(frozen=True)
class Case:
    """A layout: how it is made and opened, and the name by which a sample or the scene it is of is known."""

    make: Callable[[Path, np.random.Generator], None]
    spec: Callable[[Path], Spec]
    whole: Callable[[str], str] = str


CASES = {
    "scenes": Case(
        _make_scenes,
        lambda root: scenes_spec_from_options(root, ["s2=s2-l2a", "s1=s1"], tile=16),
        lambda name: name.split("/")[0],
    ),
    "one-sensor": Case(
        _make_scenes, lambda root: scenes_spec_from_options(root, ["s1=s1"], tile=16), lambda name: name.split("/")[0]
    ),
    "geometry": Case(
        _make_scenes,
        lambda root: scenes_spec_from_options(root, ["s2=s2-l2a", "s1=s1"], tile=16, match="geometry"),
        lambda name: name.split("/")[0].split("+")[0],
    ),
    "eurosat-rgb": Case(_make_eurosat_rgb, lambda root: EuroSatSpec(root=root)),
    "eurosat-ms": Case(_make_eurosat_ms, lambda root: EuroSatSpec(root=root, product="ms")),
    "bigearthnet": Case(_make_bigearthnet, lambda root: BigEarthNetSpec(root=root)),
    "geobench2": Case(_make_geobench2, lambda root: GeoBench2Spec(root=root)),
    "csv": Case(
        lambda root, rng: _make_table(root, rng, ".csv"),
        lambda root: PlainTableSpec(root=root / "table.csv", sensors={"s1": "s1"}),
    ),
    "parquet": Case(
        lambda root, rng: _make_table(root, rng, ".parquet"),
        lambda root: PlainTableSpec(root=root / "table.parquet", sensors={"s1": "s1"}),
    ),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder of each layout, without damage."""
    roots = {}
    for name, case in CASES.items():
        roots[name] = tmp_path_factory.mktemp(name)
        case.make(roots[name], np.random.default_rng(0))
    return roots


@pytest.fixture(autouse=True)
def _little_room() -> Iterator[None]:
    """Let the process grow by ``ROOM`` at most, so that a damaged header that is believed shows as a MemoryError."""
    status = Path("/proc/self/status")
    if not status.is_file():
        yield
        return
    now = int(next(line for line in status.read_text().splitlines() if line.startswith("VmSize")).split()[1]) * 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + ROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# ------------------------------------------------------------------------------- damage


Damage = Callable[[bytes], bytes]


def _truncate(share: float) -> Damage:
    return lambda content: content[: int(share * len(content))]


def _flip(places: list[tuple[float, int]]) -> Damage:
    def apply(content: bytes) -> bytes:
        changed = bytearray(content)
        for share, bit in places:
            changed[min(int(share * len(changed)), len(changed) - 1)] ^= 1 << bit
        return bytes(changed)

    return apply


def _overwrite(start: float, noise: bytes) -> Damage:
    def apply(content: bytes) -> bytes:
        place = int(start * len(content))
        return content[:place] + noise + content[place + len(noise) :]

    return apply


def _claim(width: int, height: int) -> Damage:
    """Let a GeoTIFF claim another size, by its tags 256 and 257; anything else stays as it is."""

    def apply(content: bytes) -> bytes:
        if content[:4] != b"II*\0":
            return content
        changed = bytearray(content)
        (start,) = struct.unpack_from("<I", changed, 4)
        (entries,) = struct.unpack_from("<H", changed, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            (tag,) = struct.unpack_from("<H", changed, place)
            if tag in (256, 257):
                struct.pack_into("<HII", changed, place + 2, 4, 1, width if tag == 256 else height)
        return bytes(changed)

    return apply


UNIT = st.floats(0, 1, exclude_max=True)
HEADER = st.floats(0, 0.2)
"""Where in a file; the front part is where headers are."""
DAMAGE = st.one_of(
    UNIT.map(_truncate),
    st.lists(st.tuples(st.one_of(UNIT, HEADER), st.integers(0, 7)), min_size=1, max_size=16).map(_flip),
    st.builds(_overwrite, st.one_of(st.just(0.0), UNIT), st.binary(min_size=1, max_size=64)),
    st.builds(_claim, st.sampled_from([0, 1, 40, 10**6, 2**31 - 1]), st.sampled_from([0, 33, 10**6, 2**32 - 1])),
    st.just(lambda _: b""),
    st.binary(max_size=300).map(lambda noise: lambda _: noise),
)


def _damage(root: Path, pick: float, damage: Damage) -> Path:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = files[int(pick * len(files))]
    path.write_bytes(damage(path.read_bytes()) if path.stat().st_size else b"")
    return path


# ------------------------------------------------------------------------------ promises


def _copy(sound: Path, folder: str) -> Path:
    root = Path(folder).resolve() / "data"
    shutil.copytree(sound, root)
    return root


def _open(root: Path, case: Case) -> Archive | None:
    """The archive; None where it says, with a name below the root, why it cannot be opened."""
    try:
        return open_archive(case.spec(root))
    except TerrasieveError as error:
        _check_names(root, error)
        return None


def _check_names(root: Path, error: Exception) -> None:
    assert str(root) in str(error), f"{error!r} names no file"


def keep_promises(root: Path, case: Case, wanted: set[str]) -> None:
    """Open and index what was damaged: errors name a file, every sample is either good or rejected, the sum is right.

    Args:
        root: The damaged folder.
        case: What it was.
        wanted: Names of its samples (or their scenes) before.
    """
    archive = _open(root, case)
    if archive is None:
        return
    out = root.parent / "out" / "c.parquet"
    lost = archive.rejected
    try:
        report = index_archive(archive, out, max_bad=1.0)
    except TerrasieveError as error:
        _check_names(root, error)
        return
    rejections = _read_list(report.quarantine)
    good = pq.read_table(out)["id"].to_pylist()
    assert report.samples == len(good)
    most = {name: max(r.samples for r in lost if r.id == name) for name in {r.id for r in lost}}
    assert report.samples + report.rejected == len(archive) + sum(most.values())
    assert {case.whole(name) for name in good} | {case.whole(one["id"]) for one in rejections} >= wanted
    for one in rejections:
        assert str(root) in one["asset"] + one["reason"], f"{one} names no file"


def _read_list(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _names(root: Path, case: Case) -> set[str]:
    return {case.whole(name) for name in open_archive(case.spec(root)).ids.tolist()}


@pytest.mark.parametrize("layout", CASES)
@FUZZ
@given(blows=st.lists(st.tuples(UNIT, DAMAGE), min_size=1, max_size=3))
@pytest.mark.slow
def test_damaged_files_are_named_and_no_sample_gets_lost(
    sound: dict[str, Path], layout: str, blows: list[tuple[float, Damage]]
) -> None:
    case = CASES[layout]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn of what they read; what counts is what becomes of it
        root = _copy(sound[layout], folder)
        struck = {_damage(root, pick, damage).suffix for pick, damage in blows}
        # A damaged table may list other samples, or call them otherwise; of files of pixels each has to be found.
        listing = struck & {".csv", ".parquet", ".tortilla"}
        keep_promises(root, case, set() if listing else _names(sound[layout], case))


@pytest.mark.parametrize("layout", CASES)
def test_what_is_not_damaged_is_whole(sound: dict[str, Path], layout: str, tmp_path: Path) -> None:
    archive = open_archive(CASES[layout].spec(sound[layout]))
    report = index_archive(archive, tmp_path / "c.parquet")
    assert (report.samples, report.rejected) == (len(archive), 0)


TYPES = ["uint8", "int8", "int16", "uint32", "int64", "float64", "complex64", "complex128"]


@pytest.mark.parametrize("layout", ["scenes", "eurosat-ms", "bigearthnet", "csv"])
@pytest.mark.parametrize("dtype", TYPES)
def test_files_of_another_type_are_kept_or_named(
    sound: dict[str, Path], layout: str, dtype: str, tmp_path: Path
) -> None:
    root = _copy(sound[layout], str(tmp_path))
    for path in sorted(root.rglob("*.tif"))[:3]:
        with rasterio.open(path) as dataset:
            pixels = dataset.read()
        with np.errstate(all="ignore"):
            _tif(path, pixels.astype(dtype))
    keep_promises(root, CASES[layout], _names(sound[layout], CASES[layout]))


@pytest.mark.parametrize("layout", ["scenes", "one-sensor", "geometry", "eurosat-ms", "bigearthnet", "csv"])
@pytest.mark.parametrize("size", [(10**6, 10**6), (2**31 - 1, 2**31 - 1), (10**6, 1)])
def test_a_header_that_claims_too_much_is_refused_by_name(
    sound: dict[str, Path], layout: str, size: tuple[int, int], tmp_path: Path
) -> None:
    root = _copy(sound[layout], str(tmp_path))
    path = sorted(root.rglob("*.tif"))[0]
    path.write_bytes(_claim(*size)(path.read_bytes()))
    keep_promises(root, CASES[layout], _names(sound[layout], CASES[layout]))
    rejected = _read_list(tmp_path / "out" / "c.parquet.quarantine.csv")
    assert rejected
    assert any(str(path) in one["reason"] + one["asset"] for one in rejected)


def test_a_picture_that_claims_too_much_is_refused_before_it_is_decoded(
    sound: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _copy(sound["eurosat-rgb"], str(tmp_path))
    path = sorted(root.rglob("*.jpg"))[0]
    content = bytearray(path.read_bytes())
    place = content.index(b"\xff\xc0")
    struct.pack_into(">HH", content, place + 5, 9000, 9000)
    path.write_bytes(content)
    archive = open_archive(EuroSatSpec(root=root))
    decoded: list[Any] = []
    monkeypatch.setattr(Image.Image, "load", lambda self: decoded.append(self.size))
    with pytest.raises(TerrasieveError, match=rf"{path.name} is 9000x9000 px"):
        archive.read(0, "s2")
    assert decoded == []


@pytest.mark.slow
@FUZZ
@given(blows=st.lists(DAMAGE, min_size=1, max_size=3))
def test_a_damaged_catalogue_is_named(sound: dict[str, Path], blows: list[Damage]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / "c.parquet"
        index_archive(open_archive(CASES["one-sensor"].spec(sound["one-sensor"])), path)
        for damage in blows:
            path.write_bytes(damage(path.read_bytes() or b"PAR1"))
        try:
            archive = open_archive(path)
        except TerrasieveError as error:
            _check_names(path, error)
        else:
            assert set(archive.table()["id"].to_pylist()) <= set(open_archive(path).ids.tolist())


OUTSIDE = ["../secret/0.tif", "files/../../secret/0.tif", "{secret}/0.tif", "link.tif", "linked/0.tif"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("where", OUTSIDE)
def test_a_table_does_not_lead_out_of_its_folder(
    sound: dict[str, Path], suffix: str, where: str, tmp_path: Path
) -> None:
    layout = suffix[1:]
    root = _copy(sound[layout], str(tmp_path))
    secret = tmp_path.resolve() / "secret"
    shutil.copytree(root / "files", secret)
    (root / "link.tif").symlink_to(secret / "0.tif")
    (root / "linked").symlink_to(secret)
    path = where.format(secret=secret)
    table = root / f"table{suffix}"
    if suffix == ".csv":
        table.write_text(table.read_text().replace("files/0.tif", path))
    else:
        rows = pq.read_table(table).to_pylist()
        pq.write_table(pa.Table.from_pylist([{**rows[0], "path": path}, *rows[1:]]), table)
    with pytest.raises(TerrasieveError, match="leads out of the table's folder") as raised:
        open_archive(CASES[layout].spec(root))
    assert str(table) in str(raised.value)


def test_metadata_and_split_lists_cannot_lead_elsewhere(sound: dict[str, Path], tmp_path: Path) -> None:
    root = _copy(sound["bigearthnet"], str(tmp_path / "ben"))
    rows = pq.read_table(root / "metadata.parquet").to_pylist()
    stolen = root.parent / "secret" / rows[0]["patch_id"]
    shutil.copytree(next((root / "BigEarthNet-S2").rglob(rows[0]["patch_id"])), stolen)
    rows.append({**rows[0], "patch_id": f"../../secret/{rows[0]['patch_id']}"})
    pq.write_table(pa.Table.from_pylist(rows), root / "metadata.parquet")
    archive = open_archive(BigEarthNetSpec(root=root))
    assert len(archive) + sum(r.samples for r in archive.rejected) == 3  # type: ignore[attr-defined]
    assets = archive.table()["asset:s2"].to_pylist()
    assert all(Path(asset).resolve().is_relative_to(root) for asset in assets)

    root = _copy(sound["eurosat-rgb"], str(tmp_path / "eurosat"))
    with (root / "eurosat-train.txt").open("a") as file:
        file.write("../../../etc/passwd.jpg\n")
    archive = open_archive(EuroSatSpec(root=root))
    assert archive.source["listed_but_absent"] == 1
    assert len(archive) == 10


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("patch_id", [1, 2]),
        ("s1_name", [None, None]),
        ("labels", [3, 4]),
        ("labels", ["a", "b"]),
        ("split", [0.5, None]),
        ("patch_id", [["a"], ["b"]]),
    ],
)
def test_metadata_of_another_type_is_kept_or_named(
    sound: dict[str, Path], column: str, values: list[Any], tmp_path: Path
) -> None:
    root = _copy(sound["bigearthnet"], str(tmp_path))
    table = pq.read_table(root / "metadata.parquet")
    table = table.set_column(table.column_names.index(column), column, pa.array(values))
    pq.write_table(table, root / "metadata.parquet")
    keep_promises(root, CASES["bigearthnet"], set())
