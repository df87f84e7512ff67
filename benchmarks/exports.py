"""Every form in which an encoder can be exported, reloaded in a fresh process in which terrasieve cannot be imported.

A ResNet-18, a ViT and a ViT with registers, untrained but with the statistics of random pixels, each for three bands.
Written as ``terrasieve export`` does, and reloaded by ``exports_reload.py``: by timm from the folder's name, by
transformers' ``AutoModel``, by ``torch.export.load``, and by ONNX Runtime. Some pixels are missing.

* ``timm``, ``transformers``, ``torch``, ``onnx``: the largest difference between a number of the features that the
  reloaded model gives and that of terrasieve, float32 on the CPU.

Usage: ``python benchmarks/exports.py [--backbone NAME]``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from exports_reload import NAMES
from machine import describe
from terrasieve.embeddings.inputs import EncoderInput
from terrasieve.exports.exporting import export_encoder
from terrasieve.exports.prepared import prepare_encoder
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.export import EncoderCard, load_encoder, save_encoder
from terrasieve.sensors import SENSORS, BandStatistics

SEED, SIZE = 0, 64
WANTED = 1e-4
BANDS = ("B04", "B03", "B02")
BACKBONES = {
    "resnet18": BackboneSpec(name="resnet18", channels=3),
    "vit": BackboneSpec(name="vit_tiny_patch16_224", channels=3, image_size=SIZE, patch_size=8),
    "vit with registers": BackboneSpec(
        name="vit_tiny_patch16_224", channels=3, image_size=SIZE, patch_size=8, registers=4
    ),
}


def make_run(folder: Path, spec: BackboneSpec) -> Path:
    """An exported encoder as a run leaves it.

    Args:
        folder: Where it goes.
        spec: Its network.
    """
    encoder = build_encoder(spec, SEED).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        encoder(torch.randn(16, spec.channels, SIZE, SIZE))
    entries = tuple(
        BandStatistics(band=band, count=1, mean=900 + 100 * i, std=250, minimum=0, maximum=9000)
        for i, band in enumerate(BANDS)
    )
    card = EncoderCard(
        backbone=spec,
        method="byol",
        recipe="exported",
        image_size=SIZE,
        sensors={"s2": SENSORS["s2-l2a"]},
        view_bands=(),
        statistics={"s2": entries},
    )
    save_encoder(folder / "encoder", encoder, card)
    return folder


def differences(spec: BackboneSpec, folder: Path, formats: Sequence[str] = tuple(NAMES)) -> Mapping[str, float]:
    """Export an encoder and reload it; by format the largest difference of features.

    Args:
        spec: Its network.
        folder: An empty folder.
        formats: The formats, which are reloaded in one process.
    """
    run, shown = make_run(folder / "run", spec), EncoderInput(sensor="s2", bands=BANDS)
    for form in formats:
        export_encoder(run, folder / NAMES[form], form, shown)  # type: ignore[arg-type]  # names of formats
    encoder, card = load_encoder(run)
    prepared = prepare_encoder(encoder, card, shown)
    pixels = prepared.example(5)
    np.save(folder / "pixels.npy", pixels.numpy())
    with torch.inference_mode():
        expected = encoder(prepared.standardised(pixels)).numpy()
    reload(folder, formats)
    return {form: float(np.abs(np.load(folder / f"{form}.npy") - expected).max()) for form in formats}


def reload(folder: Path, formats: Sequence[str]) -> None:
    """Run ``exports_reload.py`` where nothing of this process is seen, and nothing is fetched."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = Path(__file__).with_name("exports_reload.py")
    command = [sys.executable, str(script), str(folder), *formats]
    subprocess.run(command, check=True, cwd=folder, env={**environment, "HF_HUB_OFFLINE": "1"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, action="append", help="Only this one; repeatable.")
    chosen = parser.parse_args().backbone or list(BACKBONES)
    found = {}
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = differences(BACKBONES[name], Path(folder))
    console = Console()
    table = Table("format", *chosen, f"largest, wanted <= {WANTED:g}", title="Largest difference of features")
    worst = {form: max(one[form] for one in found.values()) for form in NAMES}
    for form in NAMES:
        table.add_row(form, *(f"{found[name][form]:.1e}" for name in chosen), f"{worst[form]:.1e}")
    console.print(table)
    console.print(describe(SEED), highlight=False)
    print(json.dumps({form: float(f"{value:.3g}") for form, value in worst.items()}))


if __name__ == "__main__":
    main()
