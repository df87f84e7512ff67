"""The system's Chromium, which draws WebGL in software, and pages that say what went wrong in them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
CHROMIUM = shutil.which("chromium")
PATIENCE = 90_000
"""Milliseconds; a page is megabytes of script, and the machine may have other things to do."""


class Visit(NamedTuple):
    page: Any
    troubles: list[str]
    requests: list[str]


# A browser a file: while Playwright is driven, its event loop runs in this thread, and a later file's own could not.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("the browser tests need chromium on the PATH")
    with sync_api.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        running = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


@pytest.fixture(scope="module")
def visit(browser: Any) -> Callable[..., Visit]:
    """Open an address on a screen of a size, and keep what the console and the network saw."""

    def opened(address: str, width: int = 1400, height: int = 900) -> Visit:
        # A jump that is animated can be cut short by the next one, and then ends nowhere.
        page = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="light", reduced_motion="reduce"
        ).new_page()
        page.set_default_timeout(PATIENCE)
        troubles: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address, timeout=PATIENCE)
        return Visit(page, troubles, requests)

    return opened
