"""The command line: parse, call, print."""

from __future__ import annotations

from terrasieve.cli import archives, benches, measuring, parts, training, wave_mode
from terrasieve.cli.app import app, main

__all__ = ["app", "archives", "benches", "main", "measuring", "parts", "training", "wave_mode"]
