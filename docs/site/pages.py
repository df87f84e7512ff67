"""Pages of the site that are no files of docs/: notebooks with their outputs, the reference, and what lies at the root.

Pages of docs/ are written to be read on a code host too, and link to files outside docs/. Here such a link leads to a
page of the site that shows the file.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

LOG = logging.getLogger("mkdocs.hooks.pages")
ROOT = Path(__file__).resolve().parents[2]
EXECUTED = ROOT / "build" / "notebooks"
"""Where `make docs` runs the notebooks."""
AT_THE_ROOT = {
    "README.md": "project/readme.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
    "SECURITY.md": "project/security.md",
}
"""Page of the site by the file at the root that it shows."""
RECORDS = ("log.md", "project/changelog.md")
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=(?:#[^)\s]*)?\))")
"""The target of a link or picture, up to its anchor; addresses on the net, which have a colon, are none of ours."""
FENCE = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".cff": "yaml"}
NOISE = re.compile(r"ipywidgets|^\s*$")
"""What a notebook prints where progress bars cannot be drawn."""


# -------------------------------------------------------------------- links


def shown_at(target: str) -> str:
    """Path in the site's sources of what shows a file or folder of the checkout, both from their roots."""
    if target in AT_THE_ROOT:
        return AT_THE_ROOT[target]
    if target == "docs/notebooks":
        return "notebooks/first-model.md"
    if (ROOT / target).is_dir():
        target = f"{target}/README.md"
    if target.startswith("docs/"):
        return re.sub(r"\.ipynb$", ".md", target.removeprefix("docs/"))
    return f"files/{target}.md"


def kept_at(page: str) -> str:
    """The file of the checkout that a page of the site shows."""
    return next((file for file, shown in AT_THE_ROOT.items() if shown == page), f"docs/{page}")


def targets(page: str, text: str) -> Iterator[str]:
    """Files and folders of the checkout to which a page's links lead."""
    for link in LINK.findall(FENCE.sub("", text)):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(kept_at(page)), link))


def relinked(page: str, text: str) -> str:
    """The text with links to other pages of the site; one that leads nowhere stays as it is, and fails the build."""

    def there(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(kept_at(page)), link[1]))
        if not (ROOT / target).exists():
            return link[1]
        return posixpath.relpath(shown_at(target), posixpath.dirname(page) or ".")

    parts = FENCE.split(text)
    return "".join(part if index % 2 else LINK.sub(there, part) for index, part in enumerate(parts))


# -------------------------------------------------------------------- pages


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its cells, and what they showed when it was run."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if is_shown(output)]
        for output in cell.outputs:
            if image := output.get("data", {}).pop("image/png", None):
                described = output.data.get("text/plain", "").strip("<>")
                output.data["text/html"] = f'<img alt="{described}" src="data:image/png;base64,{image.strip()}">'
            if html := output.get("data", {}).get("text/html"):
                output.data["text/html"] = f'\n<div class="output">{html}</div>\n'
    return str(MarkdownExporter().from_notebook_node(notebook)[0])


def is_shown(output: nbformat.NotebookNode) -> bool:
    """Whether an output is of the notebook, and not of a progress bar that has nowhere to move."""
    if output.output_type == "stream":
        return bool(output.name != "stderr")
    return output.output_type != "display_data" or not NOISE.search(output.data.get("text/plain", "-"))


def reference_page(title: str, about: str, shows: list[str]) -> str:
    """A page of the reference, which mkdocstrings fills in from docstrings."""
    return "\n\n".join([f"# {title}", about, *(f"::: {name}" for name in shows)]) + "\n"


def file_page(name: str) -> str:
    """A page that shows a file of the checkout as it is."""
    text = (ROOT / name).read_text(encoding="utf-8")
    head = "---\nsearch: {exclude: true}\n---\n\n"
    return f"{head}# {name}\n\n`````{LANGUAGES.get(Path(name).suffix, 'text')}\n{text}\n`````\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of docs/, and last those of files to which any page links."""
    made = {shown: (ROOT / file).read_text(encoding="utf-8") for file, shown in AT_THE_ROOT.items()}
    reference = yaml.safe_load((ROOT / "docs" / "site" / "reference.yaml").read_text(encoding="utf-8"))
    made |= {f"reference/{name}.md": reference_page(**page) for name, page in reference.items()}
    for source in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        executed = EXECUTED / source.name
        if not executed.is_file():
            LOG.warning("%s was not run, so that its outputs are missing: build with `make docs`", source.name)
        made[f"notebooks/{source.stem}.md"] = notebook_page(executed if executed.is_file() else source)
    texts = {file.src_uri: file.content_string for file in files.documentation_pages()} | made
    linked = {target for page, text in texts.items() for target in targets(page, text)}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    for target in sorted(linked):
        if shown_at(target).startswith("files/") and (ROOT / target).is_file():
            page = File.generated(config, shown_at(target), content=file_page(target))
            page.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page to pages of the site, and have the search find what is current before what happened."""
    if page.file.src_uri in RECORDS:
        page.meta["search"] = {"boost": 0.2}
    return markdown if page.file.src_uri.startswith(("files/", "reference/")) else relinked(page.file.src_uri, markdown)
