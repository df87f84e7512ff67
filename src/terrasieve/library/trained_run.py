"""A run folder as a value: its encoder, its curves, its scores."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import pandas as pd

from terrasieve.config import RunConfig, load_config
from terrasieve.errors import ConfigError
from terrasieve.library.pretrained import PretrainedEncoder, load_pretrained
from terrasieve.probes.row_tables import read_json, record_of
from terrasieve.reporting.page import write_report
from terrasieve.runs import RoundRecord, RunFolder


class TrainedRun:
    """What a training run left in its folder; read when it is asked for.

    Args:
        path: The run folder.

    Raises:
        ConfigError: There is no run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.folder = RunFolder(Path(path))
        if not any(file.exists() for file in self.folder.told):
            raise ConfigError(
                f"{self.folder.path} holds no run: neither a configuration, nor a log, an encoder or results of a "
                "probe. Name the folder that was the `out` of pretrain."
            )

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path

    @cached_property
    def encoder(self) -> PretrainedEncoder:
        """The encoder that it exported last, on the CPU and in eval mode.

        Raises:
            CheckpointError: There is none yet, or it is damaged.
        """
        return load_pretrained(self.path)

    @cached_property
    def config(self) -> RunConfig:
        """Every resolved parameter.

        Raises:
            ConfigError: There is no configuration, or it is damaged.
        """
        return load_config(self.folder.config)

    @property
    def log(self) -> pd.DataFrame:
        """The logged numbers, a row each step that was logged; empty where nothing was logged yet."""
        return pd.read_csv(self.folder.log) if self.folder.log.is_file() else pd.DataFrame()

    @property
    def rounds(self) -> tuple[RoundRecord, ...]:
        """The records of all rounds of curation, the first first.

        Raises:
            ArchiveError: One is damaged or of another version.
        """
        return self.folder.rounds()

    @property
    def scores(self) -> pd.DataFrame:
        """What probes measured, a row each model, input and probe; empty before a probe.

        Each metric has a column, beside it ``_low`` and ``_high``, the bounds of its 95 % interval.

        Raises:
            ArchiveError: The results are damaged or of another version.
        """
        rows = read_json(self.folder.probe) if self.folder.probe.is_file() else []
        return pd.DataFrame([record_of(row) for row in rows])

    @property
    def report(self) -> Path:
        """The page about it, written anew."""
        write_report([self.path], self.folder.report)
        return self.folder.report

    def __repr__(self) -> str:
        trained = self.folder.exported() is not None
        return f"<Run {self.path}: {'trained' if trained else 'no encoder yet'}, {len(self.log)} logged steps>"
