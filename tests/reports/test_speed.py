"""Pareto fronts, quality against latency, and the quoted times."""

from dataclasses import replace

import pytest

from sana_reports.data import Latency
from sana_reports.leaderboard_plots import pareto_front
from sana_reports.published_speed import PUBLISHED_SPEED, quoted_speed
from sana_reports.report_plots import report_quality_plots
from sana_reports.text_table import TextTable
from tests.reports import synthetic


def test_the_front_holds_what_nothing_beats():
    points = [(1.0, 0.5), (2.0, 0.7), (3.0, 0.6), (2.5, 0.7), (4.0, 0.9)]
    assert pareto_front(points, higher_is_better=True) == [0, 1, 4]
    # With a distance, lower values are better: the cheapest point is also the best one.
    assert pareto_front(points, higher_is_better=False) == [0]
    assert pareto_front([(1.0, 1.0), (1.0, 1.0)], higher_is_better=True) == [0, 1]


def timed(data, devices):
    variants = [
        replace(
            variant,
            latency=Latency(value_ms=10.0 * (i + 1), low_ms=9.0, high_ms=11.0, n_images=30, device=device),
        )
        for i, (variant, device) in enumerate(zip(data.variants, devices, strict=True))
    ]
    return replace(data, variants=variants)


def test_times_of_two_devices_never_share_a_plot(tmp_path):
    data = synthetic.make_report(tmp_path)
    n = len(data.variants)
    assert n >= 2
    together = report_quality_plots(timed(data, ["one device"] * n))
    assert together
    assert all("one device" in caption for caption, _ in together)
    assert 'class="front"' in together[0][1]
    assert not report_quality_plots(timed(data, [f"device {i}" for i in range(n)]))


def test_quoted_times_belong_to_the_full_tier():
    assert quoted_speed("micro") is None
    text_table = quoted_speed("full")
    assert len(text_table.rows) == len(PUBLISHED_SPEED)
    assert "never ranked" in text_table.notes[0]


@pytest.mark.parametrize(
    ("model", "pixels", "hardware", "latency"),
    [("Sana-1.6B", 1024, "A100", 1.2), ("Sana-0.6B", 1024, "A100", 0.9), ("Sana-0.6B", 2048, "A100", 2.5)],
)
def test_the_rows_are_the_papers(model, pixels, hardware, latency):
    rows = [
        row
        for row in PUBLISHED_SPEED
        if (row.model, row.resolution, row.hardware) == (model, pixels, hardware)
    ]
    assert [row.latency_s for row in rows] == [latency]
    assert all(row.source and row.precision for row in rows)


def test_a_column_with_a_sentence_may_take_several_lines():
    rows = [("sana-1.5-4.8b-1024-best-of-2048", "12345.678 [12345.600, 12345.700]", ""), ("b", "1", 41 * "x")]
    assert TextTable(title="t", header=("a", "b", "c"), rows=rows).wordy == {2}
    assert TextTable(title="t", header=("a", "b", "c"), rows=rows[:1]).wordy == frozenset()


def test_a_sheet_refuses_a_ragged_row():
    with pytest.raises(ValueError, match="3 cells under 2"):
        TextTable(title="t", header=("a", "b"), rows=[("1", "2", "3")])
