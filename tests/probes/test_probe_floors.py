"""Image statistics are what their names say."""

from __future__ import annotations

import numpy as np
import torch

from terrasieve.probes.models import STATISTICS, ImageStatistics


def measured(pixels: torch.Tensor) -> dict[str, np.ndarray]:
    values = ImageStatistics()(pixels).reshape(*pixels.shape[:2], len(STATISTICS))
    return {name: values[..., i].numpy() for i, name in enumerate(STATISTICS)}


def test_distribution_equals_numpy() -> None:
    pixels = torch.randn(3, 2, 16, 12, generator=torch.Generator().manual_seed(1))
    found, flat = measured(pixels), pixels.flatten(2).numpy()
    expected = {"mean": flat.mean(-1), "std": flat.std(-1), "minimum": flat.min(-1), "maximum": flat.max(-1)}
    expected |= {f"percentile_{p}": np.percentile(flat, p, axis=-1, method="nearest") for p in (5, 25, 50, 75, 95)}
    for name, values in expected.items():
        assert np.allclose(found[name], values, atol=1e-5), name


def test_a_ramp_has_its_slope_as_gradient() -> None:
    ramp = (3 * torch.arange(16.0)[:, None] + 4 * torch.arange(16.0)[None, :])[None, None]
    found = measured(ramp)
    assert np.allclose(found["gradient_mean"], 5)
    assert np.allclose(found["gradient_std"], 0, atol=1e-5)


def test_a_wave_shows_in_its_own_octave_only() -> None:
    columns = torch.arange(64.0)
    for frequency, name in [(6 / 64, "0.0625_0.125"), (12 / 64, "0.125_0.25"), (20 / 64, "0.25_0.5")]:
        wave = torch.sin(2 * torch.pi * frequency * columns).expand(1, 1, 64, 64)
        found = {key: value.item() for key, value in measured(wave).items() if key.startswith("log_energy")}
        assert max(found, key=found.__getitem__) == f"log_energy_{name}"
        assert sorted(found.values())[1] < 1e-3


def test_bands_do_not_mix() -> None:
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    joined = torch.cat([ImageStatistics()(pixels[:, i : i + 1]) for i in range(3)], dim=1)
    assert torch.allclose(ImageStatistics()(pixels), joined)
