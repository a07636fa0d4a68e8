"""Measured numbers beside published ones: when they are reproduced, when they differ, and what is no counterpart."""

from dataclasses import replace

import pytest

from sana_reports import ReportData, SummaryCell, VariantInfo
from sana_reports.beside_published import beside_of_board, beside_published, beside_table, quoted_quality
from sana_reports.html_page import render_html
from sana_reports.leaderboard import render_leaderboard
from sana_reports.leaderboard_data import Column, from_json, to_json
from sana_reports.markdown import render_markdown
from sana_reports.terminal import render_terminal
from tests.reports.boards import board, entry, table

TITLE = "Sana-1.6B, 1024 px"
SETTINGS = {"model": {"height": 1024}, "precision": "fp16", "quantization": "none"}
#: Metric: benchmark, protocol, images, and the published number of Sana-1.6B at 1024 pixels (SANA, Tables 7, 10 and 11).
PUBLISHED = {
    "geneval": ("geneval", "geneval/sana@1", 2212, 0.66),
    "fid": ("mjhq30k", "fid/sana@1", 30000, 5.76),
    "clip_score": ("mjhq30k", "clip_score/sana@1", 30000, 28.67),
    "dpg": ("dpg_bench", "dpg/sana-grid@1", 4260, 84.8),
    "image_reward": ("image_reward", "image_reward/sana-jpeg@1", 1000, 0.99),
    "latency": ("latency", "latency/warm-interleaved@1", 30, 1.2),
    "throughput": ("latency", "throughput/fixed-batch@1", 3, 1.0),
}
A100 = {"device": "NVIDIA A100-SXM4-80GB", "batch_size": 16}


def measured(metric: str, value: float, half: float, **changes) -> SummaryCell:
    benchmark, protocol, n, _ = PUBLISHED[metric]
    made = SummaryCell(
        variant="mine", benchmark=benchmark, metric=metric, protocol=protocol, key="overall", value=value,
        low=value - half, high=value + half, n_samples=n, n_expected=n, n_prompts=30, unit="", higher_is_better=True,
        **(A100 if metric in ("latency", "throughput") else {}),
    )  # fmt: skip
    return replace(made, **changes)


def report(*cells: SummaryCell, titles=(TITLE,), settings=SETTINGS, tier: str = "full") -> ReportData:
    info = VariantInfo(name="mine", fingerprint="f" * 64, published=titles, settings=settings)
    return ReportData(
        title="t", suite_name="s", tier=tier, tier_reason="asked", created="now", fingerprint="r" * 64,
        complete=True, variants=[info], summaries=cells, samples=[], provenance={},
    )  # fmt: skip


def only(*cells: SummaryCell, **changes):
    (found,) = [one for one in beside_published(report(*cells, **changes)) if "(" not in one.title]
    return found


@pytest.mark.parametrize("metric", PUBLISHED)
def test_a_number_is_reproduced_within_its_interval_and_the_rounding_of_the_published_one(metric) -> None:
    published = PUBLISHED[metric][3]
    scale = 1000 if metric == "latency" else 1  # measured in ms, published in s
    digits = 1 if metric in ("dpg", "latency", "throughput") else 2
    half = 0.5 * 10**-digits
    # Just inside and just outside of half a digit beyond the interval.
    for offset, verdict in ((0.9, "reproduced"), (1.1, "differs")):
        one = only(measured(metric, scale * (published + half + offset * half), scale * half))
        assert (one.verdict, one.published, one.digits) == (verdict, published, digits)
        assert one.difference == pytest.approx(half + offset * half)
        assert one.reason.startswith("known: ") == (verdict == "differs")


