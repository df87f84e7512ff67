"""A labelled archive in memory, one of whose bands carries the classes, and networks whose every number is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from terrasieve.archive.protocol import BaseArchive, Window
from terrasieve.sensors import SENSORS, BandStatistics, Sensor
from terrasieve.views.render import Normaliser

SENSOR = SENSORS["s2-l2a"].select("B04", "B03", "B02")


class BandArchive(BaseArchive):
    """Three classes, 32 px: stripes of three directions in B04, noise in B03 and B02."""

    sensors: Mapping[str, Sensor] = {"s2": SENSOR}

    def __init__(self, n: int = 180) -> None:
        rng = np.random.default_rng(8)
        self.codes = np.arange(n) % 3
        self.split = np.array(["train", "train", "train", "val", "test", "test"])[np.arange(n) // 3 % 6]
        rows, columns = np.mgrid[:32, :32]
        stripes = np.stack([np.sin(rows), np.sin(columns), np.sin(rows + columns)])[self.codes]
        self.pixels = (1500 + 250 * rng.normal(size=(n, 3, 32, 32))).astype(np.float32)
        self.pixels[:, 0] += 400 * stripes
        self.reads: Counter[int] = Counter()

    @property
    def ids(self) -> np.ndarray:
        return np.array([f"tile-{i}" for i in range(len(self))], dtype=np.str_)

    @property
    def source(self) -> Mapping[str, Any]:
        return {"layout": "memory", "root": "here", "simulated": True}

    def __len__(self) -> int:
        return len(self.codes)

    def _shape(self, index: int, sensor: str) -> tuple[int, int]:
        return 32, 32

    def _read(self, index: int, sensor: str, positions: tuple[int, ...], window: Window | None) -> np.ndarray:
        self.reads[index] += 1
        return self.pixels[index][list(positions)]

    def table(self) -> pa.Table:
        return pa.table({"label": [f"class-{code}" for code in self.codes], "split": self.split.tolist()})


@pytest.fixture
def archive() -> BandArchive:
    return BandArchive()


@pytest.fixture
def normaliser() -> Normaliser:
    statistics = tuple(
        BandStatistics(band=band, count=9, mean=1500, std=std, minimum=0, maximum=9999)
        for band, std in zip(SENSOR.names, (375, 250, 250), strict=True)
    )
    return Normaliser(BandArchive.sensors, {"s2": statistics})


def shake(network: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter and running statistic of batch normalisation, and every bias."""
    generator = torch.Generator().manual_seed(seed)

    def draw(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return (low + (high - low) * torch.rand(like.shape, generator=generator)).to(like.dtype)

    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean = draw(module.running_mean, -0.5, 0.5)
            module.running_var = draw(module.running_var, 0.5, 1.5)
            if module.affine:
                module.weight.data = draw(module.weight, 0.7, 1.3)
        if isinstance(getattr(module, "bias", None), torch.Tensor):
            module.bias.data = draw(module.bias, -0.4, 0.4)
    return network


@pytest.fixture(name="shake")
def _shake() -> Callable[..., nn.Module]:
    return shake


def snapshot(network: nn.Module) -> dict[str, Any]:
    """All that an explanation might change."""
    modules = list(network.modules())
    return {
        "state": {name: value.clone() for name, value in network.state_dict().items()},
        "strides": {name: value.stride() for name, value in network.state_dict().items()},
        "modes": [one.training for one in modules],
        "wanted": [one.requires_grad for one in network.parameters()],
        "gradients": [one.grad for one in network.parameters()],
        "hooks": [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in modules],
        "flags": [(getattr(one, "inplace", None), getattr(one, "fused_attn", None)) for one in modules],
    }


@pytest.fixture
def unchanged() -> Callable[[nn.Module, dict[str, Any]], None]:
    def check(network: nn.Module, before: dict[str, Any]) -> None:
        after = snapshot(network)
        state, old = after.pop("state"), before["state"]
        assert state.keys() == old.keys()
        assert all(torch.equal(state[name], old[name]) for name in old)
        assert after == {key: value for key, value in before.items() if key != "state"}

    return check


@pytest.fixture(name="snapshot")
def _snapshot() -> Callable[[nn.Module], dict[str, Any]]:
    return snapshot
