"""The page in a real browser: nothing is asked of any network, nothing fails, and every control does its work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import made_runs as made
from terrasieve.reporting.page import write_report

pytestmark = pytest.mark.slow

WIDER_THAN_ITS_PLACE = """() => [...document.querySelectorAll('.plot')]
  .filter((plot) => plot.checkVisibility() && plot.scrollWidth > plot.parentElement.clientWidth + 1)
  .map((plot) => `${plot.id}: ${plot.scrollWidth} of ${plot.parentElement.clientWidth}`)"""

# Reading four megabytes of script is what takes time: each page is opened once, and a test leaves it as it was.


@pytest.fixture(scope="module")
def desk(visit: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One run on a screen of 1280 pixels."""
    folder = tmp_path_factory.mktemp("desk")
    return visit(write_report([made.write_run(folder / "first")], folder / "one.html").as_uri(), 1280)


@pytest.fixture(scope="module")
def phone(visit: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two runs on a screen of 390 pixels."""
    folder = tmp_path_factory.mktemp("phone")
    runs = [made.write_run(folder / "first"), made.write_run(folder / "second", 0.7)]
    return visit(write_report(runs, folder / "two.html").as_uri(), 390, 844)


def draw_everything(page: Any) -> None:
    """Bring every chart that can be seen into view, and wait until it is drawn."""
    open_details(page, True)
    plots = page.locator(".plot:visible")
    for position in range(plots.count()):
        plots.nth(position).scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.plot')].every((p) => !p.checkVisibility() || p.dataset.drawn)"
    )
    open_details(page, False)


def open_details(page: Any, wanted: bool) -> None:
    page.evaluate("(wanted) => document.querySelectorAll('details').forEach((one) => { one.open = wanted; })", wanted)


def colour(page: Any) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def line_colour(page: Any) -> str:
    plot = "#run-1-training .plot .scatterlayer path.js-line"
    return str(page.evaluate(f"getComputedStyle(document.querySelector('{plot}')).stroke"))


@pytest.mark.parametrize(("screen", "widths"), [("desk", (1280, 800, 390)), ("phone", (390,))])
def test_nothing_fails_nothing_is_fetched_and_nothing_is_wider_than_the_screen(
    request: pytest.FixtureRequest, screen: str, widths: tuple[int, ...]
) -> None:
    page, troubles, requests = request.getfixturevalue(screen)
    opened = dict(page.viewport_size)
    backgrounds = set()
    # One page on a screen of each width in turn, since its charts follow the width.
    for width in widths:
        page.set_viewport_size({"width": width, "height": opened["height"]})
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            draw_everything(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, scheme)
            assert page.evaluate(WIDER_THAN_ITS_PLACE) == [], (width, scheme)
            assert page.locator(".plot:visible .main-svg").count() > 0
            backgrounds.add((scheme, colour(page)))
    page.set_viewport_size(opened)
    draw_everything(page)
    assert len(backgrounds) == 2, "a scheme has one background at every width"
    assert troubles == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_rows_own_numbers_are_on_the_page(desk: Any) -> None:
    page, _, _ = desk
    text = page.inner_text("body")
    for row in made.comparison_rows():
        low, high = row.ci95["accuracy"]
        assert f"{100 * row.metrics['accuracy']:.1f}" in text
        assert f"{100 * low:.1f}\u2013{100 * high:.1f}" in text
    assert "4 min 10 s" in text
    assert "No attention maps: resnet18 has no attention." in text


def test_links_theme_details_choices_and_filters_work(desk: Any) -> None:
    page, troubles, _ = desk
    for link in page.locator(".links a").all():
        # By the keyboard: the strip of links moves with what is in sight, maybe from under the pointer.
        link.press("Enter")
        target = link.get_attribute("href")
        page.wait_for_function(
            f"() => location.hash === '{target}'"
            f" && Math.abs(document.querySelector('{target}').getBoundingClientRect().top) < innerHeight"
        )
    draw_everything(page)

    light, light_line = colour(page), line_colour(page)
    page.locator(".toggle").click()
    assert colour(page) != light
    page.wait_for_function(
        f"() => getComputedStyle(document.querySelector('#run-1-training path.js-line')).stroke !== '{light_line}'"
    )
    page.locator(".toggle").click()
    assert colour(page) == light

    details = page.locator("details", has_text="Resolved configuration")
    assert not details.locator("pre").is_visible()
    details.locator("summary").click()
    assert "collapse_std: 0.02" in details.locator("pre").inner_text()

    page.locator("#run-1-confusion-pick").select_option("run-1-confusion-0-0")
    assert page.locator("#run-1-confusion .plot").get_attribute("data-drawn") == "run-1-confusion-0-0"
    assert "on s2:B04:" in str(page.locator("#run-1-confusion .plot").get_attribute("aria-label"))

    strips = page.locator("#run-1-saliency .strip:visible")
    assert strips.count() == 0
    page.locator("#run-1-saliency summary").click()
    assert strips.count() == 3
    page.locator("#run-1-saliency [data-filter]").select_option(label="River")
    assert strips.count() == 1
    assert "true River" in strips.inner_text()
    assert page.locator("#run-1-saliency [data-count]").inner_text() == "1 of 3"
    assert troubles == []


def test_pointing_at_a_sample_shows_it(desk: Any) -> None:
    page, troubles, _ = desk
    page.locator("#run-1-scatter").scroll_into_view_if_needed()
    points = page.locator("#run-1-scatter .point")
    points.first.wait_for()
    box = page.locator("#run-1-scatter .trace").nth(1).locator(".point").nth(3).bounding_box()
    panel = page.locator("#run-1-scatter .peek")
    assert not panel.is_visible()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    panel.wait_for()
    # Classes take turns, so the fourth sample of the second class is the eleventh of all.
    sample = made.explanation().projection.points[10].sample
    assert panel.locator("span").inner_text() == sample.id
    assert panel.locator("b").inner_text() == sample.label
    assert panel.locator("img").get_attribute("src") == sample.picture
    page.mouse.move(2, 2, steps=4)
    panel.wait_for(state="hidden")

    traces = page.locator("#run-1-scatter .scatterlayer .trace")
    before = traces.count()
    page.locator("#run-1-scatter .legendtoggle").first.click()
    page.wait_for_function(
        f"() => document.querySelectorAll('#run-1-scatter .scatterlayer .trace').length === {before - 1}"
    )
    assert troubles == []


def test_tabs_show_one_run_at_a_time(phone: Any) -> None:
    page, troubles, _ = phone
    page.get_by_role("tab", name="first").click()
    assert page.locator("#run-1").is_visible()
    assert not page.locator("#run-2").is_visible()
    page.get_by_role("tab", name="second").click()
    assert not page.locator("#run-1").is_visible()
    # Charts are drawn when they come near the screen.
    page.locator("#run-2-scores .plot").first.scroll_into_view_if_needed()
    page.locator("#run-2-scores .plot[data-drawn]").first.wait_for()
    # The address changes before the page is told so, and opens what it names.
    page.evaluate("() => { window.told = new Promise((done) => addEventListener('hashchange', done, { once: true })) }")
    page.locator(".links:visible a", has_text="Training").click()
    page.evaluate("async () => { await window.told }")
    assert page.evaluate("location.hash") == "#run-2-training"
    page.get_by_role("tab", name="second").press("ArrowLeft")
    assert page.locator("#run-1").is_visible()
    page.evaluate("location.hash = '#run-2-bands'")
    page.locator("#run-2-bands").wait_for()
    assert troubles == []


def test_no_column_is_cut_off_on_a_phone_and_what_scrolls_says_so(phone: Any) -> None:
    page, troubles, _ = phone
    page.get_by_role("tab", name="first").click()
    draw_everything(page)
    open_details(page, True)
    cut = "[...document.querySelectorAll('table')].filter((t) => t.checkVisibility() && (t.scrollWidth > t.clientWidth"
    cut += " || t.getBoundingClientRect().right > innerWidth)).map((t) => t.caption.textContent)"
    assert page.locator("table:visible").count() > 5
    assert page.evaluate(cut) == []
    # Each cell of a card stands beneath its heading.
    card = page.locator("#run-1-curation .stack td").nth(1)
    assert card.evaluate("(cell) => getComputedStyle(cell, '::before').content") == '"pool"'

    matrix = page.locator("#run-1-bands .scroll")
    cue = page.locator("#run-1-bands .cue")
    fits = "(box) => box.scrollWidth <= box.clientWidth + 1"
    assert matrix.evaluate(fits) == cue.is_hidden()
    links = page.locator(".links:visible")
    assert "rest-right" in str(links.get_attribute("class"))
    links.evaluate("(box) => { box.scrollLeft = box.scrollWidth; }")
    page.wait_for_function(
        "() => { const found = [...document.querySelectorAll('.links')].find((one) => one.checkVisibility());"
        " return found.matches('.rest-left:not(.rest-right)'); }"
    )
    open_details(page, False)
    assert troubles == []


def test_paper_is_light_and_shows_everything(phone: Any) -> None:
    page, troubles, _ = phone
    page.get_by_role("tab", name="first").click()
    page.locator(".toggle").click()
    dark = colour(page)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert colour(page) == "rgb(255, 255, 255)"
    assert page.locator("#run-2").is_visible()
    assert not page.locator(".bar").is_visible()
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)")
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert colour(page) == dark
    assert page.locator("details[open]").count() == 0
    assert not page.locator("#run-2").is_visible()
    assert troubles == []
