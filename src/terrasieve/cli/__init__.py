"""The command line: parse, call, print."""

from __future__ import annotations

from terrasieve.cli import (
    archives,
    benches,
    costs,
    exploring,
    measuring,
    parts,
    sharing_models,
    submitting,
    training,
    wave_mode,
)
from terrasieve.cli.app import app, main

__all__ = [
    "app",
    "archives",
    "benches",
    "costs",
    "exploring",
    "main",
    "measuring",
    "parts",
    "sharing_models",
    "submitting",
    "training",
    "wave_mode",
]
