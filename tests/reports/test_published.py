"""The quoted numbers: against the machine-readable copy of the papers' tables, and kept apart from measured ones."""

import csv
import re
from dataclasses import replace

import pytest

from sana_bench.core.registry import BENCHMARKS
from sana_reports import KINDS
from sana_reports.leaderboard import render_leaderboard
from sana_reports.leaderboard_data import Column, Leaderboard
from sana_reports.published import (
    _GENEVAL2_ROWS,
    _HPDV2_ROWS,
    _LONGTEXT_ROWS,
    _ONEIG_ROWS,
    PUBLISHED,
    PublishedRow,
    published_table,
)
from tests import SHARED
from tests.reports.boards import GENEVAL, board, cell, entry, table
from tests.reports.test_html import Page
from tests.reports.test_leaderboard import read_csv

PAPERS = SHARED / "data/paper_results.csv"
SOURCES = (
    *(f"SANA arXiv:2410.10629 Table {number}" for number in (7, 10, 11)),
    *(
        f"SANA-1.5 arXiv:2501.18427v4 {place}"
        for place in ("Table 1", "Table 2", "Table 3", "Table 4", "Fig. 4")
    ),
    "NVlabs/Sana README.md (performance table)",
)
SPEC = SHARED / "spec/field_2026.md"
#: What the csv has nothing of.
LATER = ("geneval2", "longtext", "oneig_alignment", "hpsv2.1")
SPRINT = re.compile(r"Sana-Sprint-(\S+) \(released\), 2 steps")
CATEGORIES = {"color_attr": "color_attribution"}  # the csv's spelling


def of_the_csv() -> list[PublishedRow]:
    early = [row for row in PUBLISHED if not SPRINT.fullmatch(row.model)]
    return [row for row in early if not {metric for metric, _ in row.numbers} & set(LATER)]


def metric_name(metric: str, key: str) -> str:
    """The csv's name of one of our numbers."""
    if metric in ("fid", "clip_score"):
        return f"{metric.removesuffix('_score')}_mjhq30k"
    if metric == "image_reward":
        return metric
    return f"{metric}_{CATEGORIES.get(key, key)}"


def ours() -> set[tuple[str, str, str, float]]:
    """(model, resolution, name, value) of every quoted number."""
    found = set()
    for row in of_the_csv():
        place = (row.model, str(row.resolution or "unstated"))
        found |= {(*place, metric_name(*key), value) for key, value in row.numbers.items()}
        found |= {
            (*place, name, value)
            for name, value in (("throughput", row.throughput), ("latency", row.latency_s))
            if value is not None
        }
    return found


def read_papers() -> list[dict[str, str]]:
    if not PAPERS.is_file():
        pytest.skip("the papers' tables (../shared/data/paper_results.csv) are not on this machine")
    with open(PAPERS, encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["source"] in SOURCES]


def test_every_quoted_number_is_in_the_papers_and_the_other_way_round() -> None:
    """Exact: the same decimals, typed once. Left out on purpose: two latencies that look swapped, and speed-ups."""
    papers = {
        (row["model"], row["resolution"], row["metric"], float(row["value"]))
        for row in read_papers()
        if row["metric"] != "speedup"
    }
    swapped = {("Sana-0.6B", "512", "latency", 0.8), ("Sana-1.6B", "512", "latency", 0.6)}
    assert swapped <= papers
    assert ours() == papers - swapped


def test_every_quoted_size_hardware_and_place_is_the_papers() -> None:
    found = {}
    for row in read_papers():
        paper = row["source"].partition(" Table")[0].partition(" Fig")[0]
        place = row["source"].removeprefix(paper).strip()
        key = (paper, row["model"], row["resolution"])
        stated = found.setdefault(key, {"sizes": set(), "hardware": set(), "places": {}})
        stated["sizes"] |= {float(row["params_b"])} if row["params_b"] else set()
        if row["metric"] == "latency":
            named = [row["hardware"], row["precision"]]
            stated["hardware"].add(", ".join(part for part in named if part not in ("", "unstated")))
        stated["places"].setdefault(row["metric"], set()).add(place)
    for row in of_the_csv():
        paper = row.paper.replace(", arXiv", " arXiv")
        paper = "NVlabs/Sana README.md (performance table)" if "README" in paper else paper
        stated = found[paper, row.model, str(row.resolution or "unstated")]
        assert stated["sizes"] == ({row.parameters_b} - {None})
        if row.latency_s is not None:
            assert stated["hardware"] == {row.hardware}
        for metric, key in row.numbers if row.tables else ():
            assert row.tables[metric] in stated["places"][metric_name(metric, key)], (row.model, metric)


