"""Embedding throughput as a share of the bare forward pass.

Both contenders embed the same samples with the same encoder in the same process, in turns. The bare
forward pass runs on standardised pixels that already lie in memory, in the layout that it wants. The
embedding reads the samples from a packed store, standardises them, and hands out vectors in float32.

    python benchmarks/embed.py --samples 2048 --rounds 5

The last line is JSON: ``vs_forward`` is the median over rounds of the ratio of the two throughputs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from machine import describe
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive
from terrasieve.archive.statistics import statistics_of
from terrasieve.console import console, track
from terrasieve.embeddings import EmbedSettings, EncoderInput, embed_batches
from terrasieve.models.backbone import BackboneSpec, Encoder, build_encoder
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec
from terrasieve.views.render import Normaliser

BAND = EncoderInput(sensor="s2", bands=("B03",))


def pixels_in_memory(archive: Archive, normaliser: Normaliser, settings: EmbedSettings) -> list[torch.Tensor]:
    """Standardised batches in channels-last layout."""
    pixels = np.stack([archive.read(i, BAND.sensor, BAND.bands) for i in range(len(archive))]).astype(np.float32)
    standardised = normaliser(torch.from_numpy(pixels), [(BAND.sensor, band) for band in BAND.bands])
    return [part.contiguous(memory_format=torch.channels_last) for part in standardised.split(settings.batch_size)]


def forward_seconds(encoder: Encoder, batches: list[torch.Tensor], settings: EmbedSettings) -> float:
    start = time.perf_counter()
    enabled = settings.on(torch.device("cpu")).precision == "bf16"
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
        for pixels in batches:
            encoder(pixels)
    return time.perf_counter() - start


def embed_seconds(encoder: Encoder, archive: Archive, normaliser: Normaliser, settings: EmbedSettings) -> float:
    start = time.perf_counter()
    for _ in embed_batches(encoder, archive, [BAND], normaliser, settings):
        pass
    return time.perf_counter() - start


def compare(archive: Archive, rounds: int, settings: EmbedSettings) -> list[tuple[float, float]]:
    """Seconds of the forward pass and of the embedding, by round; the order alternates."""
    encoder = build_encoder(BackboneSpec(name="resnet18", channels=1), seed=0).eval()
    encoder.to(memory_format=torch.channels_last)
    normaliser = Normaliser(archive.sensors, statistics_of(archive))
    batches = pixels_in_memory(archive, normaliser, settings)
    forward_seconds(encoder, batches[:1], settings)
    seconds = []
    for turn in track(range(rounds), "rounds", total=rounds):
        if turn % 2:
            embedded = embed_seconds(encoder, archive, normaliser, settings)
            seconds.append((forward_seconds(encoder, batches, settings), embedded))
        else:
            bare = forward_seconds(encoder, batches, settings)
            seconds.append((bare, embed_seconds(encoder, archive, normaliser, settings)))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=256)
    arguments = parser.parse_args()
    settings = EmbedSettings(batch_size=arguments.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.zarr"
        pack(SimulatedArchive(SimulatedSpec(samples=arguments.samples, size=64)), store)
        seconds = compare(PackedArchive(store), arguments.rounds, settings)
    bare, embedded = (arguments.samples / statistics.median(column) for column in zip(*seconds, strict=True))
    table = Table("contender", "images/s", title="ResNet18, one band, 64 px, bf16, median of rounds")
    table.add_row("bare forward pass", f"{bare:.0f}")
    table.add_row("embed_batches from a packed store", f"{embedded:.0f}")
    console.print(table)
    ratio = statistics.median(forward / embed for forward, embed in seconds)
    print(describe(seed=0))
    print(json.dumps({"vs_forward": round(ratio, 3), "forward_images_per_s": bare, "embed_images_per_s": embedded}))


if __name__ == "__main__":
    main()
