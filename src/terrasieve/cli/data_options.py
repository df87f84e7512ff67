"""The options that describe an archive, which every command that takes one shares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_type_hints

import typer

if TYPE_CHECKING:
    from terrasieve.archive.archive_options import ArchiveOptions

C = TypeVar("C", bound=Callable[..., Any])

_PLACE = "options"
"""Name of the parameter that a command has in place of them."""
_PANEL = "How the archive is read"


def takes_archive(command: C) -> C:
    """Give a command the options in place of its parameter ``options``, which they are read into.

    Args:
        command: Has a parameter ``options: ArchiveOptions``, and none that is called as one of them.
    """
    own, shared = _parameters(command), _parameters(_read)

    @wraps(command)
    def called(**given: Any) -> Any:
        said = {name: given.pop(name) for name in shared}
        return command(**given, **{_PLACE: _read(**said)})

    keywords: list[inspect.Parameter] = []
    for name, one in own.items():
        keywords += shared.values() if name == _PLACE else [one]
    called.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]  # typer reads it
    called.__annotations__ = {one.name: one.annotation for one in keywords}
    return called  # type: ignore[return-value]  # it is called by typer, with the options that it shows


# Those of `_read` are asked for by every command, and annotations take long to evaluate.
@cache
def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Those of a function with their annotations, given by name: one without a default may follow one that has it."""
    # The type that options are read into is imported when a command runs, and not to show its help.
    hints = get_type_hints(function, localns={"ArchiveOptions": object}, include_extras=True)
    return {
        name: one.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, one in inspect.signature(function).parameters.items()
    }


def _read(
    sensor: Annotated[
        list[str] | None,
        typer.Option(
            help="Of which sensor files are: for a folder of scenes `KEY=SENSOR[:FOLDER]`, once per sensor, e.g. "
            "`s2=s2-l2a`; for a table or a cube `KEY=SENSOR`; for a folder of pictures `SENSOR`, e.g. `rgb8`.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option(
            help="With --sensor: which files are a sensor's, `KEY=GLOB`, e.g. `s2=**/*.jp2`; with `{band}` in it, each "
            "band has a file of its own, e.g. `s2=*_{band}.jp2`.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Rows and columns of a sample, in pixels. Scenes and cubes: 64, products: 256, pictures: uncut.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Pixels between samples; the tile size.", rich_help_panel=_PANEL)
    ] = None,
    match: Annotated[
        Literal["stem", "geometry"] | None,
        typer.Option(help="How scenes of several sensors are paired; `stem`, by name.", rich_help_panel=_PANEL),
    ] = None,
    edge: Annotated[
        Literal["drop", "overlap"] | None,
        typer.Option(
            help="`drop` leaves out what no whole tile covers at the far edges, `overlap` covers it with a last tile; "
            "`drop`.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    max_days: Annotated[
        float | None,
        typer.Option(
            min=0, help="Most days between scenes of several sensors that are paired; any.", rich_help_panel=_PANEL
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="Layout of a folder, e.g. `eurosat`, that is not to be recognised.", rich_help_panel=_PANEL),
    ] = None,
) -> ArchiveOptions:
    from terrasieve.archive.archive_options import ArchiveOptions

    return ArchiveOptions(tuple(sensor or ()), tuple(pattern or ()), tile, stride, match, edge, max_days, layout)