def test_each_row_has_a_known_kind_and_names_its_source() -> None:
    assert all(row.kind in KINDS for row in PUBLISHED)
    assert len({(row.paper, row.model, row.resolution, row.benchmark) for row in PUBLISHED}) == len(PUBLISHED)
    row = next(r for r in PUBLISHED if (r.model, r.resolution) == ("Sana-0.6B", 1024))
    assert row.source({"geneval"}) == "SANA, arXiv:2410.10629, Table 7, Table 10"  # speed is in Table 7
    assert row.source({"dpg"}) == "SANA, arXiv:2410.10629, Table 7, Table 11"
    pruned = next(r for r in PUBLISHED if r.kind == "pruned")
    assert pruned.source({"geneval"}) == "SANA-1.5, arXiv:2501.18427v4, Table 3"


def test_a_table_holds_only_what_was_measured_on_its_prompts() -> None:
    geneval = published_table("full", "geneval", ("geneval", "clip_score", "fid"))
    assert geneval is not None
    assert geneval.metrics == {"geneval"}  # the papers' FID and CLIP score are over MJHQ-30K
    mjhq = published_table("full", "mjhq30k", ("fid", "clip_score"))
    assert mjhq is not None
    assert mjhq.columns == (("fid", "overall"), ("clip_score", "overall"))
    assert published_table("full", "mjhq30k", ("geneval",)) is None
    assert published_table("full", "latency", ("fid",)) is None
    assert published_table("micro", "geneval", ("geneval",)) is None


METRIC_OF = {
    "mjhq30k": "fid",
    "dpg_bench": "dpg",
    "hpdv2": "hpsv2.1",
    "longtext_zh": "longtext",
    "oneig": "oneig_text",
}


def full_board(benchmark: str, column: Column) -> Leaderboard:
    """Two measured variants of the full tier on one benchmark."""
    entries = [
        entry(name, 0.6, 5.0, numbers={column.metric: cell(name, column, value, 0.01, benchmark=benchmark)})
        for name, value in (("mine", 0.6), ("yours", 0.3))
    ]
    return board(table(*entries, tier="full", benchmark=benchmark, columns=[column]))


BENCHMARKS_WITH_ROWS = (
    *("geneval", "dpg_bench", "mjhq30k", "image_reward"),
    *("geneval2", "hpdv2", "longtext", "longtext_zh", "oneig"),
)


@pytest.mark.parametrize("benchmark", BENCHMARKS_WITH_ROWS)
def test_quoted_rows_are_marked_and_never_ranked(benchmark: str) -> None:
    metric = METRIC_OF.get(benchmark, benchmark)
    made = full_board(
        benchmark, Column(metric=metric, protocol="p@1", unit="", higher_is_better=metric != "fid")
    )
    pages = render_leaderboard(made)
    rows = read_csv(made)
    measured = [row for row in rows if row["source"] == "measured"]
    quoted = [row for row in rows if row["source"].startswith("quoted: ")]
    assert len(measured) + len(quoted) == len(rows)
    # Out of the two measured ones: quoted rows are better and worse than both, and count for nothing.
    assert sorted((row["rank_best"], row["rank_worst"]) for row in measured) == [("1", "1"), ("2", "2")]
    assert {(row["rank_best"], row["rank_worst"], row["protocol"]) for row in quoted} == {
        ("", "", "as published")
    }
    assert {row["metric"] for row in quoted} == {metric}
    shown = published_table("full", benchmark, (metric,))
    assert shown is not None
    page = Page(pages["leaderboard.html"])
    for row in shown.rows:
        assert row.title in page.visible
        assert all(text in pages["leaderboard.md"].replace("\\", "") for text in (row.title, row.paper))
    assert f"{len(shown.rows)} quoted rows" in page.visible
    assert page.text.count("quoted") == len(shown.rows)
    assert page.text.count("of 2") == 2


