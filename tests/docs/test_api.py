"""The examples of docs/api.md run and print what the page says, and the page has everything that the package offers."""

import csv
import doctest
import re

import numpy as np
import pytest
from PIL import Image

import sana_bench
from sana_bench.analysis.agreement import Agreement
from sana_bench.analysis.comparison import Comparison
from sana_bench.analysis.gate import GateResult
from sana_bench.benchmarks.geneval import GenEval
from sana_bench.micro.captions import scene_for
from sana_bench.micro.renderer import render
from sana_reports.leaderboard_data import Leaderboard
from tests import ROOT

PAGE = ROOT / "docs/api.md"
_SECTION = re.compile(r"^## `?(?P<title>.*?)`?$\n(?P<body>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECTIONS = {
    found["title"]: _BLOCK.findall(found["body"])
    for found in _SECTION.finditer(PAGE.read_text(encoding="utf-8"))
}
CALLS = ["Runs", "Comparing, gating, ranking", "Images that exist", "When something is wrong"]
RULES = [title for title in SECTIONS if title not in (*CALLS, "Rules as a library")]

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


def run_examples(title: str) -> doctest.DocTest:
    """Run the examples of a section; return them."""
    test = doctest.DocTestParser().get_doctest("\n".join(SECTIONS[title]), {}, title, PAGE.name, 0)
    assert len(test.examples) >= 2
    failures: list[str] = []
    doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(test, out=failures.append)
    assert not failures, "".join(failures)
    return test


def test_the_page_has_every_pure_rule():
    assert sorted(title for title in SECTIONS if title.startswith("sana_bench.")) == PURE_RULES


@pytest.mark.parametrize("title", RULES)
def test_examples_print_what_the_page_says(title):
    test = run_examples(title)
    if title.startswith("sana_bench."):
        module, _, name = title.rpartition(".")
        assert f"from {module} import" in test.docstring
        assert f"{name}(" in test.docstring


def test_calls_print_what_the_page_says(tmp_path, monkeypatch):
    """In the order of the page, in a folder with what it says is there."""
    monkeypatch.chdir(tmp_path)
    prompts = list({prompt.text: prompt for prompt in GenEval().prompts("micro")}.values())[:6]
    with open("prompts.csv", "w", newline="") as file:
        csv.writer(file).writerows([("prompt",), *((prompt.text,) for prompt in prompts)])
    for folder in ("my_images", "other"):
        (tmp_path / folder).mkdir()
        for i, prompt in enumerate(prompts):
            scene = scene_for(prompt.metadata, np.random.default_rng(i))
            Image.fromarray(render(scene)).save(f"{folder}/{i}.png")
    for title in CALLS:
        run_examples(title)
    assert {path.name for path in tmp_path.iterdir()} >= {"numbers.png", "board", "results"}


@pytest.mark.parametrize(
    "name", ["run", "score", "load_run", "compare", "gate", "export_baseline", "leaderboard"]
)
def test_every_call_is_documented_and_run(name):
    text = PAGE.read_text(encoding="utf-8")
    assert f"| `sana_bench.{name}(" in text
    assert any(f"sana_bench.{name}(" in block for title in CALLS for block in SECTIONS[title])
    assert name in sana_bench.__all__


@pytest.mark.parametrize("kind", [sana_bench.Run, Agreement, Comparison, GateResult, Leaderboard])
def test_every_result_has_a_table_and_plain_data_and_shows_itself(kind):
    assert all(callable(getattr(kind, name)) for name in ("table", "to_dict", "_repr_html_"))


def test_everything_of_a_run_is_on_the_page():
    blocks = "\n".join(block for title in CALLS for block in SECTIONS[title])
    methods = [
        name for name, found in vars(sana_bench.Run).items() if callable(found) and not name.startswith("_")
    ]
    properties = [name for name, found in vars(sana_bench.Run).items() if isinstance(found, property)]
    assert methods
    assert [name for name in methods if f".{name}(" not in blocks] == []
    assert [name for name in properties if f".{name}" not in blocks] == []
