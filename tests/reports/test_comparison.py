"""What every report says first: which variant is better, metric by metric."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from sana_reports import Gain, ReportData, render_terminal
from sana_reports.comparison import comparison_table, metrics_compared, overviews
from sana_reports.labels import format_gain
from sana_reports.markdown import render_markdown
from tests.reports.synthetic import TIMES, make_report, with_verdicts
from tests.reports.test_html import HOSTILE, write_page

WORSE = "is worse: -0.031 [-0.050, -0.010]; worse on Counting (-0.120 [-0.210, -0.030])"
TERMINAL = f"""\
Compared with sana-micro-20-steps, prompt by prompt
metric                         variant             verdict
-----------------------------  ------------------  {"-" * len(WORSE)}
GenEval (higher is better)     sana-micro-8-steps  {WORSE}
                               sana-micro-4-steps  {WORSE}
CLIP score (higher is better)  sana-micro-8-steps  no evidence of a difference: +0.20 [-0.40, +0.80]
                               sana-micro-4-steps  no evidence of a difference: +0.20 [-0.40, +0.80]
FID (lower is better)          sana-micro-8-steps  is better: -3.10 [-4.00, -2.20]
                               sana-micro-4-steps  is better: -3.10 [-4.00, -2.20]
Latency (lower is better)      all variants        not compared: {TIMES}
"""


@pytest.fixture(scope="module")
def compared(images: Path) -> ReportData:
    return with_verdicts(make_report(images / "compared", 3, prompts_per_task=1, images_per_prompt=1))


def test_the_verdicts_stand_above_the_numbers_in_every_format(compared: ReportData, tmp_path: Path) -> None:
    text = render_terminal(compared)
    assert TERMINAL in text
    assert text.index("Compared with") < text.index("Ranked by")
    markdown = render_markdown(compared)
    assert r"is worse: -0.031 \[-0.050, -0.010\]" in markdown
    assert markdown.index("Compared with") < markdown.index("## Results")
    page = write_page(compared, tmp_path)
    said = (
        "worse on GenEval; better on FID; no evidence of a difference on CLIP score; not compared on Latency."
    )
    assert f"sana-micro-8-steps , sana-micro-4-steps : {said}" in page.visible
    assert page.visible.index("Compared with") < page.visible.index(
        "Each number comes with its 95 % interval"
    )
    assert "#comparison" in [attrs.get("href") for tag, attrs in page.elements if tag == "a"]


def test_without_verdicts_nothing_is_compared(report: ReportData, tmp_path: Path) -> None:
    assert comparison_table(report) == []
    assert "Compared with" not in render_terminal(report)
    page = write_page(report, tmp_path)
    assert "Compared with" not in page.visible.replace("Compared with Gained", "")  # a column of the changes
    assert "comparison" not in [attrs.get("id") for _, attrs in page.elements]


def test_an_overview_puts_the_worst_first_and_names_each_metric_once(compared: ReportData) -> None:
    (found,) = overviews(compared)  # what is said of both alike is said once
    assert found == (
        ["sana-micro-8-steps", "sana-micro-4-steps"],
        [
            ("worse", "GenEval"),
            ("better", "FID"),
            ("no evidence of a difference", "CLIP score"),
            ("not compared", "Latency"),
        ],
    )


def test_a_metric_of_two_benchmarks_names_them(compared: ReportData) -> None:
    again = [replace(one, benchmark="mjhq30k") for one in compared.verdicts if one.metric == "clip_score"]
    titles = [
        metric.title for metric in metrics_compared(replace(compared, verdicts=[*compared.verdicts, *again]))
    ]
    assert titles == ["GenEval", "CLIP score on GenEval", "FID", "Latency", "CLIP score on MJHQ-30K"]


def test_different_reasons_stay_apart(compared: ReportData) -> None:
    times = [one for one in compared.verdicts if one.metric == "latency"]
    rows = comparison_table(replace(compared, verdicts=[times[0], replace(times[1], reason="another")]))[
        0
    ].rows
    assert [row[1:] for row in rows] == [
        ("sana-micro-8-steps", f"not compared: {TIMES}"),
        ("sana-micro-4-steps", "not compared: another"),
    ]


@pytest.mark.parametrize(
    ("numbers", "unit", "text"),
    [
        ((-0.031, -0.05, -0.01), "fraction", "-0.031 [-0.050, -0.010]"),
        ((2.3e-18, -0.065, 0.065), "fraction", "0.000 [-0.065, +0.065]"),
        ((-1e-9, -0.5, 0.5), "", "0.0000 [-0.50, +0.50]"),
        ((-0.581, -0.606, -0.552), "share", "-58.1 % [-60.6 %, -55.2 %]"),
        ((4.78, math.nan, math.nan), "", "+4.78 (no paired interval)"),
    ],
)
def test_a_difference_has_a_sign_and_an_interval(
    numbers: tuple[float, float, float], unit: str, text: str
) -> None:
    difference, low, high = numbers
    assert format_gain(Gain(over="a", difference=difference, low=low, high=high), unit) == text


def test_text_from_outside_stays_text(compared: ReportData, tmp_path: Path) -> None:
    evil = [
        replace(one, variant=HOSTILE, metric=HOSTILE, benchmark=HOSTILE, reason=HOSTILE, key=one.key)
        for one in compared.verdicts
        if one.variant == compared.variants[1].name
    ]
    variants = [compared.variants[0], replace(compared.variants[1], name=HOSTILE)]
    hostile = replace(
        compared, variants=variants, summaries=[], samples=[], verdicts=evil[-1:], compared_with=HOSTILE
    )
    page = write_page(hostile, tmp_path)
    assert [tag for tag, _ in page.elements if tag in ("script", "img")] == ["script", "script"]
    assert page.visible.count(HOSTILE) > 4
