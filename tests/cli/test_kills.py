"""Commands that are killed (SIGKILL) at the worst moment: the same words bring the whole result, and nothing else."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apart import run_apart
from small_archives.making import write_tif
from small_archives.wave_mode import WV1, WV2, write_product

Run = Callable[..., tuple[int, str, str]]
KILLED = """
import importlib, os, signal, sys
where, names, moment = sys.argv.pop(1).split(":")
owner = importlib.import_module(where)
*inner, name = names.split(".")
for one in inner:
    owner = getattr(owner, one)
real = getattr(owner, name)
def killed(*arguments, **options):
    if moment == "after":
        real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, killed)
from terrasieve.cli import main
main()
"""
"""The command line, killed before or after the first call of a function: ``module:function:before``."""
LIST = "terrasieve.archive.quality.limits:Quarantine.write:before"
PUBLISHED = "terrasieve.archive.packed.store_writer:publish:after"


def kill(moment: str, *command: object) -> None:
    ended = run_apart(KILLED, moment, *command)
    assert ended.code == -signal.SIGKILL, ended.errors


def damage(scene: Path) -> None:
    """Spoil pixels and leave the header, so that only reading tells."""
    whole = scene.read_bytes()
    scene.write_bytes(whole[:1000] + bytes(1000) + whole[2000:])


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def commands(tmp_path: Path, rng: np.random.Generator) -> dict[str, list[Any]]:
    """What packs four scenes of which one is bad, and what packs two vignettes of which one is bad."""
    (tmp_path / "scenes" / "s2").mkdir(parents=True)
    for number in range(4):
        write_tif(tmp_path / f"scenes/s2/{number}.tif", rng.integers(1, 250, (3, 32, 32)).astype(np.uint8))
    damage(tmp_path / "scenes/s2/2.tif")
    product = write_product(tmp_path / "products", WV1, WV2)
    (product / "annotation/calibration" / f"noise-{WV2.name}.xml").write_text("")
    options = ["--max-bad", 0.5, "--workers", 0, "--out"]
    return {
        "pack": ["pack", tmp_path / "scenes", "--sensor", "s2=s2-rgb8", "--tile", 32, *options],
        "wv ingest": ["wv", "ingest", tmp_path / "products", "--size", 8, *options],
    }


@pytest.mark.parametrize("name", ["pack", "wv ingest"])
@pytest.mark.parametrize("moment", [LIST, PUBLISHED])
def test_the_list_survives_a_kill_after_the_last_chunk(
    name: str, moment: str, commands: dict[str, list[Any]], run: Run, tmp_path: Path
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill(moment, *commands[name], killed / "p.zarr")
    assert (killed / "p.zarr/packing.json").exists(), "the store was to be killed before it was finished"
    assert (killed / "p.zarr.quarantine.csv").exists() == (moment == PUBLISHED)
    for folder in (killed, whole):
        code, _, said = run(*commands[name], folder / "p.zarr")
        assert code == 0, said
    assert len((whole / "p.zarr.quarantine.csv").read_text().splitlines()) == 2
    assert content(killed) == content(whole)


def test_the_list_of_an_archive_without_a_good_sample_survives_a_kill(
    commands: dict[str, list[Any]], run: Run, tmp_path: Path
) -> None:
    for scene in (tmp_path / "scenes/s2").iterdir():
        damage(scene)
    out = tmp_path / "out/p.zarr"
    kill(LIST, *commands["pack"], out)
    code, _, said = run(*commands["pack"], out)
    assert (code, "p.zarr.quarantine.csv" in said) == (1, True), said
    assert os.listdir(out.parent) == ["p.zarr.quarantine.csv"]
    assert all(f"{number}.tif" in (out.parent / "p.zarr.quarantine.csv").read_text() for number in range(4))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_store_that_was_killed_at_its_first_record_begins_anew(
    overwrite: bool, commands: dict[str, list[Any]], run: Run, tmp_path: Path
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill("os:replace:before", *commands["pack"], killed / "p.zarr")
    assert os.listdir(killed / "p.zarr") == [".packing.json.partial"]
    code, _, said = run(*commands["pack"], killed / "p.zarr", *["--overwrite"] * overwrite)
    assert code == 0, said
    assert run(*commands["pack"], whole / "p.zarr")[0] == 0
    assert content(killed) == content(whole)


def test_curation_leaves_no_copy_of_the_vectors(run: Run, rng: np.random.Generator, tmp_path: Path) -> None:
    vectors = [row.tolist() for row in rng.normal(size=(60, 8)).astype(np.float32)]
    pq.write_table(pa.table({"embedding": pa.array(vectors, pa.list_(pa.float32(), 8))}), tmp_path / "v.parquet")
    command = ["curate", tmp_path / "v.parquet", "--keep", "0.2", "--curator", "random", "-o"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill("terrasieve.curating:diagnose:before", *command, killed / "s.parquet")
    assert (killed / ".s.parquet.scratch/vectors.npy").stat().st_size > 60 * 8 * 4, "there was to be a copy"
    for folder in (killed, whole):
        code, _, said = run(*command, folder / "s.parquet")
        assert code == 0, said
    assert os.listdir(killed) == os.listdir(whole) == ["s.parquet"]
    assert pq.read_table(killed / "s.parquet").equals(pq.read_table(whole / "s.parquet"))
