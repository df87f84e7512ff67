"""What is published: the wheel holds the package and nothing else, and its page on an index has no broken link."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import yaml

import terrasieve

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py"):
        shutil.copy(ROOT / name, folder / name)
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(folder / "dist")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-2000:]
    return zipfile.ZipFile(next((folder / "dist").glob("*.whl")))


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_package_and_no_other(wheel: zipfile.ZipFile) -> None:
    package = ROOT / "src" / "terrasieve"
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    own = {path.relative_to(package.parent).as_posix() for path in files}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == own
    assert {"terrasieve/py.typed", "terrasieve/recipes/rs-byol-1.yaml"} < held


@pytest.mark.slow
def test_the_page_on_an_index_has_no_relative_link(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
    page = Parser().parsestr(wheel.read(name).decode("utf-8"))
    text = page.get_payload()
    assert isinstance(text, str)
    assert page["Description-Content-Type"].startswith("text/markdown")
    assert text.startswith("# terrasieve")
    assert [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https://")] == []


def test_what_is_cited_is_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert (cited["version"], cited["license"]) == (terrasieve.__version__, "Apache-2.0")
    assert {one["year"] for one in cited["references"]} == {2022, 2025}


def test_forms_for_issues_ask_each_question_once() -> None:
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
    assert len(forms) == 2
    for path in forms:
        form = yaml.safe_load(path.read_text("utf-8"))
        assert {"name", "description", "body"} <= set(form)
        names = [field["id"] for field in form["body"]]
        assert len(names) == len(set(names)) > 0
        assert all(field["attributes"]["label"] for field in form["body"])


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        (None, "the log, [this](https://a.b) and [below](#end)."),
        (
            "https://a.b/c",
            "[the log](https://a.b/c/blob/main/docs/log.md#x), [this](https://a.b) and [below](#end).",
        ),
        ("https://a.b/c/", "![x](https://a.b/c/raw/main/docs/x.png)"),
    ],
)
def test_links_lead_to_the_stated_repository_or_away(repository: str | None, expected: str) -> None:
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    given = "[the log](docs/log.md#x), [this](https://a.b) and [below](#end)."
    assert module.readme("![x](docs/x.png)" if "raw" in expected else given, repository) == expected
