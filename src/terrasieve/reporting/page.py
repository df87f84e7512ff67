"""One self-contained HTML page about one run or several."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

import terrasieve
from terrasieve.files.writing import write_text
from terrasieve.reporting.answer import Answer, answer
from terrasieve.reporting.cautions import Caution, cautions
from terrasieve.reporting.charts import Chart
from terrasieve.reporting.run import Run, read_runs
from terrasieve.reporting.sections.comparison import comparison, tested
from terrasieve.reporting.sections.curation import curation
from terrasieve.reporting.sections.explained import bands, neighbours, projection, saliency
from terrasieve.reporting.sections.places import places
from terrasieve.reporting.sections.ran import ran
from terrasieve.reporting.sections.scores import scores
from terrasieve.reporting.sections.shown import shown
from terrasieve.reporting.sections.training import training
from terrasieve.reporting.wording import day, listed
from terrasieve.tables import break_after_joints


@dataclass(frozen=True)
class Section:
    """A part of the page about one run.

    Attributes:
        name: End of its anchor, and the name of its template in ``templates/sections``.
        title: Heading of the section.
        build: Makes what the template shows of a run, given a prefix for its ids; None where the run has nothing of it.
    """

    name: str
    title: str
    build: Callable[[str, Run], object | None]


SECTIONS = (
    Section("scores", "Scores", scores),
    Section("tested", "Comparisons", tested),
    Section("shown", "Data and views", shown),
    Section("training", "Training", training),
    Section("curation", "Curation", curation),
    Section("places", "Map", places),
    Section("scatter", "Projection", projection),
    Section("saliency", "Saliency", saliency),
    Section("neighbours", "Neighbours", neighbours),
    Section("bands", "Bands", bands),
    Section("ran", "What ran", ran),
)
"""Every section, in the order of the page."""


@dataclass(frozen=True)
class Part:
    """Everything that the page says about one run.

    Attributes:
        key: Prefix of the ids in this part, unique on the page.
        name: Name of the run.
        kind: The encoder in a few words; empty where no file says.
        dates: When the run was trained, probed and explained, in words.
        answer: What the run learned, and whether it is better than its floors, in sentences.
        cautions: What must be known before a number is believed, the most serious first.
        sections: Each section that there is, with what its template shows.
    """

    key: str
    name: str
    kind: str
    dates: str
    answer: Answer
    cautions: tuple[Caution, ...]
    sections: tuple[tuple[Section, object], ...]


def write_report(runs: Sequence[Path], out: Path) -> Path:
    """Write what run folders hold as one HTML file that needs no other file and no network.

    Any part of a run may be missing. The page appears under its name only when it is whole.

    Args:
        runs: Folders as ``terrasieve pretrain``, ``probe`` or ``bench`` writes them; several are compared.
        out: The HTML file to write; its folder is made.

    Raises:
        ArchiveError: A folder holds nothing of a run, or a file in it is damaged.
        CheckpointError: An encoder's card is damaged.
        WriteError: The system refused the page; one that was there is untouched.
    """
    read = read_runs(runs)
    return write_text(out, render_page([_part(f"run-{number}", run) for number, run in enumerate(read, 1)], read))


def render_page(parts: Sequence[Part], runs: Sequence[Run]) -> str:
    """The page as HTML."""
    compared = comparison(runs)
    charts = [*charts_in(compared), *charts_in(tuple(parts))]
    script = _asset("page.js")
    plotly = get_plotlyjs().replace("\r\n", "\n") if charts else ""
    environment = Environment(loader=PackageLoader("terrasieve.reporting"), autoescape=True, undefined=StrictUndefined)
    environment.filters["breakable"] = lambda text: Markup(break_after_joints(text))  # noqa: S704 - escaped by it
    environment.filters["table"] = lambda table: Markup(table.to_html())  # noqa: S704 - escaped by it
    return environment.get_template("page.html.j2").render(
        title=parts[0].name if len(parts) == 1 else f"{len(parts)} runs: {listed([part.name for part in parts])}",
        parts=parts,
        comparison=compared,
        figures={chart.id: chart.figure | {"alt": chart.alt, "width": chart.width} for chart in charts},
        samples={chart.id: chart.samples for chart in charts if chart.samples},
        policy=_policy([plotly, script]),
        css=_ours(_asset("page.css")),
        dark=_ours(_asset("dark.css")),
        script=_ours(script),
        plotly=_ours(plotly),
        version=terrasieve.__version__,
        today=day(datetime.now(UTC).timestamp()),
    )


def charts_in(value: Any) -> Iterator[Chart]:
    """Every chart in a section, however deep."""
    if isinstance(value, Chart):
        yield value
    elif is_dataclass(value):
        for one in fields(value):
            yield from charts_in(getattr(value, one.name))
    elif isinstance(value, tuple):
        for one in value:
            yield from charts_in(one)


def _part(key: str, run: Run) -> Part:
    built = ((section, section.build(key, run)) for section in SECTIONS)
    return Part(
        key=key,
        name=run.name,
        kind=_kind(run),
        dates=_dates(run),
        answer=answer(run, key),
        cautions=cautions(run),
        sections=tuple((section, content) for section, content in built if content is not None),
    )


def _kind(run: Run) -> str:
    """The encoder in a few words."""
    said = [run.model] if run.model != run.name else []
    if run.card:
        channels = run.card.backbone.channels
        said += [run.card.method, f"{run.card.backbone.name}, {channels} channel{'s' if channels > 1 else ''}"]
    return " · ".join(said)


def _dates(run: Run) -> str:
    """When the run's files were written."""
    done = {run.at.log: "trained", run.at.probe: "probed", run.at.explanation: "explained"}
    days: dict[str, list[str]] = {}
    for path in run.files:
        days.setdefault(day(path.stat().st_mtime), []).extend([done[path]] if path in done else [])
    told = [f"{listed(what)} {when}" for when, what in days.items() if what]
    return " · ".join(told) or f"written {max(days)}"


def _asset(name: str) -> str:
    return (resources.files("terrasieve.reporting") / "templates" / name).read_text(encoding="utf-8")


def _ours(text: str) -> Markup:
    return Markup(text)  # noqa: S704 - a file of this package or of Plotly's, which holds no user's text


def _policy(scripts: Sequence[str]) -> str:
    """Content security policy: no network, and no script but these, so that text that slipped in stays inert."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts if script)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
