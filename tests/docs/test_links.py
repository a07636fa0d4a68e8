"""Links between the repository's pages: the file is there, and so is the heading."""

import re
from pathlib import Path

import pytest

from tests import ROOT

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "reports/**/*.md", "sana_bench/**/README.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def headings(page: Path) -> set[str]:
    """Anchors as GitHub makes them: lower case, punctuation dropped, blanks as hyphens."""
    lines = _FENCED.sub("", page.read_text(encoding="utf-8")).splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if re.match(r"#{1,6} ", line)]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    broken = []
    for target in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (page.parent / name).resolve() if name else page
        if not found.exists() or (anchor and anchor not in headings(found)):
            broken.append(target)
    assert broken == []


def test_there_are_pages():
    assert ROOT / "README.md" in PAGES
    assert len(PAGES) > 20
