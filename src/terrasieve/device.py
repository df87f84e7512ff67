"""Which device to compute on, and in which precision."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator
from torch import Tensor

from terrasieve.errors import ConfigError, DeviceError


def _as_text(value: Any) -> Any:
    """YAML reads 32 as a number; curators called it float32 once."""
    if value == "float32":
        return "32"
    return str(value) if isinstance(value, int) else value


Precision = Annotated[Literal["auto", "32", "bf16"], BeforeValidator(_as_text)]
"""In which numbers a network that only infers, or a clustering, multiplies: ``32`` is float32, ``bf16`` bfloat16, and
``auto`` is ``bf16`` where the device has fast instructions for it, else ``32``."""

TrainingPrecision = Annotated[Literal["auto", "32", "bf16", "16"], BeforeValidator(_as_text)]
"""As :data:`Precision`, and ``16`` is float16, whose gradients have to be scaled; weights are float32 in each."""


PRECISION_NAMES = {"32": "float32", "bf16": "bfloat16", "16": "float16"}
"""What people call each precision that a device can be asked for."""


def resolve_precision(precision: TrainingPrecision, device: torch.device) -> Literal["32", "bf16", "16"]:
    """What a precision means on a device: itself, but for ``auto``.

    Args:
        precision: One of the precisions, or ``auto`` for the one that the device is fast at.
        device: The device that computes in it.
    """
    if precision != "auto":
        return precision
    return "bf16" if bf16_is_fast(device) else "32"


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
    """The device of that name.

    Args:
        name: ``cpu``, ``cuda``, ``mps`` or one of several accelerators, such as ``cuda:1``; ``auto`` takes the first
            accelerator, else the CPU.

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
        raise DeviceError(f"--device {name} is not available to torch {torch.__version__} here; there is {there}.")
    return torch.device(name)


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on a device, without waiting for what the device has been asked to do before.

    Args:
        tensor: On the CPU mostly, and not written to any more; one that is on the device already is given back.
        device: Where it is wanted.
    """
    kind = torch.device(device).type
    if kind == "cuda" and tensor.device.type == "cpu":
        # Out of pageable memory a copy blocks, whatever is asked for.
        tensor = tensor.pin_memory()
    # Metal's copies may be late for the operation that reads them.
    return tensor.to(device, non_blocking=kind != "mps")


def describe_device(device: torch.device) -> str:
    """Name of the accelerator, or of the processor with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    # Only Linux says the processor's name in a file; elsewhere its architecture has to do.
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    return f"{name}, {os.cpu_count()} cores" + (" (Metal)" if device.type == "mps" else "")
