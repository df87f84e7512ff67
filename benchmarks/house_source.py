"""Figures of the source text: what stands where, how long, how often. Nothing is imported from the tree it reads.

A rule takes the modules of a package and gives the places where it finds something. ``layouts/`` and
``reporting/sections/`` hold one file a data set or a section by nature, so that names may come twice there.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef

HELPER_LINES = 3
ARCHIVE_NAMES = frozenset({"archive", "inner", "source", "whole", "wrapped"})
WRITING = PurePosixPath("files/writing.py")
"""The module that holds ``write_whole``."""
MODULE_CALLS = {"os": {"replace", "rename", "renames"}, "shutil": {"move"}}
PATH_CALLS = frozenset({"replace", "rename"})

ENTRY = re.compile(r" {4}\*{0,2}[\w.]+(, \*{0,2}[\w.]+)*( \([^)]*\))?: ")
"""First line of an entry of a section, in a docstring without indentation."""

LEANING = re.compile(
    r"(above|as|at|before|behind|below|beside|between|by|for|from|in|of|on|over|than|to|under|until|with|without|"
    r"how|what|when|where|whether|which|who|whose)\b",
    re.IGNORECASE,
)
"""A preposition or question word: what opens with one leans on the argument's name."""
SHORT, SHORT_LEANING = 3, 5
STATED = re.compile(r"``|\d|\b(degrees|metres|seconds|m|dB)\b")
"""Code, a number or a unit."""


class Place(NamedTuple):
    """Where something stands.

    Attributes:
        path: File, relative to the package.
        line: Line of the file, from 1.
        what: The thing that stands there.
    """

    path: PurePosixPath
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.what}"


class Module:
    """A file of the package.

    Args:
        path: The file, relative to the package.
        text: What it holds.
    """

    def __init__(self, path: PurePosixPath, text: str) -> None:
        self.path = path
        self.text = text
        self.tree = ast.parse(text)
        self.nodes = list(ast.walk(self.tree))

    @property
    def lines(self) -> int:
        """Lines of the file, empty ones included."""
        return len(self.text.splitlines())

    @property
    def is_apart(self) -> bool:
        """Whether the file lies where there is one a data set or a section by nature."""
        return "layouts" in self.path.parts or self.path.parts[:2] == ("reporting", "sections")

    @property
    def is_init(self) -> bool:
        """Whether the file only makes its folder a package."""
        return self.path.name == "__init__.py"

    @cached_property
    def functions(self) -> list[Function]:
        """Functions and methods, nested ones included."""
        return [node for node in self.nodes if isinstance(node, Function)]

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        """Classes, nested ones included."""
        return [node for node in self.nodes if isinstance(node, ast.ClassDef)]

    @cached_property
    def mentions(self) -> Counter[str]:
        """How often the file refers to each name; see :func:`count_mentions`."""
        return count_mentions(self.nodes)

    @cached_property
    def calls(self) -> list[ast.Call]:
        """Calls in this file."""
        return [node for node in self.nodes if isinstance(node, ast.Call)]

    def place(self, node: ast.AST, what: str) -> Place:
        """Where a node of this file's tree stands."""
        return Place(self.path, getattr(node, "lineno", 1), what)


