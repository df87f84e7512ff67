"""How the library is built: what stands where, how long it is, how often it stands there.

Figures of ``src/terrasieve``. ``layouts/`` and ``reporting/sections/`` hold one file a data set or a section by nature:
their files count as modules and lines, but are left out of ``flat_max``, ``stems_twice`` and ``classes_twice``.

* ``modules``, ``lines``: Python files other than ``__init__.py``; lines of all Python files.
* ``flat_max``: most modules directly in one folder. ``longest_file``: in lines.
* ``stems_twice``, ``classes_twice``: file names and class names that come more than once.
* ``one_use_helpers``: private functions and methods of three lines or fewer that are used once. Among them are those
  that are handed on by name and cannot be written where they are used; the table says how many.
* ``archive_getattr``: calls of ``getattr`` and ``hasattr`` on an archive.
* ``replaces``: calls outside ``files/writing.py`` that give a file its final name, by ``os.replace`` or the like.
* ``fragments``: descriptions of arguments and attributes that are no phrase and state nothing.
* ``comments_per_100``: comments on a hundred lines, rulers and instructions to linters included.
* ``function_median``, ``function_p95``: lines of a function, from ``def`` to its end with its docstring.
* ``tests_to_code``: lines of ``tests`` over lines of ``src/terrasieve``.
* ``files_on_the_way``: files whose functions run on the way from GeoTIFF files to the report; see ``house_way.py``.

Rules are stated in ``house_source.py``. ``--list NAME`` prints every place behind one figure.

Usage: ``python benchmarks/house.py [--skip-way] [--list NAME]``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import operator
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from house_source import (
    Module,
    Place,
    archive_getattr,
    argument_docs,
    comments,
    count_lines,
    flat_folders,
    fragments,
    function_lengths,
    last_name,
    one_use_helpers,
    read_modules,
    repeated_classes,
    repeated_stems,
    replaces,
)
from house_way import Ran, walk_the_way
from terrasieve.console import console

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "terrasieve"
LISTS = {
    "stems": "stems_twice",
    "classes": "classes_twice",
    "helpers": "one_use_helpers",
    "getattr": "archive_getattr",
    "replace": "replaces",
    "fragments": "fragments",
    "functions": "function_median",
    "way": "files_on_the_way",
}
"""Figure behind each name of ``--list``."""
WANTED = {
    "modules": ("<", 278),
    "flat_max": ("<=", 20),
    "longest_file": ("<=", 400),
    "stems_twice": ("<=", 0),
    "classes_twice": ("<=", 0),
    "one_use_helpers": ("<=", 30),
    "archive_getattr": ("<=", 0),
    "replaces": ("<=", 0),
    "function_median": ("<=", 8),
    "function_p95": ("<=", 30),
    "tests_to_code": (">=", 0.7),
    "files_on_the_way": ("<=", 100),
}
COMPARE: Mapping[str, Callable[[float, float], bool]] = {"<": operator.lt, "<=": operator.le, ">=": operator.ge}


class Figure(NamedTuple):
    """One figure of the table.

    Attributes:
        value: The figure.
        note: Where the figure comes from, in a few words.
        places: Every place behind it, one text each.
    """

    value: float
    note: str = ""
    places: Sequence[str] = ()


def counted(places: Iterable[object], note: str = "") -> Figure:
    """A figure that is a number of places."""
    texts = [str(place) for place in places]
    return Figure(len(texts), note, texts)


def repeated(named: Mapping[str, Sequence[Place]], with_files: bool) -> Figure:
    """How many names come more than once; the note lists them, with their files where wanted."""
    files = {name: ", ".join(str(place.path) for place in places) for name, places in named.items()}
    note = "\n".join(f"{name}: {text}" for name, text in files.items()) if with_files else ", ".join(files)
    places = [f"{name}: {', '.join(f'{place.path}:{place.line}' for place in found)}" for name, found in named.items()]
    return Figure(len(named), note, places)


def sizes(modules: Sequence[Module]) -> dict[str, Figure]:
    """Figures that count files, lines and comments."""
    lines = sum(one.lines for one in modules)
    longest = max(modules, key=lambda one: one.lines)
    too_long = sum(one.lines > WANTED["longest_file"][1] for one in modules)
    folder, most = flat_folders(modules).most_common(1)[0]
    apart = ", ".join(f"{name} {n}" for name, n in flat_folders(modules, apart=True).items())
    functions = function_lengths(modules)
    lengths = [length for length, _ in functions]
    texts = [f"{length} {place}" for length, place in functions]
    return {
        "modules": Figure(sum(not one.is_init for one in modules)),
        "lines": Figure(lines),
        "flat_max": Figure(most, f"{folder}; counted apart: {apart or 'none'}"),
        "longest_file": Figure(longest.lines, f"{longest.path}; over the limit: {too_long}"),
        "comments_per_100": Figure(round(100 * comments(modules) / lines, 2)),
        "function_median": Figure(statistics.median(lengths), f"{len(lengths):,} functions", texts),
        "function_p95": Figure(round(statistics.quantiles(lengths, n=20)[-1], 1), f"longest: {texts[0]}"),
        "tests_to_code": Figure(round(count_lines(ROOT / "tests") / lines, 3)),
    }


def findings(modules: Sequence[Module]) -> dict[str, Figure]:
    """Figures that count places."""
    helpers = one_use_helpers(modules)
    called = {last_name(call.func) for one in modules for call in one.calls}
    handed_on = sum(helper.what not in called for helper in helpers)
    return {
        "stems_twice": repeated(repeated_stems(modules), with_files=False),
        "classes_twice": repeated(repeated_classes(modules), with_files=True),
        "one_use_helpers": counted(helpers, f"{handed_on} are handed on by name, as a call back or in a table"),
        "archive_getattr": counted(archive_getattr(modules)),
        "replaces": counted(replaces(modules)),
        "fragments": counted(fragments(modules), f"of {len(argument_docs(modules)):,} descriptions"),
    }


def on_the_way(ran: Sequence[Ran]) -> Figure:
    """How many files the functions stand in that ran; every function is listed."""
    files = {one.path for one in ran}
    return Figure(len(files), f"{len(ran):,} functions", [f"{one.path}:{one.line} {one.name}" for one in ran])


def show(figures: Mapping[str, Figure]) -> None:
    """Print the table, with what is wanted beside each figure; what misses it is red."""
    table = Table("figure", "here", "wanted", "where")
    for name, figure in figures.items():
        sign, limit = WANTED.get(name, ("", 0))
        is_met = not sign or COMPARE[sign](figure.value, limit)
        here = f"{figure.value:,}" if is_met else f"[red]{figure.value:,}[/]"
        table.add_row(name, here, f"{sign} {limit}" if sign else "", figure.note)
    console.print(table)


def main() -> None:
    """Print the table, the list that is asked for and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-way", action="store_true", help="read the source only")
    parser.add_argument("--list", choices=LISTS, help="print every place behind one figure")
    arguments = parser.parse_args()
    if arguments.skip_way and arguments.list == "way":
        parser.error("--list way needs the way: leave --skip-way out")
    modules = read_modules(PACKAGE)
    figures = sizes(modules) | findings(modules)
    if not arguments.skip_way:
        figures["files_on_the_way"] = on_the_way(walk_the_way(PACKAGE))
    show(figures)
    for place in figures[LISTS[arguments.list]].places if arguments.list else ():
        print(place)
    print(json.dumps({name: figure.value for name, figure in figures.items()}))


if __name__ == "__main__":
    main()
