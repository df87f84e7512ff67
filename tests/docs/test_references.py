"""What the pages name exists: files, links, modules, classes, functions, settings of commands."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import terrasieve
from doc_pages import FENCE, ROOT, shell_lines
from terrasieve.cli import app
from terrasieve.config import recipe_names
from terrasieve.runs import RunFolder

pytestmark = pytest.mark.slow

PACKAGE = ROOT / "src" / "terrasieve"
BASES = (ROOT, PACKAGE, ROOT / "docs")
ELSEWHERE = {
    "LogisticRegression": "scikit-learn's",
    "FeatureCollection": "GeoJSON's",
    "timm.list_models": "timm's",
    "timm.create_model": "timm's",
    "AutoModel": "transformers'",
    "AutoModel.from_pretrained": "transformers'",
    "torch.export.load": "torch's",
    "onnxruntime.InferenceSession": "ONNX Runtime's",
    "Path": "pathlib's",
    "Path.rename": "pathlib's",
    "StringDType": "numpy's",
    "encoder.to": "torch's",
    "GDAL_HTTP_MAX_RETRY": "GDAL's",
    "MALLOC_TRIM_THRESHOLD_": "the C library's",
}
CONFIG = ("curation", "method", "model", "train", "views")
"""Sections of a configuration, whose settings are written like names of modules."""
FILES = ("csv", "html", "json", "parquet", "py", "yaml")
"""What stands behind the dot where a name is that of a file."""


# ------------------------------------------------------------------- the pages


def pages() -> dict[str, str]:
    """The text of every page by its path from the root."""
    at_the_root = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
    paths = [*(ROOT / name for name in at_the_root), *sorted((ROOT / "docs").rglob("*.md"))]
    found = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in paths}
    unreleased = (ROOT / "CHANGELOG.md").read_text("utf-8").split("\n## ")[1]
    # What was removed, and the old names of what was moved, are the things of a page that need not exist.
    kept = re.sub(r"^### Removed\n.*?(?=^### |\Z)", "", unreleased, flags=re.MULTILINE | re.DOTALL)
    found["CHANGELOG.md"] = re.sub(r"^\|[^|]*\|", "|", kept, flags=re.MULTILINE)
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        found[path.relative_to(ROOT).as_posix()] = docstring.replace("``", "`")
    return found


PAGES = pages()


def spans(text: str) -> list[str]:
    """What the prose of a page sets as code."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def added_by(text: str) -> set[str]:
    """Files that a diff on the page creates."""
    return set(re.findall(r"^\+\+\+ b/(\S+)$", text, re.MULTILINE))


# -------------------------------------------------------------------- the tree


@cache
def modules() -> Mapping[str, ast.Module]:
    """Every module by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text("utf-8"))
    return found


def bound(body: list[ast.stmt]) -> set[str]:
    """Names that the statements of a module or class bind."""
    names: set[str] = set()
    for node in body:
        match node:
            case ast.ClassDef() | ast.FunctionDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return names


@cache
def classes() -> Mapping[str, set[str]]:
    """Members of every class, those of its bases in the tree and what its methods set included."""
    nodes = [node for tree in modules().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    own: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}
    for node in nodes:
        attributes = {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
        own[node.name] = own.get(node.name, set()) | bound(node.body) | attributes
        bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]

    def members(name: str) -> set[str]:
        return own.get(name, set()).union(*(members(base) for base in bases.get(name, ())))

    return {name: members(name) for name in own}


@cache
def functions() -> set[str]:
    trees = modules().values()
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@cache
def groups() -> set[str]:
    """Groups of entry points, which are written like modules."""
    constants = (node for tree in modules().values() for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {one.value for one in constants if re.fullmatch(r"terrasieve\.[a-z]+", str(one.value))}


@cache
def sources() -> str:
    """All code of the checkout, and what the pages themselves name in their examples."""
    files = [path for room in ("src", "tests", "benchmarks") for path in (ROOT / room).rglob("*")]
    code = [path.read_text("utf-8") for path in files if path.suffix in (".py", ".yaml") and path != Path(__file__)]
    return "\n".join([*code, *(body for text in PAGES.values() for _, body in FENCE.findall(text))])


@cache
def identifiers() -> set[str]:
    """Every name in the sources."""
    return set(re.findall(r"\w+", sources()))


@cache
def command_line() -> Any:
    """The whole command line, which takes long to put together."""
    return get_command(app)


@cache
def known_options() -> set[str]:
    """Options of the command line, and of what else in the checkout takes any."""
    return all_options(command_line()) | set(re.findall(r'"(--[\w-]+)"', sources()))


def is_there(dotted: str) -> bool:
    """Whether a dotted name is a module, or a name in one, or a member of a class in one."""
    if dotted in modules() or dotted in groups():
        return True
    module, _, name = dotted.rpartition(".")
    if module == "terrasieve" and name in terrasieve.__all__:
        return True
    if module in modules():
        return name in bound(modules()[module].body)
    module, _, owner = module.rpartition(".")
    return module in modules() and owner in bound(modules()[module].body) and name in classes().get(owner, ())


# ----------------------------------------------------- what is named in a page


def broken_links(page: str, text: str) -> list[str]:
    """Relative links, and headings within a page, that lead nowhere."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        name, _, heading = link.partition("#")
        if re.match(r"\w+:", name):
            continue
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (heading and heading not in headings(target)):
            broken.append(link)
    return broken


