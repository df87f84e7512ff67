"""The page as a file: whole whatever is missing, and inert whatever names and labels hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import made_runs as made
from terrasieve.errors import ArchiveError, TerrasieveError, WriteError
from terrasieve.probes.row_tables import write_json
from terrasieve.reporting.page import write_report

HOSTILE = "</script><img src=x onerror=alert(1)>"


class Outline(HTMLParser):
    """Elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._inert = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in {"script", "style"}:
            self._inert = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inert:
            self._inert = ""

    def handle_data(self, data: str) -> None:
        if not self._inert:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]


def page_of(*folders: Path) -> Outline:
    return Outline(write_report(folders, folders[0].parent / "out" / "report.html").read_text(encoding="utf-8"))


def stored(page: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


SECTIONS = ("scores", "tested", "training", "curation", "places", "scatter", "saliency", "neighbours", "bands", "ran")


def test_a_whole_run_has_every_section_and_a_link_to_each(whole_run: Path) -> None:
    page = page_of(whole_run)
    for name in SECTIONS:
        assert f"run-1-{name}" in page.ids()
        assert ("a", {"href": f"#run-1-{name}"}) in page.elements
    assert len(page.ids()) == len(set(page.ids()))


def log_only(folder: Path) -> None:
    made.write_log(folder, made.log_rows())


def probe_only(folder: Path) -> None:
    write_json(made.comparison_rows(), folder / "probe.json")


def config_only(folder: Path) -> None:
    (folder / "config.yaml").write_text("name: x", encoding="utf-8")


def card_only(folder: Path) -> None:
    made.write_encoder(folder, made.encoder_card())


def round_only(folder: Path) -> None:
    made.write_round(folder, 1, ["a"])


def map_only(folder: Path) -> None:
    made.write_embeddings(folder, ["a", "b"])


def explanation_only(folder: Path) -> None:
    made.write_explanation(made.explanation(saliency=None, bands=None), folder)


@pytest.mark.parametrize(
    ("part", "sections"),
    [
        (log_only, {"training"}),
        (probe_only, {"scores"}),
        (config_only, set()),
        (card_only, set()),
        (round_only, {"curation"}),
        (map_only, {"places"}),
        (explanation_only, {"scatter", "neighbours"}),
    ],
)
def test_one_part_alone_makes_a_page(tmp_path: Path, part: Callable[[Path], None], sections: set[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    part(folder)
    ids = set(page_of(folder).ids())
    assert {name for name in SECTIONS if f"run-1-{name}" in ids} == {*sections, "ran"}


def test_an_empty_folder_is_an_error_that_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"config\.yaml, log\.csv, encoder/encoder\.json, probe\.json"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(ArchiveError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("probe.json", "[{"),
        ("explanation.json", "{}"),
        ("config.yaml", "a: [1"),
        ("config.yaml", "- 1"),
        ("log.csv", "step,loss\n1,oops\n"),
        ("embeddings.parquet", "PAR"),
        ("probe-predictions.parquet", "PAR"),
        ("curation/round-00001.json", "[]"),
        ("encoder/encoder.json", "{}"),
        ("comparisons.json", "[{}]"),
    ],
)
def test_a_damaged_file_is_named_and_the_old_page_stays(whole_run: Path, name: str, content: str) -> None:
    out = whole_run / "report.html"
    out.write_text("old", encoding="utf-8")
    (whole_run / name).write_text(content, encoding="utf-8")
    with pytest.raises(TerrasieveError, match=re.escape(name)):
        write_report([whole_run], out)
    assert out.read_text(encoding="utf-8") == "old"
    assert not list(whole_run.glob(".*"))


def test_a_page_that_cannot_be_written_is_an_error(whole_run: Path) -> None:
    (whole_run / "file").write_text("", encoding="utf-8")
    with pytest.raises(WriteError, match="Cannot write"):
        write_report([whole_run], whole_run / "file" / "report.html")


def test_a_page_that_is_not_whole_does_not_take_the_place_of_another(
    whole_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        assert target.read_text(encoding="utf-8") == "old"
        raise OSError("disk full")

    out = whole_run / "report.html"
    out.write_text("old", encoding="utf-8")
    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(WriteError, match="disk full"):
        write_report([whole_run], out)
    assert out.read_text(encoding="utf-8") == "old"
    assert not list(whole_run.glob(".*"))


@pytest.fixture
def hostile_page(tmp_path: Path) -> str:
    """A page of a run in which every text that a file may hold is an attack."""
    folder = tmp_path / "run"
    folder.mkdir()
    rows = made.comparison_rows(
        data=HOSTILE, protocol=HOSTILE, note=HOSTILE, probe=HOSTILE, classes=(HOSTILE, "River", "SeaLake")
    )
    write_json(
        [row.model_copy(update={"model": HOSTILE + row.model, "inputs": HOSTILE}) for row in rows],
        folder / "probe.json",
    )
    thumbs = [made.thumbnail(i, label=HOSTILE, name=HOSTILE) for i in range(3)]
    found = made.explanation(model=HOSTILE, data=HOSTILE, notes=(HOSTILE,))
    points = tuple(made.Point(x=i, y=i, sample=thumb) for i, thumb in enumerate(thumbs))
    item = found.saliency.items[0].model_copy(update={"sample": thumbs[0], "predicted": HOSTILE})
    query = made.Query(sample=thumbs[0], neighbours=(made.Neighbour(sample=thumbs[1], similarity=0.5),))
    changed = {
        "projection": made.Projection(method=HOSTILE, inputs=HOSTILE, points=points),
        "saliency": made.SaliencyGallery(method=HOSTILE, inputs=HOSTILE, items=(item,)),
        "neighbours": made.NeighbourGallery(method=HOSTILE, inputs=HOSTILE, queries=(query,)),
        "bands": found.bands.model_copy(update={"classes": (HOSTILE, "b", "c"), "meaning": HOSTILE, "method": HOSTILE}),
    }
    made.write_explanation(found.model_copy(update=changed), folder)
    made.write_embeddings(folder, [HOSTILE, "b"])
    made.write_encoder(folder, made.encoder_card(hardware=HOSTILE))
    (folder / "config.yaml").write_text(json.dumps({"name": HOSTILE}), encoding="utf-8")
    return write_report([folder], folder / "report.html").read_text(encoding="utf-8")


def test_hostile_text_stays_text(hostile_page: str) -> None:
    page = Outline(hostile_page)
    assert not [one for one in page.elements if one[1].get("src") == "x" or "onerror" in one[1]]
    # One closing tag per script of ours: data, samples, Plotly and the page's own.
    assert hostile_page.count("</script>") == 4
    assert page.words.count(HOSTILE) > 15


def test_plotly_gets_no_markup_from_labels(hostile_page: str) -> None:
    figures = json.dumps(stored(hostile_page, "figures"))
    drawn = json.loads(figures)
    for figure in drawn.values():
        figure.pop("alt")
    assert "onerror" in json.dumps(drawn)
    assert "<img" not in json.dumps(drawn)


def test_the_policy_forbids_the_network_and_admits_our_scripts_alone(whole_run: Path) -> None:
    page = page_of(whole_run)
    policy = next(str(a["content"]) for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert not [
        a for t, a in page.elements if t in {"link", "iframe", "object"} or str(a.get("src", "data:"))[:5] != "data:"
    ]


def test_pictures_have_texts_and_headings_do_not_skip_a_level(whole_run: Path) -> None:
    page = page_of(whole_run)
    assert all("alt" in attributes for tag, attributes in page.elements if tag == "img")
    assert all(a.get("aria-label") for _, a in page.elements if a.get("role") == "img")
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_a_page_without_charts_carries_no_plotly(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: x", encoding="utf-8")
    assert write_report([tmp_path], tmp_path / "report.html").stat().st_size < 60_000


def test_several_runs_have_their_own_ids_and_a_tab_each(tmp_path: Path) -> None:
    page = page_of(*(made.write_run(tmp_path / name) for name in ("a", "b")))
    assert {"run-1-scores", "run-2-scores", "comparison"} <= set(page.ids())
    assert len(page.ids()) == len(set(page.ids()))
    tabs = [attributes for _, attributes in page.elements if attributes.get("role") == "tab"]
    assert [tab["aria-controls"] for tab in tabs] == ["run-1", "run-2"]
