"""A page in a headless Chromium, as a person sees it: its size, its colours, and an accessibility check."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

WIDTHS_PX = (1280, 400)
"""A screen on a desk and a phone."""
MAX_SHOWN = 5
"""Number of elements of one finding that a message names."""


@contextmanager
def opened(address: str, width_px: int, scheme: Literal["light", "dark"] = "light") -> Iterator[OpenPage]:
    """Open ``address`` in Chromium; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        # the check runs as a script, which the page's own policy forbids
        context = browser.new_context(viewport={"width": width_px, "height": 900}, color_scheme=scheme, bypass_csp=True)
        page = context.new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        yield OpenPage(page, requests)
        browser.close()


class OpenPage:
    """An open page.

    Attributes:
        requests: addresses that the page has requested, its own first.
    """

    def __init__(self, page: object, requests: list[str]) -> None:
        from playwright.sync_api import Page

        assert isinstance(page, Page)
        self.page, self.requests = page, requests

    def picture(self, path: Path) -> Path:
        """Write a picture of the whole page."""
        self.page.screenshot(path=path, full_page=True)
        return path

    @property
    def overflow_px(self) -> int:
        """Width by which the page is wider than the screen, px."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def findings(self) -> list[str]:
        """Return what axe-core finds, one line a rule; findings of minor impact are left out."""
        from axe_playwright_python.sync_playwright import Axe

        violations = Axe().run(self.page).response["violations"]
        return [
            f"{violation['id']}: {violation['help']}: "
            + ", ".join(" ".join(node["target"]) for node in violation["nodes"][:MAX_SHOWN])
            for violation in violations
            if violation["impact"] != "minor"
        ]
