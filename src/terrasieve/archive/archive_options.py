"""What may be said of an archive beside its name, as on the command line: sensors, how it is cut, its layout."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from terrasieve.archive.layout import ArchiveSpec
from terrasieve.archive.layouts.cube import cube_spec_from_options, is_cube
from terrasieve.archive.layouts.pictures import PicturesSpec
from terrasieve.archive.layouts.plain_table import is_table, table_spec_from_options
from terrasieve.archive.opening import find_spec, open_archive, scenes_spec_from_options
from terrasieve.archive.packed.chunk_cache import ChunkCache
from terrasieve.archive.protocol import Archive
from terrasieve.archive.scenes.survey import Edge
from terrasieve.errors import BandError, ConfigError
from terrasieve.sensors import load_sensor

_OF_SPECS = ("tile", "stride", "match", "edge", "max_days")
"""Options that are settings of a layout under the same name."""


@dataclass(frozen=True)
class ArchiveOptions:
    """Options that describe an archive; None, or nothing, is the layout's own choice.

    Attributes:
        sensors: ``KEY=SENSOR[:FOLDER]`` each; or one ``SENSOR``, of a file, a cube or a folder of pictures.
        patterns: ``KEY=GLOB`` each, which files a sensor's are.
        tile: Rows and columns of a sample, in pixels.
        stride: Pixels from one sample to the next.
        match: How files of several sensors are paired.
        edge: What becomes of the remainder at the far edges.
        max_days: Most days between files that are paired.
        layout: Name of the layout, where it is not to be recognised.
    """

    sensors: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    tile: int | None = None
    stride: int | None = None
    match: Literal["stem", "geometry"] | None = None
    edge: Edge | None = None
    max_days: float | None = None
    layout: str | None = None

    def open(self, data: str, cache: ChunkCache | None = None) -> Archive:
        """The archive of a name.

        Args:
            data: As for :func:`terrasieve.archive.opening.open_archive`.
            cache: Likewise.

        Raises:
            ArchiveError: Nothing is there, or it is not recognised.
            ConfigError: An option is malformed, or none of what is opened.
        """
        spec = self.spec(data)
        return open_archive(data if spec is None else spec, cache=cache)

    def spec(self, data: str) -> ArchiveSpec | None:
        """How a name is opened with these options; None of what says itself what its samples are, and takes no options.

        Args:
            data: As for :func:`terrasieve.archive.opening.open_archive`.

        Raises:
            ArchiveError: Nothing is there, or it is not recognised.
            ConfigError: An option is malformed, or none of what is opened.
        """
        if not self.sensors and self.patterns:
            raise ConfigError(f"--pattern {self.patterns[0]!r} is for a folder of scenes; name its --sensor, too.")
        spec = self._of_sensors(Path(data)) if self.sensors else find_spec(data, self.layout)
        given = {name: value for name in _OF_SPECS if (value := getattr(self, name)) is not None}
        known = {} if spec is None else type(spec).model_fields
        strange = [name for name in given if name not in known]
        if strange:
            what = "a catalogue or a packed store" if spec is None else f"the layout {spec.layout}"
            options = " ".join(f"--{name.replace('_', '-')}" for name in strange)
            raise ConfigError(f"{data} is opened as {what}, which takes no {options}: leave it out.")
        return spec.model_copy(update=given) if spec is not None and given else spec

    def words(self) -> list[str]:
        """The options as they are written on the command line, not quoted."""
        written: list[str] = []
        for one in fields(self):
            value: Any = getattr(self, one.name)
            name = {"sensors": "--sensor", "patterns": "--pattern"}.get(one.name, f"--{one.name.replace('_', '-')}")
            for each in value if isinstance(value, tuple) else () if value is None else (value,):
                written += [name, f"{each:g}" if isinstance(each, float) else str(each)]
        return written

    def _of_sensors(self, path: Path) -> ArchiveSpec:
        spec = self._spec_of_sensors(path)
        if self.layout not in (None, spec.layout):
            raise ConfigError(
                f"With --sensor {self.sensors[0]}, {path} is opened as {spec.layout}; --layout {self.layout} says "
                "something else; leave one out."
            )
        if self.patterns and spec.layout not in ("scenes", "pictures"):
            raise ConfigError(f"--pattern {self.patterns[0]!r} is for a folder, {path} is opened as {spec.layout}.")
        return spec

    def _spec_of_sensors(self, path: Path) -> ArchiveSpec:
        bare = len(self.sensors) == 1 and "=" not in self.sensors[0]
        named = f"{_key_of(self.sensors[0])}={self.sensors[0]}" if bare else ""
        if is_table(path):
            return table_spec_from_options(path, [named] if bare else self.sensors)
        if is_cube(path):
            return cube_spec_from_options(path, [named] if bare else list(self.sensors))
        if bare and not path.is_file():
            return PicturesSpec(root=path, sensor=self.sensors[0], pattern=self._pattern_of_pictures(named))
        return scenes_spec_from_options(path, [named] if bare else self.sensors, patterns=self.patterns)

    def _pattern_of_pictures(self, named: str) -> str:
        key = named.partition("=")[0]
        found = [pattern for text in self.patterns for name, _, pattern in [text.partition("=")] if name == key]
        if len(found) != len(self.patterns) or len(found) > 1 or any(not one or "{band}" in one for one in found):
            raise ConfigError(
                f"--pattern {self.patterns[-1]!r} is not {key}=GLOB, which files are pictures: {key}=**/*.png."
            )
        return found[0] if found else ""


def _key_of(sensor: str) -> str:
    try:
        return load_sensor(sensor).key
    except BandError as error:
        raise ConfigError(
            f"--sensor {sensor!r} is not key=sensor, such as s2=s2-l2a, and no sensor. {error}"
        ) from error
