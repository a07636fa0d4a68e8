"""A difference or number without an interval says why, in every format."""

import csv
import json
import math
from dataclasses import replace

import pytest

from sana_bench.analysis.baselines import resolve
from sana_bench.analysis.gate import evaluate
from sana_bench.analysis.policy import Policy
from sana_bench.cli.main import execute
from sana_bench.core.samples import Prompt
from sana_bench.results.statistics.effect import Effect
from tests.runner import fakes


@pytest.fixture
def lone(world, monkeypatch):
    """A run of three prompts, one of which is a task of its own."""
    prompts = [Prompt(f"{n}", f"a shape {n}", tag) for n, tag in enumerate(("circles", "circles", "stars"))]
    monkeypatch.setattr(fakes.Shapes, "prompts", lambda *_: prompts)
    monkeypatch.setattr(fakes.Redness, "_summary", without_interval(fakes.Redness._summary))
    assert world.run() == 0
    return world


def without_interval(summary):
    """Summaries of one prompt as metrics of means give them."""

    def of(self, key, rows, n_expected):
        found = summary(self, key, rows, n_expected)
        found = replace(found, n_expected=len(rows))
        return replace(found, low=math.nan, high=math.nan) if found.n_prompts == 1 else found

    return of


def compared(lone, capsys, format_):
    (run,) = (lone.output / "runs").iterdir()
    capsys.readouterr()
    sides = [f"{run.name}:fake-4", f"{run.name}:fake-2"]
    assert execute(["compare", *sides, "--format", format_, "-o", str(lone.output)]) == 0
    return capsys.readouterr().out


def test_compare_says_why_in_text_and_markdown(lone, capsys):
    for format_ in ("text", "markdown"):
        found = compared(lone, capsys, format_)
        assert "nan" not in found
        (line,) = (line for line in found.splitlines() if "redness (stars)" in line)
        assert "(no interval: one prompt)" in line
        (line,) = (line for line in found.splitlines() if "redness (circles)" in line)
        assert "no interval" not in line


def test_compare_says_why_in_json(lone, capsys):
    rows = {
        row["key"]: row
        for row in json.loads(compared(lone, capsys, "json"))["metrics"]
        if row["metric"] == "redness"
    }
    assert (rows["stars"]["effect"]["low"], rows["stars"]["effect"]["high"]) == (None, None)
    assert rows["stars"]["no_interval"] == "no interval: one prompt"
    assert rows["circles"]["no_interval"] == ""


def test_the_report_says_why(lone, capsys):
    (run,) = (lone.output / "runs").iterdir()
    markdown = (run / "report" / "report.md").read_text(encoding="utf-8")
    assert markdown.count("(no interval: one prompt)") == 2
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "no interval: one prompt" in page
    with (run / "report" / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["key"] == "stars"]
    assert {(row["low"], row["high"], row["note"]) for row in rows} == {("", "", "no interval: one prompt")}


def of_stars(variant):
    """The samples and the number of the task of one prompt."""
    summaries = [row for row in variant.summaries if row.key == "overall" and row.metric == "redness"]
    return {
        "samples": [one for one in variant.samples if one.prompt.tag == "stars"],
        "summaries": [replace(row, n_samples=4, n_expected=4) for row in summaries],
    }


def test_the_gate_says_why(lone):
    (run,) = (lone.output / "runs").iterdir()
    sides = [resolve(lone.output, f"{run.name}:{name}") for name in ("fake-4", "fake-2")]
    alone = [(found, replace(variant, **of_stars(variant))) for found, variant in sides]
    policy = Policy.model_validate({"schema_version": 1, "metrics": {"redness": {"worse_by": 0.001}}})
    (check,) = (check for check in evaluate(*alone, policy).checks if check.name == "shapes/redness")
    assert check.status == "cannot tell"
    assert "these prompts are too few to show any change (no interval: one prompt)" in check.message


def test_an_effect_prints_no_nan():
    effect = Effect(0.5, math.nan, math.nan, 1.0, 4, 1, math.nan, "sign-flip permutation")
    assert str(effect) == "+0.5 (no interval), p = 1 (sign-flip permutation)"
