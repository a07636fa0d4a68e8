from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sana_reports import ReportData
from tests.reports.synthetic import make_report


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report-images")


@pytest.fixture(scope="session")
def report(images: Path) -> ReportData:
    """Two complete variants, 6 tasks x 3 prompts x 2 images: 36 comparisons, so two pages of samples."""
    return make_report(images, 2, prompts_per_task=3, images_per_prompt=2)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all pages."""
    from tests.reports.browsing import CHROMIUM, FLAGS, sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()
