"""A real browser that opens pages from disk and remembers what they complained about or asked for."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
sync_api.expect.set_options(timeout=60_000)  # milliseconds; a busy machine is slow, not wrong
CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no `chromium` on the PATH"),
]


@dataclass
class Visit:
    """An open page with everything it complained about or asked for."""

    page: "sync_api.Page"
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def expect_cards(self, n: int) -> None:
        sync_api.expect(self.page.locator(".sample")).to_have_count(n)

    def status(self) -> str:
        return self.page.locator("#count").inner_text()

    def choose(self, name: str, value: str) -> None:
        self.page.locator(f"#controls [name={name}]").select_option(value)

    def close(self) -> None:
        self.page.close()


def visit(browser: "sync_api.Browser", html: Path, *, width: int = 1280) -> Visit:
    """Open a file in a new page."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(60_000)
    found = Visit(page)
    page.on("console", lambda message: found.problems.append(message.text))
    page.on("pageerror", lambda error: found.problems.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(html.as_uri())
    return found
