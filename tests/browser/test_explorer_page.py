"""The explorer in a real browser: nothing is asked of any network, and one selection is seen everywhere."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from PIL import Image

from small_encoders import embedded_pictures
from terrasieve.archive.in_memory import ArrayArchive
from terrasieve.archive.protocol import Archive
from terrasieve.archive.selection import read_selection
from terrasieve.embeddings import EmbeddingTable, EncoderInput
from terrasieve.embeddings.query import QueryEncoder
from terrasieve.explorer.explored import Explored, Round, rows_named
from terrasieve.explorer.explorer_page import write_explorer
from terrasieve.explorer.server import MOST_BYTES, Explorer
from terrasieve.sensors import SENSORS

pytestmark = pytest.mark.slow

COUNT, UNPLACED = 60, 7
HOSTILE = '</script><img src="x" onerror="document.title=1">'
"""What a label, or an id, of somebody else's archive may be."""


@pytest.fixture(scope="module")
def subject() -> Explored:
    """Three groups far apart in the plane, of which each lies in a place of its own; one sample has no place."""
    rng = np.random.default_rng(0)
    group = np.arange(COUNT) % 3
    vectors = (np.eye(3)[group] @ rng.normal(size=(3, 16)) * 4 + rng.normal(size=(COUNT, 16)) * 0.3).astype(np.float32)
    ids = np.array([f"tile-{row:03d}" if row != 1 else f"{HOSTILE}-001" for row in range(COUNT)])
    corners = np.stack([20 * group + rng.uniform(0, 15, COUNT), 10 * group + rng.uniform(0, 8, COUNT)], axis=1)
    outlines = [shapely.to_wkb(shapely.box(x, y, x + 0.1, y + 0.1)) for x, y in corners]
    start = datetime(2020, 1, 1, tzinfo=UTC)
    columns = pa.table(
        {
            "geometry": pa.array([None if row == UNPLACED else one for row, one in enumerate(outlines)], pa.binary()),
            "time": pa.array([start + timedelta(days=row) for row in range(COUNT)], pa.timestamp("us", "UTC")),
            "label": pa.array([["wood", HOSTILE, None][one] for one in group], pa.string()),
        }
    )
    table = EmbeddingTable(ids, vectors[:, None], (EncoderInput.parse("s2:B04"),), columns, {})
    return Explored("made", table, (Round(1, group == 0), Round(2, group == 1)))


@pytest.fixture(scope="module")
def archive(subject: Explored) -> Archive:
    """Pixels by which the sample at a position can be told: each is of one brightness."""
    levels = np.arange(COUNT, dtype=np.uint16)[::-1, None, None, None] * 10 + 100
    pixels = np.broadcast_to(levels, (COUNT, 1, 8, 8)).copy()
    return ArrayArchive({"s2": pixels}, {"s2": SENSORS["s2-l2a"].select("B04")}, subject.table.ids[::-1])


@pytest.fixture(scope="module")
def page_file(subject: Explored, archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_explorer(tmp_path_factory.mktemp("explorer") / "page", subject, archive, clusters=3)


@pytest.fixture(scope="module")
def desk(visit: Callable[..., Any], page_file: Path) -> Any:
    return visit(page_file.as_uri())


@pytest.fixture
def page(desk: Any) -> Iterator[Any]:
    """The page on a desk as it was when it was opened."""
    desk.page.locator("#clear").click()
    if desk.page.locator("#box").get_attribute("aria-pressed") == "true":
        desk.page.locator("#box").click()
    yield desk.page
    assert desk.troubles == []


def selected(page: Any) -> list[int]:
    return page.evaluate("[...TERRASIEVE.state.selected.keys()].filter((row) => TERRASIEVE.state.selected[row])")


def on_screen(page: Any, panel: str, rows: list[int]) -> np.ndarray:
    """Where samples are drawn, in pixels of the page."""
    script = """([panel, rows]) => {
        const { rows: order, positions, deck } = panels[panel], view = deck.getViewports()[0];
        const at = (row) => 2 * order.indexOf(row);
        return rows.map((row) => view.project([positions[at(row)], positions[at(row) + 1]]).slice(0, 2));
    }"""
    box = page.locator(f"#{panel}").bounding_box()
    return np.array(page.evaluate(script, [panel, rows])) + np.array([box["x"], box["y"]])


def drag_around(page: Any, places: np.ndarray) -> None:
    (left, top), (right, bottom) = places.min(axis=0) - 6, places.max(axis=0) + 6
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(right, bottom, steps=4)
    page.mouse.up()


def brightness(page: Any, panel: str, places: np.ndarray) -> np.ndarray:
    """Mean difference from the panel's background of what is drawn at each of some places, of 255."""
    image = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), dtype=np.float64)
    box = page.locator(f"#{panel}").bounding_box()
    background = image[int(box["y"]) + 40, int(box["x"]) + 6]
    found = [image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] for x, y in places]
    return np.abs(np.array(found) - background).mean(axis=(1, 2, 3))


