"""Debian's Chromium, driven by Playwright, and what every page must keep to whatever it shows.

A `Visit` is one page of the console. It watches while a test does something else: errors on the console, exceptions, and
every request; `check` fails when there was one that should not have been.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
# As root there is no sandbox. The rest keeps the browser from calling its maker, which a test machine may not be able to reach.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
TIMEOUT_MS = 30_000  # how long an expectation may take to come true, on a machine that is busy with other tests
WIDE = {"width": 1280, "height": 900}


@dataclass
class Visit:
    """One page at `base`, and what it did that it should not have."""

    base: str
    page: Any
    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    away: bool = False  # the broker is stopped on purpose: requests fail, and the browser says so on the console

    def open(self, address: str = "#/") -> Any:
        """Show a view, and wait until its data is there."""
        self.page.goto(f"{self.base}/console/{address}")
        return self.settle()

    def settle(self) -> Any:
        self.page.locator("#view:not([aria-busy])").wait_for()
        return self.page

    def check(self) -> None:
        """Nothing failed on the page, and nothing left the host."""
        assert self.errors == []
        assert self.strangers == []

    def violations(self) -> list[str]:
        """What axe-core finds, with the element it finds it at."""
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("(tags) => axe.run(document, {runOnly: tags})", AXE_TAGS)
        return [
            f"{rule['id']} ({rule['help']}): {node['html'][:200]} {node['failureSummary'][:300]}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]

    def _said(self, message: Any) -> None:
        if message.type == "error" and not (self.away and "Failed to load resource" in message.text):
            self.errors.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((f"{self.base}/", "data:", "blob:")):
            self.strangers.append(request.url)


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser. Skips the test, with the reason, where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="browser tests need the Python package playwright")
    if CHROMIUM is None:
        pytest.skip("browser tests need Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        sync_api.expect.set_options(timeout=TIMEOUT_MS)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Any, base: str, *, scheme: str = "light", viewport: dict[str, int] | None = None) -> Iterator[Visit]:
    """A page of its own, with storage of its own; it is checked at the end."""
    context = browser.new_context(color_scheme=scheme, viewport=viewport or WIDE, accept_downloads=True)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    found = Visit(base, page)
    page.on("console", found._said)
    page.on("pageerror", lambda error: found.errors.append(f"{error.name}: {error.message}\n{error.stack}"))
    page.on("request", found._asked)
    try:
        yield found
        found.check()
    finally:
        context.close()
