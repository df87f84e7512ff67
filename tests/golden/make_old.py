"""Write the files in ``old/``, which later trees must still open.

    python tests/golden/make_old.py FOLDER

Those that are kept were written by version 0.1.0; what another version writes belongs beside them, not in their place.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import making
from making import OLD_CHOICE, OLD_LAST, OLD_PROBES, OLD_RUNS, rename, settings, terrasieve
from reading import PLACE
from record import restart, restart_needed


def write(folder: Path) -> None:
    """Stores, a catalogue, two runs that stopped half-way, a probe table, vectors and a selection."""
    folder.mkdir(parents=True)
    (folder / "land.yaml").write_text("layout: simulated\nsamples: 3\nsize: 32\n", encoding="utf-8")
    (folder / "ocean.yaml").write_text("layout: simulated-ocean\nsamples: 9\nsize: 32\nzipf: 2\n", encoding="utf-8")
    land, ocean, device = folder / "land.zarr", folder / "ocean.zarr", ("--device", "cpu")
    terrasieve("pack", folder / "land.yaml", "--out", land, "--workers", 0, "--compress")
    terrasieve("pack", folder / "ocean.yaml", "--out", ocean, "--workers", 0)
    terrasieve("index", ocean, "--out", folder / "catalogue.parquet", "--workers", 0)
    often = settings("train.checkpoint_minutes=0.000001", "train.keep_checkpoints=100")
    for name, run in OLD_RUNS.items():
        terrasieve("pretrain", *run.recipe, *often, "--data", folder / run.data, "--out", folder / name, *device)
        for path in sorted((folder / name / "checkpoints").iterdir()):
            if int(path.name.removeprefix("step-")) != OLD_LAST[name]:
                shutil.rmtree(path)
    for path in (folder / "dino" / "curation").iterdir():
        if path.stem != "round-00001":
            path.unlink()
    terrasieve(
        "embed", folder / "dino", "--data", ocean, "--input", "s1:VV", "--out", folder / "embeddings.parquet", *device
    )
    terrasieve("curate", folder / "embeddings.parquet", "-o", folder / "selection.parquet", *OLD_CHOICE, *device)
    terrasieve("probe", folder / "byol", "--data", ocean, *OLD_PROBES, *device)
    (folder / "byol" / "report.html").unlink()
    rename(folder, str(folder.resolve()), PLACE)


if __name__ == "__main__":
    if restart_needed():
        sys.exit(restart())
    making.prepare()
    write(Path(sys.argv[1]))
