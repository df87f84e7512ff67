"""What a layout is: a way in which a data set lies on disk, its options, and how it is recognised and opened."""

from __future__ import annotations

import typing
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from terrasieve.archive.protocol import Archive
from terrasieve.errors import ConfigError, nearest
from terrasieve.registry import Registry
from terrasieve.schema import Spec


@dataclass(frozen=True)
class Recognition:
    """Why a folder is taken to be of a layout.

    Attributes:
        confidence: From 0 to 1: 1 where names that only this layout has were found, less where another could look so.
        evidence: What was found, as the end of a sentence.
        spec: The options by which the folder would be opened.
    """

    confidence: float
    evidence: str
    spec: ArchiveSpec


@dataclass(frozen=True)
class DataSet:
    """What the documentation and a model's card say of the data that a layout opens.

    Attributes:
        title: The name of the data set, as its authors write it.
        sensors: Instruments and processing levels, in a few words.
        labels: Kinds of labels; ``-`` where there are none.
        split: Where the column ``split`` comes from; ``-`` where it is null.
        page: Its page, relative to ``docs/datasets``; nothing where it has none.
        versions: Versions or products that are read, behind the title in the table.
        citation: BibTeX of the paper to cite; nothing where there is none.
    """

    title: str
    sensors: str = "-"
    labels: str = "-"
    split: str = "-"
    page: str = ""
    versions: str = ""
    citation: str = ""


class ArchiveSpec(Spec):
    """The options of a layout, as a user writes them in YAML, which open the archive.

    A subclass narrows ``layout`` to its one name, ``layout: Literal["fields"] = "fields"``.

    Attributes:
        layout: The name, also after ``--layout`` and before the colon in ``fields:FOLDER``.
        data_set: What is opened, for people; None for what is no data set of its own.
    """

    layout: str
    data_set: ClassVar[DataSet | None] = None

    @abstractmethod
    def open(self) -> Archive:
        """The archive; no pixels are read.

        Raises:
            ArchiveError: It is not there, or not what the layout promises.
        """

    @classmethod
    def recognise(cls, folder: Path) -> Recognition | None:
        """Whether a folder has this layout, judged by names and small text files; None, as here, where it has not."""
        return None

    @classmethod
    def near_miss(cls, folder: Path) -> str | None:
        """What keeps a folder that nearly has this layout from having it, and what to do, as a sentence; None, as here.

        Args:
            folder: A folder that is not recognised; names in it are read, no pixels.
        """
        return None

    def anchored(self, folder: Path) -> Self:
        """The same with relative paths taken from a folder: ``root``, where there is one; a subclass adds its others.

        Args:
            folder: Of the YAML file that the spec was read from.
        """
        root = getattr(self, "root", None)
        return self if root is None else self.model_copy(update={"root": folder / root})

    def open_listed(self, rows: pa.Table) -> Archive:
        """The archive as it was when a catalogue was made; :meth:`open`, where nothing but files decides that.

        Args:
            rows: The catalogue's, with ``id`` and the other columns of ``Archive.table``.
        """
        return self.open()


LAYOUTS: Registry[ArchiveSpec] = Registry(
    kind="layout",
    base=ArchiveSpec,
    # Names, since nothing here may import the simulations, which are written on top of this package.
    places=(
        "terrasieve.archive.layouts",
        "terrasieve.archive.scenes.survey",
        "terrasieve.archive.packed.reading",
        "terrasieve.archive.derived.harmonised",
        "terrasieve.simulation.land",
        "terrasieve.simulation.sea",
    ),
    group="terrasieve.layouts",
    name_of=lambda spec: str(spec.model_fields["layout"].default),
)
"""Every layout that can be opened, by name."""


def parse_spec(values: Any, origin: str) -> ArchiveSpec:
    """An archive spec from plain values.

    Args:
        values: The options as YAML gives them, ``layout`` among them.
        origin: Where they stand, such as the path of a file; errors begin with it.

    Raises:
        ConfigError: There is no such layout, or one of its options is unknown or has a wrong value.
    """
    layout = values.get("layout") if isinstance(values, dict) else None
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise ConfigError(f"{origin} has layout {layout!r}.{nearest(str(layout), LAYOUTS)}")
    spec = LAYOUTS[layout]
    try:
        return spec.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin} is not a valid {layout} archive: {_explain(error, set(_keys(spec)))}") from error


def data_set_table() -> str:
    """The data sets that ours open, as the Markdown table of ``docs/datasets/README.md``."""
    lines = ["| data set | `--layout` | sensors | labels | split | page |", "|---|---|---|---|---|---|"]
    for name, spec in LAYOUTS.ours.items():
        if (about := spec.data_set) is not None:
            title = f"{about.title} {about.versions}".strip()
            page = f"[page]({about.page})" if about.page else ""
            lines.append(f"| {title} | `{name}` | {about.sensors} | {about.labels} | {about.split} | {page} |")
    return "\n".join(lines)


def _keys(annotation: Any) -> Iterator[str]:
    """Every key of a schema and of those within it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from annotation.model_fields
        for field in annotation.model_fields.values():
            yield from _keys(field.annotation)
    for argument in typing.get_args(annotation):
        yield from _keys(argument)


def _explain(error: ValidationError, known: Iterable[str]) -> str:
    problems = []
    for problem in error.errors():
        where = [str(part) for part in problem["loc"]]
        hint = nearest(where[-1], known) if where and problem["type"] == "extra_forbidden" else ""
        problems.append(f"{'.'.join(where) or 'value'}: {problem['msg']}{hint}")
    return "; ".join(problems)
