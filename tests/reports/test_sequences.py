"""Looks while images were made, as a report shows them: how the interval narrowed, and when it was decided."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sana_reports import ReportData, render_terminal, write_report
from sana_reports.markdown import render_markdown
from sana_reports.sequences import sequence_plot, sequence_tables
from tests.reports.synthetic import make_report, with_sequences
from tests.reports.test_html import HOSTILE

N = 600


@pytest.fixture(scope="module")
def plain(images: Path) -> ReportData:
    return make_report(images / "sequences", 2, prompts_per_task=1, images_per_prompt=1)


@pytest.fixture(scope="module")
def looked(plain: ReportData) -> ReportData:
    return with_sequences(plain)


def write_page(data: ReportData, folder: Path) -> str:
    return write_report(data, folder).html.read_text(encoding="utf-8")


def corners(drawing: str, name: str) -> list[tuple[float, float]]:
    """The points of a path, in drawing units."""
    path = re.search(rf'class="{name}" d="M([^"Z]+)', drawing)
    assert path is not None
    return [tuple(map(float, point.split())) for point in path[1].split("L")]  # type: ignore[misc]


def test_the_drawing_narrows_up_to_the_moment_of_decision(looked: ReportData) -> None:
    decided, _ = looked.sequences
    drawing = sequence_plot(decided, 1)
    band = corners(drawing, "band")
    half = len(decided.looks)
    assert len(band) == 2 * half
    heights = [low[1] - high[1] for high, low in zip(band[:half], band[half:][::-1], strict=True)]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] < 0.5 * heights[0]
    line = re.search(r'class="decision" x1="([\d.]+)"', drawing)
    assert line is not None
    assert float(line[1]) == pytest.approx(band[half - 1][0])
    # 192 of 600 images along an axis from 52 to 548, written with one decimal.
    assert float(line[1]) == pytest.approx(52 + 192 / N * 496, abs=0.05)
    assert "worse after 192 of 600 images" in drawing
    assert drawing.count('class="effect"') == 2
    # The whole band lies below 0 at the end: above it on the screen.
    (zero,) = re.findall(r'class="zero"[^>]*y1="([\d.]+)"', drawing)
    assert band[half - 1][1] > float(zero)
    assert band[0][1] < float(zero)


def test_what_is_drawn_is_said(looked: ReportData) -> None:
    decided, alone = (sequence_plot(cell, 0) for cell in looked.sequences)
    assert 'role="img"' in decided
    assert "minus" in re.search(r'aria-label="([^"]+)"', decided)[1]  # type: ignore[index]
    assert "after 24 images -0.12 [-1, +0.78]; after 120 images" in decided
    assert "GenEval of" in alone
    assert 'class="decision"' not in alone, "without an answer there is no moment of decision"
    assert 'class="zero"' not in alone


def test_one_look_is_enough(looked: ReportData) -> None:
    cell = replace(looked.sequences[0], looks=looked.sequences[0].looks[:1])
    assert len(corners(sequence_plot(cell, 0), "band")) == 2


def test_the_tables_say_the_rule_the_interval_and_the_images(looked: ReportData) -> None:
    asked, tasks = sequence_tables(looked)
    assert asked.rows[0][1:] == ("worse", "-0.12 [-0.232, -0.0075]", "192 of 600", "8")
    assert asked.rows[1][1:] == ("all prompts used", "0.6 [0.487, 0.713]", "192 of 600", "8")
    assert "never ranked" in asked.notes[0]
    assert tasks.rows == [("Counting", "12", "-0.3", "0.004"), ("Colors", "9", "+0", "1")]
    whole = replace(looked.sequences[0], n_expected=192)
    assert "never ranked" not in " ".join(sequence_tables(replace(looked, sequences=[whole]))[0].notes)


def test_every_format_has_them_above_the_numbers(looked: ReportData, tmp_path: Path) -> None:
    for text in (render_terminal(looked), render_markdown(looked)):
        assert "What was asked, and the answer" in text
        assert text.index("What was asked") < text.index("fid/clip-micro@1")
    page = write_page(looked, tmp_path)
    assert page.index('id="sequences"') < page.index('id="results"')
    assert '<a href="#sequences">' in page


def test_a_report_without_them_says_nothing_of_them(plain: ReportData, tmp_path: Path) -> None:
    assert "What was asked" not in render_terminal(plain) + render_markdown(plain)
    page = write_page(plain, tmp_path)
    assert 'id="sequences"' not in page
    assert '"#sequences"' not in page


def test_names_are_escaped(looked: ReportData, tmp_path: Path) -> None:
    cells = [
        replace(cell, finding=HOSTILE, rule=HOSTILE, verdict=HOSTILE, metric=HOSTILE)
        for cell in looked.sequences
    ]
    page = write_page(replace(looked, sequences=cells), tmp_path)
    assert HOSTILE not in page
