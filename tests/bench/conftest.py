"""Two tiny trained-looking encoders and a simulated archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.export import EncoderCard, save_encoder
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """120 simulated samples of 32 pixels, packed, because they are read many times."""
    store = tmp_path_factory.mktemp("labelled") / "packed.zarr"
    pack(SimulatedArchive(SimulatedSpec(seed=1, samples=120, size=32)), store)
    return PackedArchive(store)


def save(folder: Path, channels: int, seed: int, recipe: str) -> Path:
    spec = BackboneSpec(name="test_resnet", channels=channels)
    card = EncoderCard(
        backbone=spec, method="byol", recipe=recipe, image_size=32, sensors={}, view_bands=(), statistics={}
    )
    save_encoder(folder, build_encoder(spec, seed), card)
    return folder


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two seeds of a single-band encoder, and a three-band one."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        "one-0": save(folder / "one-0", 1, 3, "one"),
        "one-1": save(folder / "one-1", 1, 4, "one"),
        "three": save(folder / "three", 3, 5, "three"),
    }
