"""Which device to compute on."""

from __future__ import annotations

import torch

from terrasieve.errors import ConfigError


def bf16_is_fast(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 ones there.

    A CPU without instructions for them computes them up to ten times more slowly.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch offers no public name for it.
    kinds = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, kind, bool)() for kind in kinds)


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` takes the first accelerator, else the CPU.

    Raises:
        ConfigError: The name is unknown or the device is not there.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((kind for kind in ("cuda", "mps") if available[kind]), "cpu"))
    if name.split(":")[0] not in available:
        raise ConfigError(f"--device {name!r} is none of auto, {', '.join(available)}.")
    if not available[name.split(":")[0]]:
        there = ", ".join(kind for kind, yes in available.items() if yes)
        raise ConfigError(f"--device {name} is not available to torch {torch.__version__} here; there is {there}.")
    return torch.device(name)