def read_modules(folder: Path) -> list[Module]:
    """Every Python file below a folder, in the order of their paths."""
    return [
        Module(PurePosixPath(path.relative_to(folder).as_posix()), path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
    ]


def count_lines(folder: Path) -> int:
    """Lines of every Python file below a folder."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob("*.py"))


def count_mentions(nodes: Iterable[ast.AST]) -> Counter[str]:
    """How often each name is read or reached as an attribute; definitions and imports do not count."""
    return Counter(last_name(node) for node in nodes if isinstance(node, ast.Name | ast.Attribute))


def last_name(node: ast.AST) -> str:
    """``x`` of ``x``, ``a.x`` and ``a.b.x``; empty where a node is neither name nor attribute."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


# --------------------------------------------------------------------------- sizes


def flat_folders(modules: Iterable[Module], apart: bool = False) -> Counter[str]:
    """Modules directly in each folder: in the folders that are set apart, or in all others."""
    return Counter(str(one.path.parent) for one in modules if not one.is_init and one.is_apart == apart)


def comments(modules: Iterable[Module]) -> int:
    """Lines with a comment; rulers and instructions to linters are comments, too."""
    tokens = (token for one in modules for token in tokenize.generate_tokens(io.StringIO(one.text).readline))
    return sum(token.type == tokenize.COMMENT for token in tokens)


def function_lengths(modules: Iterable[Module]) -> list[tuple[int, Place]]:
    """Lines of every function, from ``def`` to its end with its docstring; the longest first."""
    found = [
        ((node.end_lineno or 0) - node.lineno + 1, one.place(node, node.name))
        for one in modules
        for node in one.functions
    ]
    return sorted(found, key=lambda item: -item[0])


# --------------------------------------------------------------------------- names


def repeated_stems(modules: Iterable[Module]) -> dict[str, list[Place]]:
    """File names that come more than once in the tree, with the files."""
    named = defaultdict(list)
    for one in modules:
        if not one.is_apart and not one.is_init:
            named[one.path.stem].append(Place(one.path, 1, one.path.stem))
    return {stem: places for stem, places in sorted(named.items()) if len(places) > 1}


def repeated_classes(modules: Iterable[Module]) -> dict[str, list[Place]]:
    """Class names that come more than once in the tree, private ones included, with their places."""
    named = defaultdict(list)
    for one in modules:
        for node in one.classes if not one.is_apart else ():
            named[node.name].append(one.place(node, node.name))
    return {name: places for name, places in sorted(named.items()) if len(places) > 1}


# --------------------------------------------------------------------------- helpers used once


def one_use_helpers(modules: Sequence[Module]) -> list[Place]:
    """Private functions and methods of three lines or fewer to which the tree refers exactly once.

    Lines are source lines behind the docstring. A reference is a name or an attribute in the same file (in the same
    class, where the file defines the name several times), or in another file that defines nothing of that name. Not
    counted are hooks, which are methods that a base class or a subclass defines as well; functions with decorators,
    since what decorates them may call them; and dunders.
    """
    everywhere, at_home = Counter[str](), Counter[str]()
    for one in modules:
        everywhere.update(one.mentions)
        at_home.update({name: one.mentions[name] for name in {node.name for node in one.functions}})
    hooks = _hooks(modules)
    found = []
    for one in modules:
        defined = Counter(node.name for node in one.functions)
        for owner, node in _owned_functions(one):
            if not _is_helper(node) or id(node) in hooks:
                continue
            here = one.mentions if defined[node.name] == 1 else count_mentions(ast.walk(owner))
            if here[node.name] + everywhere[node.name] - at_home[node.name] == 1:
                found.append(one.place(node, node.name))
    return sorted(found)


def _is_helper(node: Function) -> bool:
    is_private = node.name.startswith("_") and not node.name.startswith("__")
    body = node.body if ast.get_docstring(node, clean=False) is None else node.body[1:]
    lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
    return is_private and not node.decorator_list and lines <= HELPER_LINES


def _owned_functions(module: Module) -> Iterator[tuple[ast.AST, Function]]:
    """Every function with the class, function or module that it is defined in."""
    for owner in module.nodes:
        yield from ((owner, node) for node in ast.iter_child_nodes(owner) if isinstance(node, Function))


def _hooks(modules: Iterable[Module]) -> set[int]:
    """Identities of methods that a base class or a subclass defines, too; classes are told apart by name."""
    classes = [node for one in modules for node in one.classes]
    bases: dict[str, set[str]] = defaultdict(set)
    for node in classes:
        # A generic base is subscripted: Base[T].
        bases[node.name] |= {last_name(base.value if isinstance(base, ast.Subscript) else base) for base in node.bases}
    lineage: dict[str, set[str]] = {}
    for name in list(bases):
        above: set[str] = set()
        waiting = [name]
        while waiting:
            news = bases.get(waiting.pop(), set()) - above
            above |= news
            waiting += news
        lineage[name] = above
    owners = defaultdict(list)
    for node in classes:
        for method in node.body:
            if isinstance(method, Function):
                owners[method.name].append((node.name, method))
    return {
        id(method)
        for same in owners.values()
        for name, method in same
        if any(other in lineage[name] or name in lineage[other] for other, _ in same)
    }


# --------------------------------------------------------------------------- archives and files


def archive_getattr(modules: Iterable[Module]) -> list[Place]:
    """Calls of ``getattr`` and ``hasattr`` on an archive.

    A name or an attribute holds an archive where its last part, without underscores before it, is ``archive``,
    ``inner``, ``source``, ``whole`` or ``wrapped``, or ends with ``_archive``; or where an argument or a variable of
    that name is annotated in the file with a type whose name ends with ``Archive``. ``self`` is one in a class whose
    name ends so.
    """
    found = []
    for one in modules:
        annotated = _annotated_archives(one)
        kinds = [node for node in one.classes if node.name.endswith("Archive")]
        inside = {id(node) for kind in kinds for node in ast.walk(kind)}
        for call in one.calls:
            if last_name(call.func) not in ("getattr", "hasattr") or not call.args:
                continue
            name = last_name(call.args[0])
            plain = name.lstrip("_")
            is_archive = plain in ARCHIVE_NAMES or plain.endswith("_archive") or name in annotated
            if is_archive or (name == "self" and id(call) in inside):
                found.append(one.place(call, ast.unparse(call)))
    return sorted(found)


def _annotated_archives(module: Module) -> set[str]:
    return {
        node.arg if isinstance(node, ast.arg) else last_name(node.target)
        for node in module.nodes
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None
        if re.fullmatch(r"[\w.]*Archive( \| None)?", ast.unparse(node.annotation))
    }


def replaces(modules: Iterable[Module]) -> list[Place]:
    """Calls that give a file its final name, outside the module of ``write_whole``.

    These are ``os.replace``, ``os.rename``, ``os.renames`` and ``shutil.move``, however imported, and ``.replace`` and
    ``.rename`` of a path. A path's take one positional argument and nothing else: those of text take two, those of
    dates, data classes and frames take keywords, those of an xarray data set a dictionary and those of a series a text.
    An object whose class in the tree defines such a method itself, as ``PoolSampler.replace``, is told by its name
    (``sampler``).
    """
    methods = [
        (node.name.lower(), method.name)
        for one in modules
        for node in one.classes
        for method in node.body
        if isinstance(method, Function) and method.name in PATH_CALLS
    ]
    found = []
    for one in modules:
        imported = {
            alias.asname or alias.name
            for node in one.nodes
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if alias.name in MODULE_CALLS.get(node.module or "", ())
        }
        calls = one.calls if one.path != WRITING else []
        found += [one.place(call, ast.unparse(call)) for call in calls if _publishes(call, imported, methods)]
    return sorted(found)


def _publishes(call: ast.Call, imported: Collection[str], methods: Iterable[tuple[str, str]]) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return last_name(call.func) in imported
    owner, name = last_name(call.func.value), call.func.attr
    if owner in MODULE_CALLS or name not in PATH_CALLS:
        return name in MODULE_CALLS.get(owner, ())
    object_name = owner.lstrip("_").lower()
    is_own = any(name == own and kind.endswith(object_name) for kind, own in methods) and object_name != ""
    is_alone = len(call.args) == 1 and not call.keywords
    return is_alone and not is_own and not isinstance(call.args[0], ast.Dict | ast.Constant)


# --------------------------------------------------------------------------- argument docs


def argument_docs(modules: Iterable[Module]) -> list[Place]:
    """What docstrings say of each argument and attribute, as ``name: text``."""
    return sorted(
        one.place(node, entry)
        for one in modules
        for node in (one.tree, *one.classes, *one.functions)
        for entry in _entries(ast.get_docstring(node) or "")
    )


def _entries(docstring: str) -> list[str]:
    found: list[str] = []
    inside = False
    for line in docstring.splitlines():
        if line and not line.startswith(" "):
            inside = line in ("Args:", "Attributes:")
        elif inside and ENTRY.match(line):
            found.append(line.strip())
        elif inside and found and line.startswith(" " * 8):
            found[-1] += f" {line.strip()}"
    return found


def is_fragment(entry: str) -> bool:
    """Whether a description is no whole phrase and states nothing.

    It is a fragment where it has at most three words, or at most five of which the first is a preposition or a question
    word ("What to open.", "Of everything random."), and names no code, number or unit.

    Args:
        entry: A line of a docstring, as ``name: text``.
    """
    text = entry.partition(": ")[2]
    most = SHORT_LEANING if LEANING.match(text) else SHORT
    return len(text.split()) <= most and not STATED.search(text)


def fragments(modules: Iterable[Module]) -> list[Place]:
    """Argument descriptions that are fragments; see :func:`is_fragment`."""
    return [place for place in argument_docs(modules) if is_fragment(place.what)]
