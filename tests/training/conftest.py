"""Small packed archive, small configurations and a method whose result does not depend on how a batch is split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.protocol import Archive
from terrasieve.config import RunConfig, load_config
from terrasieve.methods.byol import Byol
from terrasieve.models.backbone import Encoder
from terrasieve.pretraining import make_job
from terrasieve.training.job import TrainingJob, TrainingResult
from terrasieve.training.loop import make_fabric, train

# 23 samples in batches of 8: no step before the 23rd ends with a pass.
SAMPLES = 23
COMMON = (
    "model.name=test_resnet",
    "views.branches.*.size=32",
    "train.batch_size=8",
    "train.log_every=2",
    "train.schedule=cosine",
    "train.collapse_std=0",
    "train.collapse_rank=0",
    # Tests that note what is read want it read when it is asked for.
    "train.workers=0",
)
SMALL = (
    *COMMON,
    "views.branches.*.augmentation.rotation=0.5",
    "views.branches.*.augmentation.blur=0.5",
    "views.branches.*.augmentation.erase=0.5",
    "views.branches.*.augmentation.grey=0.5",
    "model.drop_path=0.3",
    "train.accumulate=2",
    "train.precision=bf16",
    "train.epochs=4",
)
PLAIN = (*COMMON, "train.precision=32", "train.optimiser.lr=0.1", "train.epochs=2")


def small_config(*settings: str) -> RunConfig:
    """Three bands, all augmentations, micro-batches, bf16, stochastic depth: whatever could break repeatability."""
    return load_config("rs-byol-3-s1s2", [*SMALL, *settings])


def plain_config(*settings: str) -> RunConfig:
    """One band, float32, SGD: for arithmetic that is compared between runs."""
    return load_config("rs-byol-1", [*PLAIN, *settings])


class Plain(nn.Sequential):
    """A network without batch normalisation, so that samples do not see each other."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 8, 5, 4), nn.Tanh(), nn.Conv2d(8, 16, 3, 2), nn.Tanh(), nn.Flatten())


def plain_job(config: RunConfig, archive: Archive, folder: Path) -> TrainingJob:
    """BYOL without batch normalisation, without an encoder to export."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        method = Byol(Encoder(Plain(), 1, 144), nn.Linear(144, 16), nn.Linear(16, 16), momentum=0.9)
    return replace(make_job(config, archive, folder), method=method, export=lambda encoder, step: None)


def train_plain(config: RunConfig, archive: Archive, folder: Path) -> tuple[TrainingResult, Byol]:
    job = plain_job(config, archive, folder)
    assert isinstance(job.method, Byol)
    return train(job, make_fabric(config.train, "cpu")), job.method


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed store of simulated pairs."""
    out = tmp_path_factory.mktemp("packed") / "pairs.zarr"
    pack(open_archive(f"simulated:0:{SAMPLES}"), out)
    return out


@pytest.fixture(scope="session")
def archive(store: Path) -> Archive:
    return open_archive(store)


@pytest.fixture(name="small_config")
def _small_config() -> Callable[..., RunConfig]:
    return small_config


@pytest.fixture(name="plain_config")
def _plain_config() -> Callable[..., RunConfig]:
    return plain_config


@pytest.fixture(name="plain_job")
def _plain_job() -> Callable[..., TrainingJob]:
    return plain_job


@pytest.fixture(name="train_plain")
def _train_plain() -> Callable[..., tuple[TrainingResult, Byol]]:
    return train_plain


@pytest.fixture(scope="session")
def small_options() -> list[str]:
    """``small_config`` as the command line takes it."""
    return ["rs-byol-3-s1s2", *(part for setting in SMALL for part in ("--set", setting))]