def are_seen(page: Any, panel: str) -> bool:
    return bool(brightness(page, panel, on_screen(page, panel, [0, 3, 4])).min() > 20)


def comes_true(page: Any, check: Callable[[], bool]) -> bool:
    """Whether a check holds at last: frames come late where the machine has other things to do."""
    for _ in range(60):
        if check():
            return True
        page.wait_for_timeout(250)
    return False


@pytest.mark.parametrize("width", [1400, 800, 390])
def test_nothing_fails_nothing_is_fetched_and_everything_fits(
    width: int, visit: Callable[..., Any], page_file: Path, request: pytest.FixtureRequest
) -> None:
    is_desk = width == 1400
    page, troubles, requests = request.getfixturevalue("desk") if is_desk else visit(page_file.as_uri(), width)
    assert page.inner_text("#status") == "60 samples"
    page.wait_for_function("() => Object.values(TERRASIEVE.decks).every((one) => one.isInitialized)")
    backgrounds = []
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        for panel in ("map", "plane"):
            page.locator(f"#{panel}").scroll_into_view_if_needed()
            # Points are drawn, in colours that stand out.
            assert comes_true(page, partial(are_seen, page, panel))
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert backgrounds == ["rgb(20, 24, 26)", "rgb(251, 251, 249)"]
    page.locator("#search").fill("tile-00")
    page.wait_for_function("() => TERRASIEVE.state.count > 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert troubles == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    if not is_desk:
        page.context.close()


def test_a_box_in_either_panel_selects_in_both(page: Any) -> None:
    group = [row for row in range(COUNT) if row % 3 == 1]
    placed = [row for row in group if row != UNPLACED]
    page.locator("#box").click()
    drag_around(page, on_screen(page, "map", placed))
    assert selected(page) == placed
    assert page.locator("#strip button").count() == len(placed)

    drag_around(page, on_screen(page, "plane", group))
    assert selected(page) == group, "one without a place is in the plane"
    # On the map, too, the rest is dimmed and these are not.
    others = [row for row in range(COUNT) if row % 3 != 1]

    def is_dimmed() -> bool:
        kept, dimmed = (brightness(page, "map", on_screen(page, "map", rows)) for rows in (placed, others))
        return bool(kept.min() > 1.5 * dimmed.max())

    assert comes_true(page, is_dimmed)
    page.locator("#clear").click()
    assert selected(page) == []
    page.locator("#box").click()
    page.keyboard.down("Shift")
    drag_around(page, on_screen(page, "plane", [0, 3, 6]))
    page.keyboard.up("Shift")
    assert {0, 3, 6} <= set(selected(page)) <= set(range(0, COUNT, 3))


def test_a_sample_is_found_by_its_id_and_those_like_it_by_its_vector(page: Any, subject: Explored) -> None:
    page.locator("#search").fill("TILE-01")
    page.wait_for_function("() => TERRASIEVE.state.count === 10")
    assert selected(page) == list(range(10, 20))
    page.locator("#search").fill("tile-012")
    page.locator("#search").press("Enter")
    assert page.locator("#focus strong").inner_text() == "tile-012"
    said = dict(
        zip(page.locator("#focus dt").all_inner_texts(), page.locator("#focus dd").all_inner_texts(), strict=True)
    )
    assert said["label"] == "wood"
    assert said["time"] == "2020-01-13"
    assert said["curation"] == "kept earlier, dropped since"
    assert said["last kept in round"] == "1"
    page.locator("#like").click()
    names = page.locator("#strip button > span:not(.thumb)").all_inner_texts()
    assert names[0] == "tile-012"
    exact = subject.table.nearest(12, 20)
    # Bytes may exchange what is almost equally near.
    assert len(set(names[1:]) & set(exact["id"])) >= 18
    first = page.locator("#strip button small").nth(1).inner_text()
    assert float(first.removeprefix("cosine ")) == pytest.approx(exact["similarity"][0], abs=0.01)


def test_names_of_others_are_text_and_nothing_else(page: Any) -> None:
    page.locator("#search").fill("</script>")
    page.locator("#search").press("Enter")
    assert page.locator("#focus strong").inner_text() == f"{HOSTILE}-001"
    assert HOSTILE in page.locator("#legend").inner_text()
    assert page.locator("img").count() == 0
    assert page.title() == "Explorer: made"


def test_colours_follow_the_choice_and_the_legend_selects(page: Any) -> None:
    assert page.locator("#colour option").all_inner_texts() == [
        "label", "cluster", "curation", "rounds that kept it", "last kept in round", "time",
    ]  # fmt: skip
    page.locator("#legend button", has_text="wood").click()
    assert selected(page) == list(range(0, COUNT, 3))
    page.locator("#legend button", has_text="unknown").click()
    assert selected(page) == list(range(2, COUNT, 3))
    page.locator("#colour").select_option(label="curation")
    page.locator("#legend button", has_text="kept by round 2").click()
    assert selected(page) == list(range(1, COUNT, 3))
    page.locator("#colour").select_option(label="time")
    assert page.locator("#legend small").all_inner_texts() == ["2020-01-01", "2020-02-29"]
    page.locator("#colour").select_option(label="label")


def test_a_click_shows_the_sample_and_its_own_picture(page: Any) -> None:
    (place,) = on_screen(page, "plane", [30])
    page.mouse.click(*place)
    page.locator("#focus strong").wait_for()
    name = page.locator("#focus strong").inner_text()
    row = int(name.removeprefix("tile-"))
    assert row % 3 == 0, "the groups are far apart"
    # The archive is in another order than the embeddings, and every sample has a brightness of its own.
    shade = page.evaluate(
        """async (row) => {
            const sheet = new Image(); sheet.src = "data/atlas-0.jpg"; await sheet.decode();
            return [sheet.width, getComputedStyle(document.querySelector("#focus .thumb")).backgroundPosition];
        }""",
        row,
    )
    assert shade == [32 * 48, f"-{row % 32 * 96}px -{row // 32 * 96}px".replace("-0px", "0px")]


def test_an_exported_list_becomes_a_selection(page: Any, subject: Explored, tmp_path: Path) -> None:
    assert page.locator("#save").is_disabled()
    page.locator("#legend button", has_text=HOSTILE).click()
    with page.expect_download() as download:
        page.locator("#save").click()
    download.value.save_as(tmp_path / "ids.csv")
    with (tmp_path / "ids.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == subject.table.ids[1::3].tolist()
    assert rows_named(tmp_path / "ids.csv", subject.table).tolist() == list(range(1, COUNT, 3))


def test_a_served_page_exports_parquet(
    visit: Callable[..., Any], subject: Explored, archive: Archive, tmp_path: Path
) -> None:
    folder = write_explorer(tmp_path / "page", subject, clusters=0, served=True).parent
    with Explorer(folder, subject.table) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        page, troubles, requests = visit(server.address)
        page.locator("#legend button", has_text="wood").click()
        with page.expect_download() as download:
            page.locator("#save").click()
        download.value.save_as(tmp_path / "chosen.parquet")
        page.context.close()
        server.shutdown()
    chosen = pq.read_table(tmp_path / "chosen.parquet")
    assert chosen["id"].to_pylist() == subject.table.ids[::3].tolist()
    assert read_selection(tmp_path / "chosen.parquet", archive).tolist() == list(range(2, COUNT, 3))
    assert troubles == []
    assert [url for url in requests if not url.startswith((server.address, "data:", "blob:"))] == []


def test_a_picture_finds_the_sample_whose_pixels_it_has(visit: Callable[..., Any], tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (COUNT, 3, 32, 32), dtype=np.uint8)
    table = embedded_pictures(tmp_path / "run", pixels)
    folder = write_explorer(
        tmp_path / "page", Explored("made", table), clusters=0, served=True, picture_bytes=MOST_BYTES
    ).parent
    Image.fromarray(pixels[41].transpose(1, 2, 0)).save(tmp_path / "harbour <b>.png")
    with Explorer(folder, table, encoder=QueryEncoder(table, tmp_path / "run", "cpu")) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        page, troubles, requests = visit(server.address)
        with page.expect_file_chooser() as chooser:
            page.locator("#picture").click()
        chooser.value.set_files(tmp_path / "harbour <b>.png")
        page.wait_for_function("() => TERRASIEVE.state.count === 20")
        first = page.locator("#strip button").first
        assert first.locator("span").inner_text() == table.ids[41]
        assert first.locator("small").inner_text() == "cosine 1.000"
        assert page.inner_text("#status") == f"{COUNT} samples · 20 selected · most like harbour <b>.png"
        # Dropped on the page; what is refused is said, and leaves the selection as it was.
        page.evaluate(
            """() => {
                const data = new DataTransfer();
                data.items.add(new File(["not a picture"], "letter.png"));
                document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
            }"""
        )
        page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('letter.png: The')")
        assert page.evaluate("TERRASIEVE.state.count") == 20
        page.locator("#clear").click()
        assert page.inner_text("#status") == f"{COUNT} samples"
        page.context.close()
        server.shutdown()
    # The browser tells its console of every answer that is a refusal.
    assert all("400 (Bad Request)" in one for one in troubles)
    assert [url for url in requests if not url.startswith((server.address, "data:", "blob:"))] == []


def test_while_the_view_moves_slowly_fewer_points_are_drawn(page: Any) -> None:
    # Times are given, so that nothing depends on how fast this machine is.
    found = page.evaluate(
        """async () => {
            const drawn = [], motion = new Motion(() => drawn.push(String(motion.most)), 100000);
            let now = 1e6;
            const move = (frames, gap) => { for (let i = 0; i < frames; i++) motion.moved(now += gap); };
            const said = () => drawn.splice(0);
            const rest = async () => { while (!drawn.length) await new Promise((done) => setTimeout(done, 20)); };
            const found = [];
            move(20, 16); found.push(said());
            move(1, 200); move(3, 16); found.push(said());
            move(17, 90); found.push(said());
            await rest(); found.push(said());
            now += 1000; move(1, 0); found.push(said());
            move(8, 16); found.push(said());
            const many = new Motion(() => drawn.push(String(many.most)), 2000000);
            many.moved(now); found.push(said());
            for (const one of [motion, many]) clearTimeout(one.timer);
            return found;
        }"""
    )
    quick, one_late, slow, at_rest, moved_again, quick_again, of_millions = found
    assert (quick, one_late) == (["Infinity"], []), "one late frame says nothing"
    assert slow == ["50000", "25000", "12500", "8000"]
    assert at_rest == ["Infinity"]
    assert moved_again == ["8000"], "a new move begins as the last one ended"
    assert quick_again == ["11200", "15680"]
    assert of_millions == ["100000"]
    order = page.evaluate("[...spreadOrder(1000)]")
    assert sorted(order) == list(range(1000))
    # The first tenth leaves no gap of more than twice its mean.
    assert np.diff(sorted(order[:100])).max() <= 20
