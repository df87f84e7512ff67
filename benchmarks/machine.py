"""On what a figure was measured."""

from __future__ import annotations

from datetime import UTC, datetime

import torch

from terrasieve.device import describe_device, pick_device


def describe(seed: int) -> str:
    """Accelerator or processor, threads, torch, date and seed, in one line."""
    threads = torch.get_num_threads()
    return (
        f"{describe_device(pick_device('auto'))}, {threads} thread{'s' if threads > 1 else ''}, "
        f"torch {torch.__version__}; {datetime.now(UTC):%Y-%m-%d}; seed {seed}"
    )