def test_quoted_numbers_enter_no_plot_and_no_micro_page() -> None:
    made = full_board("geneval", replace(GENEVAL, protocol="geneval/official@1"))
    drawings = render_leaderboard(made)["leaderboard.html"].split("<figure")[1:]
    models = {row.model for row in PUBLISHED}
    assert drawings
    assert not any(model in drawing.split("</figure>")[0] for drawing in drawings for model in models)
    micro = render_leaderboard(board(table(entry("a", 0.6, 1.0), entry("b", 0.5, 2.0))))
    assert not any(
        word in page for page in micro.values() for word in ("arXiv", "Published numbers", "quoted: ")
    )


def test_all_published_rows_appear_somewhere() -> None:
    shown: set[int] = set()
    metrics = tuple({metric for row in PUBLISHED for metric, _ in row.numbers})
    for benchmark in BENCHMARKS_WITH_ROWS:
        found = published_table("full", benchmark, metrics)
        assert found is not None
        shown |= {id(row) for row in found.rows}
    assert shown == {id(row) for row in PUBLISHED}


def test_rows_stand_under_the_names_that_metrics_have() -> None:
    """A name that no metric has would keep its rows from every leaderboard."""
    for name in set(BENCHMARKS_WITH_ROWS) & set(BENCHMARKS.names()):
        metrics = tuple(BENCHMARKS.build(name).metric_names)
        found = published_table("full", name, metrics)
        assert found is not None, name
        assert found.rows, name
        assert found.metrics <= set(metrics)


def test_longtext_rows_are_of_one_language() -> None:
    english, chinese = (published_table("full", name, ("longtext",)) for name in ("longtext", "longtext_zh"))
    assert english is not None
    assert chinese is not None
    values = [
        {row.model: row.numbers["longtext", "overall"] for row in table.rows} for table in (english, chinese)
    ]
    assert values[0].keys() == values[1].keys()
    assert (values[0]["GPT Image 1"], values[1]["GPT Image 1"]) == (0.956, 0.619)


def test_rows_of_2026_are_the_gathered_ones() -> None:
    if not SPEC.is_file():
        pytest.skip("the gathered facts (../shared/spec/field_2026.md) are not on this machine")
    text = " ".join(SPEC.read_text(encoding="utf-8").split())
    for model, *_, alignment, words, style, diversity in _ONEIG_ROWS:
        (reasoning,) = re.findall(rf"{re.escape(model)} {short(alignment)} {short(words)} (\.\d+) ", text)
        line = f"{model} {short(alignment)} {short(words)} {reasoning} {short(style)} {short(diversity)}"
        assert line in text
    for model, english, chinese in _LONGTEXT_ROWS:
        assert f"{model} {short(english)}/{short(chinese)}" in text
    for model, value, _ in _GENEVAL2_ROWS:
        assert f"{model} {value}" in text
    sprint = {match[1]: row for row in PUBLISHED if (match := SPRINT.fullmatch(row.model))}
    assert sprint.keys() == {"0.6B", "1.6B"}
    for size, row in sprint.items():
        fid, clip, geneval = (row.numbers[name, "overall"] for name in ("fid", "clip_score", "geneval"))
        scores = f"FID {fid:.2f}, CLIP {clip:.2f}, GenEval {geneval:.2f}"
        assert f"{size} {row.throughput:.2f} img/s, {row.latency_s:.2f} s, {scores}" in text


def test_rows_of_hps_are_means_of_their_styles() -> None:
    for model, *versions in _HPDV2_ROWS:
        for *styles, overall in versions:
            # Five numbers of two decimals.
            assert abs(sum(styles) / 4 - overall) <= 0.01 + 1e-9, model


def short(value: float) -> str:
    return f"{value:.3f}"[1:]