@pytest.mark.parametrize(
    ("metric", "changes", "reason"),
    [
        ("geneval", {"protocol": "geneval/official@1"}, "protocol geneval/official@1, published by geneval/sana@1"),
        ("geneval", {"n_samples": 2211}, "2211 of 2212 images"),
        ("fid", {"n_samples": 5000, "n_expected": 5000}, "5000 of 30000 images"),
        ("dpg", {"low": float("nan")}, "the measured number has no interval"),
        ("latency", {"device": "AMD EPYC, 1 thread"}, "measured on AMD EPYC, 1 thread, published on A100"),
        ("throughput", {"batch_size": 8}, "batches of 8, published with 16"),
        ("throughput", {"protocol": "throughput/batch-sweep@1", "batch_size": None}, "batches of the best size"),
    ],
)  # fmt: skip
def test_what_is_no_counterpart_is_not_compared(metric, changes, reason) -> None:
    one = only(measured(metric, PUBLISHED[metric][3], 0.01, **changes))
    assert one.verdict == "not comparable"
    assert reason in one.reason


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model": {"height": 512}}, "images of 512 pixels"),
        ({"precision": "bf16"}, "bf16, published in FP16"),
        ({"precision": {"transformer": "fp32", "text_encoder": "bf16"}}, "fp32, published in FP16"),
        ({"quantization": "w8a8"}, "w8a8, published in FP16"),
    ],
)
def test_times_are_compared_at_equal_size_and_precision(settings, reason) -> None:
    one = only(measured("latency", 1200, 10), settings=SETTINGS | settings)
    assert (one.verdict, one.reason) == ("not comparable", reason)


def test_a_laptop_is_compared_with_a_laptop() -> None:
    """SANA's Table 5: 0.88 s on a laptop's RTX 4090 in FP16, and 0.37 s in W8A8."""
    cell = measured("latency", 880, 10, device="NVIDIA GeForce RTX 4090 Laptop GPU")
    found = beside_published(report(cell, titles=("Sana-0.6B, 1024 px",)))
    told = {(one.published, one.verdict) for one in found}
    assert told == {(0.9, "not comparable"), (0.88, "reproduced"), (0.37, "not comparable")}
    desktop = replace(cell, device="NVIDIA GeForce RTX 4090")
    assert {one.verdict for one in beside_published(report(desktop, titles=("Sana-0.6B, 1024 px",)))} == {
        "not comparable"
    }


def test_tasks_of_geneval_are_compared_and_categories_of_dpg_are_not() -> None:
    cells = [measured("geneval", 0.62, 0.02, key="counting"), measured("dpg", 91.5, 1, key="entity")]
    (one,) = beside_published(report(*cells))
    assert (one.metric, one.key, one.published, one.verdict) == ("geneval", "counting", 0.62, "reproduced")


def test_every_format_tells_the_verdicts_and_quotes_the_papers(tmp_path) -> None:
    data = report(measured("geneval", 0.66, 0.01), measured("fid", 7.0, 0.1))
    terminal, markdown = render_terminal(data), render_markdown(data)
    page = render_html(data, tmp_path)
    for text in (terminal, markdown, page):
        assert "Measured beside published" in text
        assert "reproduced" in text
        assert "known: the size that images were scaled to is not published" in text
        assert "SANA, arXiv:2410.10629, Table 10" in text
    for text in (markdown, page):
        assert "FLUX-dev, 1024 px" in text
    # As the papers print them, with their last zeros.
    quoted = next(line for line in markdown.splitlines() if "PixArt-Sigma, 512 px" in line and "0.52" in line)
    assert "0.80" in quoted
    assert "FLUX-dev" not in terminal
    assert not beside_table(beside_published(report(measured("geneval", 0.66, 0.01), titles=())))
    assert not quoted_quality(report(measured("geneval", 0.66, 0.01), tier="micro"))


def test_a_leaderboard_tells_them_too() -> None:
    column = Column(metric="geneval", protocol="geneval/sana@1", unit="fraction", higher_is_better=True)
    cell = measured("geneval", 0.66, 0.01)
    made = entry("mine", 0, 0, numbers={"geneval": cell}, published=(TITLE,), settings=SETTINGS)
    ranked = board(table(made, tier="full", columns=[column]))
    read = from_json(to_json(ranked))
    for one in (ranked, read):
        assert [found.verdict for found in beside_of_board(one.tables[0])] == ["reproduced"]
    files = render_leaderboard(ranked)
    assert "Measured beside published" in files["leaderboard.html"]
    assert "Measured beside published" in files["leaderboard.md"]