def headings(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ +(.+)$", FENCE.sub("", path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def broken_paths(page: str, text: str) -> list[str]:
    """Files and folders of the checkout, or of a run, that are named and do not exist."""
    named = re.findall(r"(?<![\w/.*<>-])(?:[\w-]+/)+[\w-]+\.(?:py|toml|json|md)\b", FENCE.sub("", text))
    named += re.findall(r"(?<![\w/.-])(?:tests|benchmarks|docs|src)/[\w/.-]*\w", text)
    broken = [name for name in named if not (is_file(name) or is_of_a_run(name) or name in added_by(text))]
    for span in spans(text):
        within = re.match(r"runs/[\w-]+/(.*)", span)
        if (
            (re.fullmatch(r"\w+\.py|[\w-]+/", span) and span.strip("/") not in names())
            or (re.fullmatch(r"[\w-]+\.(json|csv|html|tex|safetensors)", span) and span not in sources())
            or (within and not is_of_a_run(within[1]))
        ):
            broken.append(span)
    return broken


@cache
def names() -> set[str]:
    """Names of all files of code, of the rooms, and of what lies in a run."""
    rooms = {path.name for path in (*ROOT.iterdir(), *PACKAGE.rglob("*")) if path.is_dir()}
    files = {path.name for room in ("src", "tests", "benchmarks") for path in (ROOT / room).rglob("*.py")}
    return rooms | files | names_in_a_run()


@cache
def names_in_a_run() -> set[str]:
    folder = RunFolder(Path())
    files = [getattr(folder, name) for name, member in vars(RunFolder).items() if isinstance(member, property)]
    # Beside its own files a run may hold those of a logger, and a benchmark's its cells.
    return {one.parts[0] for one in files if isinstance(one, Path)} | {"segment", "tensorboard", "cells"}


def is_file(name: str) -> bool:
    return any((base / name).exists() for base in BASES)


def is_of_a_run(name: str) -> bool:
    """Whether a path begins with a file or a folder that runs have."""
    return name.removeprefix("runs/first/").split("/")[0] in names_in_a_run()


def broken_names(page: str, text: str) -> list[str]:
    """Modules, classes, functions and constants that are named and do not exist."""
    created = {name.removeprefix("src/").removesuffix(".py").replace("/", ".") for name in added_by(text)}
    dotted = re.findall(r"(?<![\w./-])terrasieve(?:\.\w+)+", text)
    for module, names in re.findall(r"^\+?from (terrasieve[\w.]*) import ([\w, ]+)", text, re.MULTILINE):
        dotted += [f"{module}.{name.strip().split(' ')[0]}" for name in names.split(",")]
    broken = [name for name in dotted if not (is_there(name) or any(name.startswith(one) for one in created))]
    return broken + [span for span in spans(text) if not (span_is_there(span) or created)]


def span_is_there(span: str) -> bool:
    """Whether a span, if it is written like a name of code, is one; what is no such name is there."""
    name, called, _ = span.partition("(")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[a-z_]\w*)*", name) or name in ELSEWHERE or name.startswith("terrasieve."):
        return True
    if (ROOT / name).is_file():
        return True
    first, *rest = name.split(".")
    if re.fullmatch(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*", first):
        return first in classes() and all(one in classes()[first] for one in rest[:1])
    if called:
        return not span.endswith(")") or name.split(".")[-1] in functions()
    if rest and f"terrasieve.{first}" in modules() and first not in CONFIG:
        return rest[-1] in FILES or is_there(f"terrasieve.{name}")
    # Columns, settings and names of data sets are told apart from those of functions by nothing but their use.
    if rest or not re.fullmatch(r"[a-z]+_\w*|[A-Z_]{4,}", name):
        return True
    return name in identifiers()


def broken_commands(page: str, text: str) -> list[str]:
    """Commands, options and targets of make that are shown and do not exist."""
    broken = [line for line in (*spans(text), *shell_lines(text)) if not command_is_there(line)]
    named = [option for span in spans(text) if span.startswith("--") for option in options_in(span.split())]
    return broken + [option for option in named if option not in known_options()]


def command_is_there(line: str) -> bool:
    """Whether a line that calls terrasieve, a benchmark or make can be run; any other line can."""
    match line.split("#")[0].split():
        case ["terrasieve", *words]:
            return terrasieve_takes([word for word in words if word != "..."])
        case ["python", script, *words] if script.startswith("benchmarks/"):
            own = re.findall(r'"(--[\w-]+)"', (ROOT / script).read_text("utf-8")) if is_file(script) else []
            return is_file(script) and set(options_in(words)) <= {*own, "--help"}
        case ["make", target]:
            return f"\n{target}:" in (ROOT / "Makefile").read_text("utf-8")
    return True


def terrasieve_takes(words: list[str]) -> bool:
    command = command_line()
    while isinstance(command, TyperGroup) and words and re.match(r"[a-z]", words[0]):
        if words[0] not in command.commands:
            return False
        command, words = command.commands[words[0]], words[1:]
    # Whatever is submitted brings options of its own.
    others = command_line().commands if command.name == "submit" else {}
    submitted = [all_options(others[word]) for word in words[:1] if word in others]
    return set(options_in(words)) <= own_options(command).union(*submitted)


def options_in(words: list[str]) -> list[str]:
    return [found[0] for word in words if (found := re.match(r"--?[a-z][\w-]*", word.strip("[")))]


def own_options(command: Any) -> set[str]:
    return {"--help", "-h"} | {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def all_options(command: Any) -> set[str]:
    below = command.commands.values() if isinstance(command, TyperGroup) else ()
    return own_options(command).union(*(all_options(one) for one in below))


# ------------------------------------------------------------------- the tests


CHECKS: tuple[Callable[[str, str], list[str]], ...] = (broken_links, broken_paths, broken_names, broken_commands)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page: str, check: Callable[[str, str], list[str]]) -> None:
    assert check(page, PAGES[page]) == []


@pytest.mark.parametrize(
    ("check", "text", "named"),
    [
        (broken_links, "see [the page](docs/no-page.md)", "docs/no-page.md"),
        (broken_links, "see [below](README.md#no-heading)", "README.md#no-heading"),
        (broken_paths, "written by `models/no_file.py`", "models/no_file.py"),
        (broken_paths, "held by tests/models/test_no_file.py", "tests/models/test_no_file.py"),
        (broken_paths, "the room `no_room/`", "no_room/"),
        (broken_paths, "in `runs/first/no_file.json`", "runs/first/no_file.json"),
        (broken_names, "by `terrasieve.models.nothing`", "terrasieve.models.nothing"),
        (broken_names, "by terrasieve.models.teacher.Teacher.nothing", "terrasieve.models.teacher.Teacher.nothing"),
        (broken_names, "```python\nfrom terrasieve.runs import Nothing\n```\n", "terrasieve.runs.Nothing"),
        (broken_names, "a `NoClass` of ours", "NoClass"),
        (broken_names, "`RunFolder.nothing`", "RunFolder.nothing"),
        (broken_names, "`pretraining.nothing`", "pretraining.nothing"),
        (broken_names, "`no_function` or", "no_function"),
        (broken_names, "`no_function(x)` or", "no_function(x)"),
        (broken_commands, "```bash\nterrasieve pack x --nothing 3\n```\n", "terrasieve pack x --nothing 3"),
        (broken_commands, "```console\n$ terrasieve nothing\n0\n```\n", "terrasieve nothing"),
        (broken_commands, "`python benchmarks/kmeans.py --nothing`", "python benchmarks/kmeans.py --nothing"),
        (broken_commands, "`make nothing`", "make nothing"),
        (broken_commands, "with `--nothing`", "--nothing"),
    ],
)
def test_what_does_not_exist_is_found(check: Callable[[str, str], list[str]], text: str, named: str) -> None:
    assert set(check("CONTRIBUTING.md", text)) == {named}


def test_examples_of_commands_can_be_run() -> None:
    texts = [path.read_text("utf-8") for path in (PACKAGE / "cli").glob("*.py")]
    examples = [line for text in texts for line in shell_lines(text)]
    assert len(examples) > 20
    assert [line for line in examples if not command_is_there(line)] == []


def refusal(line: str) -> str | None:
    """What the command line's own parser says against a line of a page, values and number of arguments included."""
    command = command_line()
    words = shlex.split(line, comments=True)[1:]
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        command, words = command.commands[words[0]], words[1:]
    try:
        with command.make_context("terrasieve", words):
            return None
    except Exception as error:
        if hasattr(error, "format_message"):
            return str(error.format_message())
        raise


def whole_lines() -> list[str]:
    """Lines of pages that a shell could be given as they are: no pipe, no list, no omission."""
    lines = [line for text in PAGES.values() for line in shell_lines(text)]
    return [
        line
        for line in lines
        if re.match(r"terrasieve [a-z]", line) and not re.search(r"[|;&<>]|\.\.\.|\[|--help|[A-Z]{3,} ", line)
    ]


def test_the_command_line_takes_every_line_that_a_page_shows() -> None:
    lines = whole_lines()
    assert len(lines) > 100
    refused = {line: why for line in lines if (why := refusal(line)) and "does not exist" not in why}
    assert refused == {}
    trained = [line.split()[2] for line in lines if re.match(r"terrasieve pretrain \w", line)]
    assert [name for name in trained if "." not in name and "/" not in name and name not in recipe_names()] == []


@pytest.mark.parametrize("line", ["terrasieve pack", "terrasieve demo --seed x", "terrasieve demo --method none"])
def test_a_line_that_the_command_line_refuses_is_found(line: str) -> None:
    assert refusal(line)


def test_code_refers_to_code_that_exists() -> None:
    named = set(re.findall(r":\w+:`~?(terrasieve[\w.]+)`", sources()))
    assert len(named) > 20
    assert [name for name in sorted(named) if not is_there(name)] == []
