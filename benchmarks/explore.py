"""Frames a second of the explorer while its points are moved, beside those of an empty page of the same browser.

A made table of 100,000 vectors in clusters, each sample with a place, becomes a page, which the system's Chromium opens
without a screen and draws in software (SwiftShader), so that the figure needs no graphics card. Rounds alternate
between the two pages, since other work on the machine comes and goes; of each the median counts.

* ``explore_frames``: frames that deck.gl drew in a second while the plane was dragged to and fro.
* ``moving_points``: points that were drawn by the end of a drag: all where the machine is fast enough, else as many as
  it can draw without stuttering. At rest all are drawn.
* ``map_frames``, ``moving_map_points``: the same of the map.
* ``empty_frames``: frames of an empty page in a second.
* ``frames_vs_empty``, ``map_frames_vs_empty``: the frames of each panel over those of the empty page.
* ``select_ms``: time from a selection of half of the samples to both panels being told of it, in milliseconds.
* ``ready_seconds``: from opening the page until both panels are there.

Usage: ``python benchmarks/explore.py [--samples N] [--rounds N]``. It needs playwright and Chromium. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from playwright.sync_api import sync_playwright

from machine import describe
from terrasieve.embeddings import EmbeddingTable, EncoderInput
from terrasieve.explorer.explored import Explored
from terrasieve.explorer.explorer_page import write_explorer

SEED = 0
FEATURES, GROUPS = 64, 12
SECONDS = 4
PANELS = (("plane", "explore_frames", "moving_points"), ("map", "map_frames", "moving_map_points"))
ARGUMENTS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PATIENCE = 300_000

COUNT = """(name) => {
  TERRASIEVE.drawn = 0;
  TERRASIEVE.decks[name].setProps({ onAfterRender: () => { TERRASIEVE.drawn++; } });
}"""

IDLE = """(seconds) => new Promise((done) => {
  let drawn = 0;
  const begin = performance.now();
  const next = () => {
    drawn++;
    const passed = (performance.now() - begin) / 1000;
    if (passed >= seconds) done(drawn / passed); else requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
})"""

SELECT = """() => {
  const rows = Array.from({ length: Math.floor(TERRASIEVE.ids.length / 2) }, (_, i) => 2 * i);
  const begin = performance.now();
  select(rows);
  return performance.now() - begin;
}"""


def make_subject(samples: int) -> Explored:
    """Vectors in clusters, over a continent."""
    rng = np.random.default_rng(SEED)
    group = rng.integers(GROUPS, size=samples)
    vectors = (rng.normal(size=(GROUPS, FEATURES))[group] + 0.5 * rng.normal(size=(samples, FEATURES))).astype(
        np.float32
    )
    x, y = rng.uniform(-10, 30, samples), rng.uniform(36, 60, samples)
    seconds = rng.integers(1_500_000_000, 1_600_000_000, samples)
    columns = pa.table(
        {
            "geometry": pa.array(shapely.to_wkb(shapely.box(x, y, x + 0.01, y + 0.01)), pa.binary()),
            "time": pa.array(seconds * 1_000_000, pa.timestamp("us", "UTC")),
            "label": pa.array([f"class {one}" for one in group], pa.string()),
        }
    )
    ids = np.array([f"sample-{row:07d}" for row in range(samples)])
    return Explored("made", EmbeddingTable(ids, vectors[:, None], (EncoderInput.parse("s2:B04"),), columns, {}))


def drag(page: Any, name: str) -> tuple[float, float]:
    """Frames a second while a panel is dragged to and fro, and the points that were drawn at last."""
    box = page.locator(f"#{name}").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.evaluate(COUNT, name)
    begin, step = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < SECONDS:
        page.mouse.move(x + 60 * np.sin(step / 10), y)
        step += 1
    drawn, most = page.evaluate(f"[TERRASIEVE.drawn, Math.min(panels.{name}.motion.most, panels.{name}.rows.length)]")
    page.mouse.up()
    return drawn / passed, most


def measure(page_file: Path, rounds: int) -> dict[str, float]:
    """The figures, from one browser."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(ARGUMENTS))
        empty, page = (browser.new_page(viewport={"width": 1400, "height": 900}) for _ in range(2))
        empty.goto("about:blank")
        page.set_default_timeout(PATIENCE)
        begin = time.perf_counter()
        page.goto(page_file.as_uri(), timeout=PATIENCE)
        page.wait_for_function("() => Object.values(TERRASIEVE.decks).every((one) => one.isInitialized)")
        ready = time.perf_counter() - begin
        found: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(rounds):
            empty.bring_to_front()
            found["empty_frames"].append(empty.evaluate(IDLE, SECONDS))
            page.bring_to_front()
            for panel, frames, points in PANELS:
                rate, most = drag(page, panel)
                found[frames].append(rate)
                found[points].append(most)
            found["select_ms"].append(page.evaluate(SELECT))
        browser.close()
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratios = {
        "frames_vs_empty": medians["explore_frames"] / medians["empty_frames"],
        "map_frames_vs_empty": medians["map_frames"] / medians["empty_frames"],
    }
    return {**medians, **ratios, "ready_seconds": ready}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000, help="points; 100,000")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; 3")
    options = parser.parse_args()
    print(describe(SEED))
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        page_file = write_explorer(Path(scratch) / "page", make_subject(options.samples))
        written = time.perf_counter() - begin
        megabytes = sum(path.stat().st_size for path in page_file.parent.rglob("*") if path.is_file()) / 1e6
        figures: dict[str, Any] = measure(page_file, options.rounds)
    figures |= {"samples": options.samples, "write_seconds": written, "megabytes": megabytes}
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
