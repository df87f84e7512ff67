"""What pages show to be typed runs, page by page and in order, on small files of the names that they use.

Left out are lines that the page shows to be refused, and those that act on what is too large to be made here; each page
says how many are left.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from doc_pages import ROOT, shell_lines
from small_archives.making import write_tif
from small_archives.pictures import write_pictures
from terrasieve.archive.layouts.eurosat import CLASSES
from terrasieve.cli import app

pytestmark = pytest.mark.slow

SMALL = (
    "model.name=test_resnet",
    "views.branches.*.size=32",
    "train.batch_size=8",
    "train.precision=32",
    "train.workers=0",
    "train.collapse_rank=0",
)
"""What makes a recipe run in a second; a page's own settings come before."""
ELSEWHERE = (
    r" (demo|wv|collocate|segment|bench) |SAFE|SEN12MS|sites|wv\.|imagenet|s3://|http|EPOCHS|archive\.zarr"
    "|--private|--format transformers"
)
"""Lines on what is made and run by other tests."""
REFUSED = ("train.epoch=4", "mine.yaml", "rgb.yaml", "1e30", "model.name=resnet50")
"""Lines that a page shows to be refused, or whose file it shows besides."""
PAGES = {
    "README.md": 8,
    "docs/quickstart.md": 9,
    "docs/how-to/curate.md": 4,
    "docs/how-to/embed.md": 2,
    "docs/how-to/pretrain.md": 4,
    "docs/how-to/probe.md": 1,
    "docs/how-to/report.md": 3,
    "docs/how-to/share.md": 5,
}
"""How many lines of a page run, at least."""


def run(line: str) -> Result:
    """Run a line of a page, its training and simulations made small."""
    words = [re.sub(r"^(simulated:\d+):\d+$", r"\1:48", word) for word in shlex.split(line, comments=True)[1:]]
    if words[0] == "pretrain":
        own = [i for i, word in enumerate(words) if word.startswith(("train.epochs=", "train.batch_size="))]
        words = [word for i, word in enumerate(words) if i not in own and i + 1 not in own]
        length = "train.epochs=4" if "--curate" in words else "train.steps=2"
        words += [word for setting in (*SMALL, length) for word in ("--set", setting)]
    words = ["1" if i and words[i - 1] == "--fine-tune" else word for i, word in enumerate(words)]
    if words[0] == "probe" and "--probe" not in words:
        words += ["--probe", "knn"]
    return CliRunner().invoke(app, words, prog_name="terrasieve")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, labelled pictures, a store, runs and embeddings, by the names that pages give them."""
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    names = [f"{{}}_{number}.jpg" for number in range(1, 7)]
    for name in ("EuroSAT_RGB", "eurosat"):
        write_pictures(folder / name, CLASSES, names, lambda label, place: rng.integers(0, 255, (64, 64, 3), np.uint8))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (
            "terrasieve pack simulated:0:48 --out pairs.zarr",
            "terrasieve pack simulated:0:48 --out sim.zarr",
            *(
                f"terrasieve pretrain rs-byol-1-small --data pairs.zarr --out runs/{run}"
                for run in ("first", "second", "sim")
            ),
            "terrasieve embed runs/first --data pairs.zarr --input s2:B03 --out embeddings.parquet",
        ):
            found = run(line)
            assert found.exit_code == 0, (line, found.output)
    return folder


def scenes(folder: Path, bands: int, kind: type[np.generic], size: int) -> None:
    """Scenes of both sensors as a page shows them."""
    rng = np.random.default_rng(1)
    for name, east in (("019", 500_000.0), ("021", 600_000.0)):
        optical = rng.integers(1, 200, (bands, size, size)).astype(kind)
        radar = rng.normal(-14, 3, (2, size, size)).astype(np.float32) if bands > 3 else optical[:1]
        write_tif(folder / "s2" / f"{name}.tif", optical, origin=(east, 5_000_000.0))
        write_tif(folder / "s1" / f"{name}.tif", radar, origin=(east, 5_000_000.0))


def shown(page: str) -> list[str]:
    """The lines of a page that are run here."""
    lines = [line for line in shell_lines((ROOT / page).read_text("utf-8")) if re.match(r"terrasieve [a-z]", line)]
    return [
        line for line in lines if not re.search(ELSEWHERE, line) and not any(one in line for one in (*REFUSED, "..."))
    ]


def make_room(line: str) -> None:
    """Remove what was put where the line is about to make the same."""
    found = re.search(r" (?:--out|-o) (\S+)", line)
    if found is None or "--resume" in line:
        return
    out = Path(found[1])
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink(missing_ok=True)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_runs(page: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    scenes(tmp_path / "scenes", *((12, np.uint16, 256) if page == "README.md" else (3, np.uint8, 128)))
    monkeypatch.chdir(tmp_path)
    failed, lines = {}, shown(page)
    for line in lines:
        make_room(line)
        found = run(line)
        if found.exit_code:
            failed[line] = f"{found.output} {found.exception!r}"
    assert failed == {}
    assert len(lines) >= PAGES[page]
