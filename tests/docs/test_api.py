"""The examples of docs/api.md run and print what the page says."""

import doctest
import re

import pytest

from tests import ROOT

PAGE = ROOT / "docs/api.md"
_SECTION = re.compile(r"^## `?(?P<title>.*?)`?$\n(?P<body>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECTIONS = {
    found["title"]: _BLOCK.findall(found["body"])
    for found in _SECTION.finditer(PAGE.read_text(encoding="utf-8"))
}

PURE_RULES = [
    "sana_bench.metrics.dpg.rules.score_official",
    "sana_bench.metrics.fid.frechet.frechet_distance",
    "sana_bench.metrics.geneval.decision.decide",
    "sana_bench.metrics.geneval2.rules.soft_score",
    "sana_bench.metrics.geneval2.rules.summarise",
    "sana_bench.metrics.longtext.rules.score",
    "sana_bench.metrics.oneig.rules.alignment",
    "sana_bench.metrics.oneig.rules.text",
]


def test_the_page_has_every_pure_rule():
    assert sorted(title for title in SECTIONS if title.startswith("sana_bench.")) == PURE_RULES


@pytest.mark.parametrize("title", SECTIONS)
def test_examples_print_what_the_page_says(title):
    blocks = SECTIONS[title]
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, title, PAGE.name, 0)
    assert len(test.examples) >= 2
    failures: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=failures.append)
    assert not failures, "".join(failures)
    if title.startswith("sana_bench."):
        module, _, name = title.rpartition(".")
        assert f"from {module} import" in test.docstring
        assert f"{name}(" in test.docstring
