"""On what a figure was measured."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch


def describe(seed: int) -> str:
    """Processor, cores, threads, torch, date and seed, in one line."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    threads = torch.get_num_threads()
    return (
        f"{device}, {os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}; "
        f"{datetime.now(UTC):%Y-%m-%d}; seed {seed}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
