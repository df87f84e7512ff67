"""The parts of an unfinished Parquet file, so that a run can be stopped and taken up again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from terrasieve.console import track
from terrasieve.errors import ConfigError


@dataclass(frozen=True)
class Parts:
    """Parts of one file: ``<file>.parts/part-00000.parquet`` and so on, beside ``provenance.json``.

    Attributes:
        target: The file that the parts will become.
    """

    target: Path

    @classmethod
    def resume(cls, target: Path, plan: Mapping[str, Any]) -> Parts:
        """The parts of ``target``, begun now or taken up again.

        Args:
            target: The file that the parts will become.
            plan: JSON-able values that determine every part.

        Raises:
            ConfigError: The parts that are there were made by another plan.
        """
        parts = cls(target)
        written, text = parts.folder / "provenance.json", json.dumps(plan, indent=2, sort_keys=True)
        if not written.exists():
            parts.folder.mkdir(parents=True, exist_ok=True)
            unfinished = written.with_suffix(".unfinished")
            unfinished.write_text(text, encoding="utf-8")
            os.replace(unfinished, written)
            return parts
        old, new = json.loads(written.read_text(encoding="utf-8")), json.loads(text)
        changed = sorted(key for key in {**old, **new} if old.get(key) != new.get(key))
        if changed:
            raise ConfigError(
                f"{parts.folder} holds parts of another embedding; it differs in {', '.join(changed)}. "
                "Repeat the earlier command to finish it, or delete the folder to begin anew."
            )
        return parts

    @property
    def folder(self) -> Path:
        """Where the parts are."""
        return self.target.with_name(self.target.name + ".parts")

    def paths(self) -> list[Path]:
        """The whole parts, in order, up to the first that is missing."""
        paths: list[Path] = []
        while (path := self._path(len(paths))).exists():
            paths.append(path)
        return paths

    def append(self, rows: pa.Table) -> None:
        """Write the next part, whole or not at all."""
        path = self._path(len(self.paths()))
        unfinished = path.with_suffix(".unfinished")
        pq.write_table(rows, unfinished, compression="zstd", use_dictionary=False)
        os.replace(unfinished, path)

    def merge(self, schema: pa.Schema) -> None:
        """Make the parts one file of this schema, one part in memory at a time, and remove them."""
        unfinished = self.folder / "merged.unfinished"
        with pq.ParquetWriter(unfinished, schema, compression="zstd", use_dictionary=False) as writer:
            for path in track(self.paths(), "merge parts", total=len(self.paths())):
                writer.write_table(pq.read_table(path).cast(schema))
        os.replace(unfinished, self.target)
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"
