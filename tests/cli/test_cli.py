"""The command line: its surface, its messages, and the whole path on simulated data."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
import yaml
from typer.testing import CliRunner

import terrasieve
from terrasieve.archive.opening import open_archive
from terrasieve.cli import app
from terrasieve.config import load_config, recipe_names
from terrasieve.simulation.land import SimulatedArchive

Run = Callable[..., Any]

# A change here is a change for everybody's scripts: make it on purpose, and note it in CHANGELOG.md.
ARCHIVE = {"--sensor", "--pattern", "--tile", "--stride", "--match", "--edge", "--max-days", "--layout"}
BENCH = {"--data", "--out", "--run", "--baseline", "--input", "--probe", "--size", "--scratch-epochs", "--device"}
PARTS = {"--part", "--claim", "--parts", "--on"}
JOB = {"--slurm", "--parts", "--time", "--partition", "--account", "--gpus", "--cpus", "--memory", "--nodes", "--logs"}
SURFACE = {
    "merge": {"OUT", "--data", "--overwrite"},
    "submit": {*JOB, "WORDS", "--dry-run"},
    "index": {
        *PARTS,
        "DATA",
        "--out",
        "--max-bad",
        "--max-nodata",
        "--harmonise",
        "--stac",
        "--overwrite",
        "--workers",
        *ARCHIVE,
    },
    "info": {"DATA", "--sheet", "--overwrite", *ARCHIVE},
    "pack": {
        *PARTS,
        "DATA",
        "--out",
        "--compress",
        "--max-bad",
        "--max-nodata",
        "--harmonise",
        "--overwrite",
        "--workers",
        *ARCHIVE,
    },
    "pretrain": {
        "RECIPE",
        "--data",
        "--out",
        "--set",
        "--resume",
        "--probe-data",
        "--probe-input",
        "--subset",
        "--curate",
        "--cache",
        "--cache-size",
        "--device",
        "--devices",
        *ARCHIVE,
    },
    "recipes": set(),
    "recipes show": {"RECIPE", "--set"},
    "embed": {
        *PARTS,
        "RUN",
        "--data",
        "--out",
        "--input",
        "--statistics",
        "--size",
        "--batch-size",
        "--dense",
        "--quantise",
        "--picture",
        "--cache",
        "--cache-size",
        "--overwrite",
        "--device",
        *ARCHIVE,
    },
    "probe": {
        "RUN",
        "--data",
        "--input",
        "--probe",
        "--target",
        "--baseline",
        "--train-share",
        "--fine-tune",
        "--split-column",
        "--group",
        "--block-km",
        "--size",
        "--seed",
        "--out",
        "--overwrite",
        "--device",
        *ARCHIVE,
    },
    "segment": {
        "RUN",
        "--data",
        "--labels",
        "--input",
        "--probe",
        "--group",
        "--ignore",
        "--size",
        "--seed",
        "--out",
        "--overwrite",
        "--device",
        *ARCHIVE,
    },
    "explore": {
        "SOURCE",
        "--out",
        "-o",
        "--serve",
        "--port",
        "--data",
        "--thumbnails",
        "--encoder",
        "--device",
        "--clusters",
        "--seed",
        "--select",
        "--to",
        "--overwrite",
        *ARCHIVE,
    },
    "similar": {
        "EMBEDDINGS",
        "--to",
        "--k",
        "-k",
        "--out",
        "-o",
        "--data",
        "--encoder",
        "--overwrite",
        "--device",
        *ARCHIVE,
    },
    "report": {"RUNS", "--out", "-o", "--overwrite"},
    "card": {"RUN", "--out", "-o", "--license", "--overwrite"},
    "export": {"RUN", "--out", "-o", "--format", "--input", "--size", "--overwrite"},
    "push": {"RUN", "REPOSITORY", "--private", "--dry-run"},
    "bench": set(),
    "bench rs-byol": {*BENCH, *ARCHIVE, "--small", "--seeds"},
    "bench oceansar": {*BENCH, *ARCHIVE, "--target"},
    "verify": {"STORE"},
    "plan": {
        "DATA",
        "RECIPE",
        *ARCHIVE,
        "--samples",
        "--machines",
        "--seconds",
        "--set",
        "--curate",
        "--sustained-tflops",
        "--network-gbytes",
        "--storage-gbytes",
        "--readers",
        "--parts",
        "--clock",
        "--json",
        "--overwrite",
        "--device",
    },
    "collocate": {"DATA", "TARGETS", "--out", "--columns", "--max-km", "--max-minutes", "--overwrite", *ARCHIVE},
    "wv": set(),
    "wv ingest": {
        *PARTS,
        "FOLDER",
        "--out",
        "--size",
        "--spacing",
        "--noise",
        "--detrend",
        "--polarisation",
        "--compress",
        "--max-bad",
        "--overwrite",
        "--workers",
    },
    "curate": {*PARTS, "VECTORS", "--out", "-o", "--keep", "--curator", "--set", "--seed", "--overwrite", "--device"},
    "demo": {"--data", "--out", "--overwrite", "--method", "--ocean", "--curate", "--set", "--seed", "--device"},
}


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if path:
        yield " ".join(path), command
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands(below, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(app)))


# ----------------------------------------------------------------------------- surface


def test_the_surface_is_what_was_agreed() -> None:
    found = {
        name: {
            option
            for one in command.params
            for option in (one.opts if one.param_type_name == "option" else [one.name.upper()])
        }
        for name, command in COMMANDS.items()
    }
    assert found == SURFACE


def test_the_overview_shows_every_command_and_option_with_its_first_phrase() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    lines = [line.strip("│ ") for line in result.stdout.splitlines()]
    for name, command in typer.main.get_command(app).commands.items():
        (said,) = (line.removeprefix(name).strip() for line in lines if line.split(" ")[0] == name)
        assert said == " ".join(command.help.partition("\n\n")[0].split())
    for option in ("--version", "--install-completion", "--show-completion", "--help, -h"):
        assert any(line.startswith(option) and line.removeprefix(option).strip() for line in lines), option


def test_the_overview_imports_nothing_of_other_pages() -> None:
    heavy = ("rich.markdown", "rich.traceback", "rich.progress", "pydantic", "numpy", "torch")
    code = f"import atexit, sys; from terrasieve.cli import main; sys.argv[1:] = ['--help']; \
atexit.register(lambda: print([name for name in {heavy} if name in sys.modules])); main()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Commands" in found.stdout
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", SURFACE)
def test_every_command_has_help_with_examples(name: str) -> None:
    result = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == 0
    assert "Examples" in result.stdout
    assert any(line.strip().startswith(f"terrasieve {name}") for line in result.stdout.splitlines())
    undescribed = [one.name for one in COMMANDS[name].params if not one.help]
    assert undescribed == []


EXAMPLES = [
    line.strip()
    for command in COMMANDS.values()
    for line in (command.callback.__doc__ or "").splitlines()
    if line.strip().startswith("terrasieve ")
]


@pytest.mark.parametrize("line", EXAMPLES)
def test_the_examples_are_valid(line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])[1:]
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    context = COMMANDS[name].make_context(name, words[len(name.split()) :])
    if "recipe" in context.params:
        load_config(context.params["recipe"], context.params["settings"] or [])


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version")[:2] == (0, f"terrasieve {terrasieve.__version__}\n")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "out"), [("index", "c.parquet"), ("pack", "c.zarr")])
def test_an_interrupted_command_says_that_it_goes_on(
    name: str, out: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, left = SimulatedArchive.read, [100]

    def interrupted(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return read(*arguments)

    monkeypatch.setattr(SimulatedArchive, "read", interrupted)
    code, _, said = run(name, "simulated:0:60", "--out", tmp_path / out)
    assert code == 130
    assert "Stopped. Run the same command again to go on from here." in said
    monkeypatch.setattr(SimulatedArchive, "read", read)
    code, _, said = run(name, "simulated:0:60", "--out", tmp_path / out)
    assert code == 0, said
    assert "60 samples" in said


# ---------------------------------------------------------------------------- curation


@pytest.mark.slow
def test_vectors_become_a_selection_that_a_run_learns_from(run: Run, tmp_path: Path) -> None:
    store, chosen = tmp_path / "store.zarr", tmp_path / "chosen.parquet"
    assert run("pack", "simulated:0:24", "--out", store)[0] == 0
    rows = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
    rows[5] = np.nan
    ids = open_archive(store).ids.tolist()
    labels = ["wood"] * 20 + ["water"] * 4
    pq.write_table(pa.table({"id": ids, "embedding": list(rows), "label": labels}), tmp_path / "vectors.parquet")
    code, printed, said = run(
        "curate", tmp_path / "vectors.parquet", "-o", chosen, "--keep", 0.5, "--set", "levels=[4]"
    )
    assert code == 0, said
    assert "class entropy" in printed
    assert "rejected" in printed
    selection = pq.read_table(chosen)
    assert len(selection) == 12
    assert ids[5] not in selection["id"].to_pylist()
    facts = json.loads(selection.schema.metadata[b"selection"])
    assert facts["curator"]["levels"] == [4]
    assert facts["rejected_rows"] == [5]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".terrasieve")] == []
    tiny = ("model.name=test_resnet", "train.epochs=1", "train.batch_size=4", "train.schedule=cosine")
    options = [part for one in tiny for part in ("--set", one)]
    code, _, said = run(
        "pretrain", "rs-byol-1-small", "--data", store, "--out", tmp_path / "run", "--subset", chosen, *options
    )
    assert code == 0, said
    assert "Done after 3 steps" in said
    provenance = json.loads((tmp_path / "run" / "encoder" / "encoder.json").read_text())["provenance"]
    assert provenance["samples"] == 12
    assert provenance["hardware"].endswith(f"{os.cpu_count()} cores")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--keep 0", "--keep 0: give a share above 0 up to 1, or a number of samples up to 9"),
        ("--keep 10", "--keep 10: give a share"),
        ("--keep 1.5", "--keep 1.5: give a share above 0 up to 1, or a number of samples up to 9, a whole one"),
        ("--keep nan", "--keep nan: give a share"),
        ("--keep inf", "--keep inf: give a share"),
        ("--curator balansed", "balansed"),
        ("--set diversity=2", "curator.diversity: Input should be less than or equal to 1"),
        ("--set levels=[3,9]", "falling numbers"),
    ],
)
def test_a_wrong_curation_is_explained(options: str, message: str, run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.eye(9))
    code, _, said = run("curate", tmp_path / "rows.npy", "-o", tmp_path / "chosen.parquet", *options.split())
    assert code == 1
    assert message in said
    assert not (tmp_path / "chosen.parquet").exists()


# ---------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("recipes show rs-byol-2", "ConfigError: No recipe and no file is called 'rs-byol-2'. Did you mean 'rs-byol-"),
        ("recipes show rs-byol-1 --set train.epoch=3", "unknown key 'train.epoch'. Did you mean 'epochs'?"),
        ("pretrain rs-byol-1-smal --data simulated:0:8 --out {tmp}", "Did you mean 'rs-byol-1-small'?"),
        ("pretrain rs-byol-1-small --data simulated:0:8 --out {tmp} --device tpu", "ConfigError: --device 'tpu'"),
        ("pretrain rs-byol-1-small --data {tmp}/nowhere --out {tmp}", "ArchiveError: {tmp}/nowhere does not exist"),
        ("demo --ocean --method byol --out {tmp}", "leave --method out"),
        ("demo --ocean --data {tmp} --out {tmp}", "leave --data out"),
        ("info {tmp}/nowhere", "ArchiveError"),
        ("embed {tmp} --data simulated:0:8 --out {tmp}/e.parquet", "CheckpointError: No encoder in {tmp}"),
        ("probe {tmp} --data simulated:0:8", "CheckpointError: No encoder in {tmp}"),
    ],
)
def test_errors_are_printed_without_a_traceback(arguments: str, message: str, tmp_path: Path, run: Run) -> None:
    code, out, err = run(*(part.format(tmp=tmp_path) for part in arguments.split()))
    assert code == 1
    assert out == ""
    assert "Traceback" not in err
    # Long paths are broken where the terminal ends.
    assert message.format(tmp=tmp_path).replace(" ", "") in err.replace(" ", "")


@pytest.mark.slow
def test_the_installed_command_fails_cleanly() -> None:
    code = "from terrasieve.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "recipes", "show", "[bold]"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "'[bold]'" in done.stderr, "what the user wrote is not taken for markup"


# ----------------------------------------------------------------------------- recipes


def test_recipes_are_listed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("recipes")
    assert code == 0
    for name in recipe_names():
        config = load_config(name)
        (line,) = [line for line in out.splitlines() if line.split()[0] == name]
        assert config.description in line
        assert config.model.name in line


def test_a_shown_recipe_is_a_recipe(run: Run, tmp_path: Path) -> None:
    _, out, err = run("recipes", "show", "rs-byol-1", "--set", "train.epochs=30")
    assert err == ""
    (tmp_path / "mine.yaml").write_text(out)
    assert load_config(tmp_path / "mine.yaml") == load_config("rs-byol-1", ["train.epochs=30"])


# ----------------------------------------------------------------------- the whole path


@pytest.mark.slow
def test_from_an_archive_to_a_table(run: Run, tmp_path: Path) -> None:
    store, folder = tmp_path / "pairs.zarr", tmp_path / "run"
    assert run("pack", "simulated:0:64", "--out", store)[0] == 0

    settings = ["model.name=test_resnet", "train.epochs=1", "train.batch_size=16", "train.log_every=2"]
    options = [part for setting in settings for part in ("--set", setting)]
    pretrain = ["pretrain", "rs-byol-1-small", "--data", store, "--out", folder, "--device", "cpu", *options]
    code, _, err = run(*pretrain, "--probe-data", store, "--probe-input", "s2:B03")
    assert code == 0
    assert "Done after 4 steps" in err
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert [row["knn_accuracy"] != "" for row in rows] == [False, True]
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["name"] == "test_resnet"

    code, _, err = run(*pretrain)
    assert code == 1
    assert "already holds a run" in err
    assert run(*pretrain, "--resume")[0] == 0

    embed = ["embed", folder, "--data", store, "--input", "s2:B03", "--input", "s1:VV", "--device", "cpu"]
    assert run(*embed, "--out", tmp_path / "e.parquet", "--size", 32)[0] == 0
    table = pq.read_table(tmp_path / "e.parquet")
    assert table.num_rows == 64
    assert {b"geo", b"emb"} <= set(table.schema.metadata)
    card = json.loads((folder / "encoder" / "encoder.json").read_text())
    assert card["weights_sha256"] in table.schema.metadata[b"emb"].decode()

    probe = ["probe", folder, "--data", store, "--input", "s2:B03", "--probe", "knn", "--size", 32, "--device", "cpu"]
    code, out, _ = run(*probe)
    assert code == 0
    results = json.loads((folder / "probe.json").read_text())
    assert (folder / "probe.csv").is_file()
    for word in ("SIMULATED", "random init", "image statistics", "s2:B03"):
        assert word in json.dumps(results)
    assert "random init" in out


@pytest.mark.slow
def test_a_catalogue_and_a_contact_sheet(run: Run, tmp_path: Path) -> None:
    catalogue, sheet = tmp_path / "catalogue.parquet", tmp_path / "sheet.png"
    items = tmp_path / "items.parquet"
    assert run("index", "simulated:0:16", "--out", catalogue, "--stac", items)[0] == 0
    assert pq.read_table(catalogue).num_rows == 16
    assert pq.read_table(items)["id"].to_pylist() == pq.read_table(catalogue)["id"].to_pylist()
    code, out, _ = run("info", catalogue, "--sheet", sheet)
    assert code == 0
    assert "16" in out
    assert "simulated" in out.lower()
    assert sheet.read_bytes().startswith(b"\x89PNG")


# -------------------------------------------------------------------- silent corrupters


SITES = ("--sensor", "s2=s2-l1c:S2L1C", "--tile", 224)


def test_index_names_the_offset_and_harmonise_removes_it(run: Run, data_dir: Path, tmp_path: Path) -> None:
    sites, catalogue, mended = data_dir / "terramesh_sites", tmp_path / "c.parquet", tmp_path / "h.parquet"
    code, _, said = run("index", sites, *SITES, "--out", catalogue)
    assert code == 0, said
    for words in ("+1000 offset in some samples: s2, 3 of 5 samples", "for example 282D", "--harmonise"):
        assert words in said
    listed = json.loads((tmp_path / "c.parquet.suspicions.json").read_text())
    assert [(one["kind"], [name.split("_")[0] for name in one["ids"]]) for one in listed] == [
        ("+1000 offset in some samples", ["282D", "433D", "609U"])
    ]
    code, _, said = run("index", sites, *SITES, "--out", mended, "--harmonise")
    assert code == 0, said
    assert "The offset of 1,000 was subtracted from 3 of 5 samples of s2." in said
    assert "Suspicions: none." in said
    archive = open_archive(mended)
    medians = [np.median(archive.read(i, "s2", ["B10"])) for i in range(5)]
    assert np.abs(medians - np.median(medians)).max() < 60


def test_the_sites_are_recognised_and_exactly_those_with_the_offset_flagged(
    run: Run, data_dir: Path, tmp_path: Path
) -> None:
    code, _, said = run("index", data_dir / "terramesh_sites", "--out", tmp_path / "c.parquet")
    assert code == 0, said
    assert "(terramesh-sites), 90% sure: folders of products" in said
    listed = json.loads((tmp_path / "c.parquet.suspicions.json").read_text())
    # At 433D level 2A carries it too: without it the ground would be three times as bright as seen from space.
    assert [(one["sensor"], [name.split("_")[0] for name in one["ids"]]) for one in listed] == [
        ("s2-l1c", ["282D", "433D", "609U"]),
        ("s2-l2a", ["433D"]),
    ]


@pytest.mark.parametrize("given", ["folder", "catalogue"])
def test_pack_warns_in_a_line_and_harmonises(run: Run, data_dir: Path, tmp_path: Path, given: str) -> None:
    sites, options = data_dir / "terramesh_sites", SITES
    if given == "catalogue":
        assert run("index", sites, *SITES, "--out", tmp_path / "c.parquet")[0] == 0
        sites, options = tmp_path / "c.parquet", ()
    code, _, said = run("pack", sites, *options, "--out", tmp_path / "raw.zarr")
    assert code == 0, said
    assert "Warning: +1000 offset in some samples: s2, 3 of 5 samples" in said
    code, _, said = run("pack", sites, *options, "--out", tmp_path / "mended.zarr", "--harmonise")
    assert code == 0, said
    assert "Warning" not in said
    assert "subtracted from 3 of 5 samples of s2" in said
    assert [len(row) for row in open_archive(tmp_path / "mended.zarr").table()["offset_removed"].to_pylist()] == [
        1,
        0,
        1,
        1,
        0,
    ]


def test_index_says_which_layout_it_recognised(run: Run, data_dir: Path, tmp_path: Path) -> None:
    root, out = data_dir / "bigearthnet_sample", tmp_path / "c.parquet"
    code, _, said = run("index", root, "--out", out)
    assert code == 0, said
    assert "Layout: BigEarthNet (bigearthnet), 100% sure: folders BigEarthNet-S2 and BigEarthNet-S1" in said
    code, _, said = run("index", root, "--out", out, "--layout", "bigearthnet", "--overwrite")
    assert (code, "as --layout says" in said) == (0, True)
    code, _, said = run("index", root, "--out", out, "--layout", "eurosta", "--overwrite")
    assert (code, "Did you mean 'eurosat'?" in said) == (1, True)
    code, _, said = run("info", root, "--layout", "eurosat")
    assert (code, "does not hold EuroSAT's ten class folders" in said) == (1, True)
    code, _, said = run("index", root, "--layout", "eurosat", "--sensor", "s2=s2-l2a")
    assert (code, "leave one out" in said) == (1, True)


@pytest.mark.parametrize(
    "command",
    [
        "pretrain lejepa-small --data simulated:0:8 --out {}/run",
        "bench oceansar --data simulated:0:8 --out {}/bench",
        "index simulated:0:8 --out {}/c.parquet",
        "info simulated:0:8",
        "pack simulated:0:8 --out {}/s.zarr",
        "collocate simulated:0:8 {}/t.csv --columns swh --out {}/c.parquet",
    ],
)
def test_an_option_that_an_archive_does_not_take_is_refused_everywhere(run: Run, tmp_path: Path, command: str) -> None:
    code, _, said = run(*command.replace("{}", str(tmp_path)).split(), "--tile", "32")
    assert (code, "simulated:0:8 is opened as the layout simulated, which takes no --tile" in said) == (1, True)


def test_options_of_an_archive_are_not_for_the_small_benchmark(run: Run, tmp_path: Path) -> None:
    code, _, said = run("bench", "rs-byol", "--data", tmp_path, "--small", "--tile", "32", "--out", tmp_path / "b")
    assert (code, "--small brings samples of its own, --tile 32 describe others" in said) == (1, True)
