"""`info` answers in one screen, and what it and errors advise works when it is pasted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from small_archives.making import Bench, write_tif
from small_archives.packed import packed
from terrasieve.archive.opening import open_archive
from terrasieve.errors import ArchiveError

Run = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands are given in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def paste(run: Run, line: str) -> Any:
    """Run a command, as a shell takes it apart."""
    program, *words = shlex.split(line)
    assert program == "terrasieve"
    return run(*words)


def next_of(run: Run, *words: object) -> tuple[str, str]:
    """What `info` prints, and the command that comes next."""
    code, out, err = run("info", *words)
    assert code == 0, err
    *shown, last = out.splitlines()
    assert last.startswith("Next: ")
    return "\n".join(shown), last.removeprefix("Next: ")


def test_scenes_that_nobody_names_are_guessed_and_packed(run: Run, here: Path) -> None:
    for name in "ab":
        write_tif(here / "my scenes" / "s2" / f"{name}.tif", Bench(here).optical(12, 64))
        write_tif(here / "my scenes" / "s1" / f"{name}.tif", Bench(here).radar(64))
    shown, command = next_of(run, "my scenes")
    assert command == "terrasieve pack 'my scenes' --sensor s1=s1 --sensor s2=s2-l2a --out my-scenes.zarr"
    assert "to be confirmed" in " ".join(shown.split())
    assert re.search("layout +scenes,", shown)
    assert paste(run, command)[0] == 0
    shown, command = next_of(run, "my-scenes.zarr")
    assert command == "terrasieve pretrain rs-lejepa-1-small --data my-scenes.zarr --out runs/my-scenes"


def test_options_that_are_given_are_in_the_next_command(run: Run, here: Path) -> None:
    write_tif(here / "p" / "a.tif", Bench(here).optical(12, 64))
    _, command = next_of(run, "p", "--sensor", "x=s2-l2a:.", "--tile", "32")
    assert command == "terrasieve pack p --sensor x=s2-l2a:. --tile 32 --out p.zarr"
    _, command = next_of(run, "p", "--tile", "16")
    assert command == "terrasieve pack p --sensor s2=s2-l2a:. --tile 16 --out p.zarr"


def test_pictures_of_several_sizes_are_cut(run: Run, here: Path) -> None:
    for name, width in (("deep/one.png", 80), ("two.JPG", 200)):
        (here / "it's me" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(Bench(here).picture(70, width)).save(here / "it's me" / name)
    _, command = next_of(run, "it's me")
    assert shlex.split(command)[2:] == ["it's me", "--sensor", "rgb8", "--tile", "64", "--out", "it-s-me.zarr"]
    assert paste(run, command)[0] == 0
    # Whole they cannot be packed, and are listed.
    _, command = next_of(run, "it's me", "--sensor", "rgb8")
    assert shlex.split(command)[1] == "index"
    assert paste(run, command)[0] == 0


def test_files_that_are_lost_are_counted_and_allowed(run: Run, here: Path) -> None:
    for name in "abc":
        Image.fromarray(Bench(here).picture(16, 16)).save(here / f"{name}.png")
    (here / "d.png").write_bytes(b"\x89PNG")
    shown, command = next_of(run, ".")
    assert re.search("rejected +1 samples", shown)
    assert "--max-bad 0.26" in command
    assert paste(run, command)[0] == 0


def test_what_is_made_never_replaces_what_is_read(run: Run, here: Path) -> None:
    packed(Bench(here / "x.zarr"))
    Image.fromarray(Bench(here).picture(16, 16)).save(here / "x.png")
    _, command = next_of(run, "x.png", "--sensor", "rgb8", "--tile", "16")
    assert command.endswith("--out x-2.zarr")


def test_bands_in_files_of_their_own(run: Run, here: Path) -> None:
    for name in ("VV", "VH"):
        write_tif(here / "g" / f"one_{name}.tif", Bench(here).radar(64)[:1])
    _, command = next_of(run, "g")
    assert command == "terrasieve pack g --sensor s1=s1:. --pattern 's1=*_{band}.tif' --out g.zarr"
    assert paste(run, command)[0] == 0


def test_bands_of_no_known_sensor_are_declared_by_the_advice(run: Run, here: Path) -> None:
    (here / "q").mkdir()
    Image.fromarray(Bench(here).picture(80, 80)[..., [0, 1, 2, 0]], "RGBA").save(here / "q" / "a.png")
    with pytest.raises(ArchiveError) as refused:
        open_archive("q")
    echo, _, command = str(refused.value).partition("for example: ")[2].partition(" && ")
    words = shlex.split(echo)
    assert (words[0], words[2:]) == ("echo", [">", "mine.yaml"])
    (here / "mine.yaml").write_text(words[1])
    assert paste(run, command)[0] == 0


def test_names_of_bands_are_kept_in_a_declaration(here: Path) -> None:
    write_tif(here / "q" / "a.tif", Bench(here).optical(4, 64), names=("B08", "B02", "B03", "B04"))
    with pytest.raises(ArchiveError) as refused:
        open_archive("q")
    assert '"name": "B08", "common_name": "nir"' in str(refused.value)
    assert '"unit": "reflectance_e4"' in str(refused.value)


def test_hints_in_names_and_values_order_the_guess(here: Path) -> None:
    def guess(name: str, pixels: Any) -> str:
        write_tif(here / name / "a.tif", pixels)
        with pytest.raises(ArchiveError) as refused:
            open_archive(name)
        return re.search(r"--sensor (\S+)", str(refused.value).partition("Built in:")[2])[1]  # type: ignore[index]

    draw = Bench(here)
    grey, ones = draw.picture(64, 64)[None, ..., 0], np.ones((1, 64, 64), np.float32)
    assert guess("photos", grey) == "gray8"
    assert guess("s1", grey) == "s1-vh8"
    assert guess("labels", grey) == "land-cover"
    assert guess("plain", grey // 32) == "land-cover"
    assert guess("s2", draw.picture(64, 64).transpose(2, 0, 1)) == "s2-rgb8"
    assert guess("r", draw.radar(64)) == "s1=s1:."
    assert guess("power", 10 ** (draw.radar(64) / 10)) == "s1=s1-linear:."
    assert guess("heights", 700 * ones) == "dem=dem:."
    assert guess("index", 0.5 * ones) == "ndvi=ndvi:."


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: (path / "within").mkdir(parents=True), "holds nothing that can be read: there is no file in it"),
        (lambda path: path.with_name("x1").write_text(""), "does not exist. Did you mean 'x1'?"),
        (lambda path: path.write_bytes(b"%PDF-1.7"), "of a nameless file nothing can be read"),
        (lambda path: None, "does not exist. Recognised are"),
    ],
)
def test_where_nothing_can_be_read_that_is_said(run: Run, here: Path, make: Callable[[Path], Any], said: str) -> None:
    make(here / "x")
    code, out, err = run("info", "x")
    assert (code, out) == (1, "")
    assert said in err


def test_a_damaged_file_is_named(run: Run, here: Path) -> None:
    (here / "d").mkdir()
    (here / "d" / "a.tif").write_bytes(b"II*\0")
    for name in ("d", "d/a.tif"):
        code, _, err = run("info", name)
        assert (code, "holds nothing that can be read. " in err, "a.tif cannot be read" in err) == (1, True, True)


def test_an_array_is_opened_by_the_advice(run: Run, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(here / "it's.npy", Bench(here).optical(3, 16)[None])
    code, _, err = run("info", "it's.npy")
    assert code == 1
    words = shlex.split(err[err.index("python -c") :])
    assert words[:2] == ["python", "-c"]
    exec(compile(words[2], "<advice>", "exec"), {})
    assert "1 sample" in capsys.readouterr().out
