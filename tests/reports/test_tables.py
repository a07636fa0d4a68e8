import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sana_reports import ReportData, SummaryCell, leaderboard_table, render_terminal, write_report
from sana_reports.tables import flatten, leader, metric_blocks, setting_rows, verdict_changes

FIRST, SECOND = "sana-micro-20-steps", "sana-micro-8-steps"


def change_cells(data: ReportData, matches: Callable[[SummaryCell], bool], **changes: object) -> ReportData:
    cells = [replace(cell, **changes) if matches(cell) else cell for cell in data.summaries]
    return replace(data, summaries=cells)


def test_metric_blocks_put_the_overall_row_first_and_keep_the_given_task_order(report: ReportData) -> None:
    blocks = metric_blocks(replace(report, summaries=list(reversed(report.summaries))))
    geneval = next(block for block in blocks if block.metric == "geneval")
    given = [
        cell.key for cell in reversed(report.summaries) if cell.variant == SECOND and cell.metric == "geneval"
    ]
    assert [row.key for row in geneval.rows] == ["overall", *(key for key in given if key != "overall")]
    assert [cell.variant for cell in geneval.rows[0].cells if cell] == [FIRST, SECOND]


def test_the_task_of_prompts_that_name_none_is_not_told_twice(report: ReportData) -> None:
    def keys(data: ReportData) -> list[str]:
        return [row.key for row in metric_blocks(data)[0].rows]

    overall = [cell for cell in report.summaries if cell.metric == "geneval" and cell.key == "overall"]
    again = [replace(cell, key="all") for cell in overall]
    assert keys(replace(report, summaries=overall + again)) == ["overall"]
    # Beside others it is a task, and alone all there is.
    others = [replace(cell, key="night") for cell in overall]
    assert keys(replace(report, summaries=overall + again + others)) == ["overall", "all", "night"]
    assert keys(replace(report, summaries=again)) == ["all"]


def test_numbers_of_different_protocols_never_share_a_row(report: ReportData) -> None:
    data = change_cells(
        report, lambda cell: cell.metric == "fid" and cell.variant == SECOND, protocol="fid/clean@1"
    )
    rows = {block.protocol: block.rows[0].cells for block in metric_blocks(data) if block.metric == "fid"}
    assert [cell is None for cell in rows["fid/clip-micro@1"]] == [False, True]
    assert [cell is None for cell in rows["fid/clean@1"]] == [True, False]
    # Neither has all the numbers that the other has, so neither is ranked.
    assert [row["rank"] for row in leaderboard_table(data)] == [None, None]
    assert "no fid under fid/clip-micro@1" in leaderboard_table(data)[1]["reasons"]


def test_two_numbers_in_one_cell_are_refused(report: ReportData) -> None:
    with pytest.raises(ValueError, match=r"two values of geneval \(overall\)"):
        metric_blocks(replace(report, summaries=[*report.summaries, report.summaries[0]]))


def test_number_of_an_unknown_variant_is_refused(report: ReportData) -> None:
    stranger = replace(report.summaries[0], variant="stranger")
    with pytest.raises(ValueError, match="unknown variant 'stranger'"):
        metric_blocks(replace(report, summaries=[stranger]))


def test_leaderboard_ranks_by_the_first_metric_in_its_better_direction(report: ReportData) -> None:
    assert [(row["rank"], row["variant"]) for row in leaderboard_table(report)] == [(1, FIRST), (2, SECOND)]
    better = change_cells(
        report, lambda c: c.variant == SECOND and c.metric == "geneval" and c.key == "overall", value=0.99
    )
    assert [(row["rank"], row["variant"]) for row in leaderboard_table(better)] == [(1, SECOND), (2, FIRST)]
    # With FID first, lower wins.
    fid_first = replace(report, summaries=sorted(report.summaries, key=lambda cell: cell.metric != "fid"))
    assert [row["variant"] for row in leaderboard_table(fid_first)] == [FIRST, SECOND]


def test_equal_values_share_a_rank(report: ReportData) -> None:
    tied = change_cells(report, lambda cell: cell.metric == "geneval" and cell.key == "overall", value=0.5)
    assert [row["rank"] for row in leaderboard_table(tied)] == [1, 1]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"n_samples": 35}, "geneval (overall): 35/36 samples"),
        ({"value": float("nan")}, "geneval (overall): no value"),
    ],
    ids=["missing-samples", "no-value"],
)
def test_incomplete_variant_is_never_ranked_even_with_the_best_value(
    report: ReportData, changes: dict[str, float], reason: str
) -> None:
    data = change_cells(
        report,
        lambda cell: cell.variant == FIRST and cell.metric == "geneval" and cell.key == "overall",
        **({"value": 1.0} | changes),
    )
    table = leaderboard_table(data)
    assert [(row["rank"], row["variant"]) for row in table] == [(1, SECOND), (None, FIRST)]
    assert table[1]["reasons"] == [reason]
    assert all(leader(data, row) is None for block in metric_blocks(data) for row in block.rows)


def test_an_incomplete_task_keeps_the_variant_out_of_the_ranking(report: ReportData) -> None:
    data = change_cells(report, lambda cell: cell.variant == FIRST and cell.key == "colors", n_samples=5)
    assert [row["rank"] for row in leaderboard_table(data)] == [1, None]


def test_stated_reasons_keep_a_variant_out_of_the_ranking(report: ReportData) -> None:
    failed = replace(report.variants[0], incomplete_reasons=("2 images failed",))
    data = replace(report, variants=[failed, report.variants[1]])
    assert [(row["rank"], row["variant"]) for row in leaderboard_table(data)] == [(1, SECOND), (None, FIRST)]


def test_variant_without_scores_is_not_ranked(report: ReportData) -> None:
    data = replace(report, summaries=[])
    assert [(row["rank"], row["reasons"]) for row in leaderboard_table(data)] == [(None, ["no scores"])] * 2


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0.9, 0.85, 0.95), (0.5, 0.45, 0.55), (0, True)),
        ((0.6, 0.5, 0.7), (0.5, 0.4, 0.6), (0, False)),
        ((0.4, 0.3, 0.45), (0.5, 0.46, 0.6), (1, True)),
        ((0.5, 0.4, 0.6), (0.5, 0.3, 0.7), None),
    ],
    ids=["clear", "overlapping", "second-column", "equal"],
)
def test_leader_says_whether_the_intervals_are_clear(
    report: ReportData,
    first: tuple[float, float, float],
    second: tuple[float, float, float],
    expected: tuple[int, bool] | None,
) -> None:
    data = report
    for name, (value, low, high) in ((FIRST, first), (SECOND, second)):
        data = change_cells(
            data,
            lambda c, name=name: (c.variant, c.metric, c.key) == (name, "geneval", "overall"),
            value=value,
            low=low,
            high=high,
        )
    overall = metric_blocks(data)[0].overall
    assert overall is not None
    assert leader(data, overall) == expected


def test_leader_of_a_lower_is_better_metric(report: ReportData) -> None:
    fid = next(block for block in metric_blocks(report) if block.metric == "fid")
    assert leader(report, fid.rows[0]) == (0, True)  # 12.4 [11.2, 13.9] against 15.5 [14.3, 17.0]


def test_verdict_changes_count_each_pair_once(report: ReportData) -> None:
    (change,) = verdict_changes(report)
    pairs: dict[tuple[str, int], dict[str, bool | None]] = {}
    for sample in report.samples:
        pairs.setdefault((sample.prompt_id, sample.index), {})[sample.variant] = sample.correct
    found = [(pair[FIRST], pair[SECOND]) for pair in pairs.values()]
    assert change.counts == (
        found.count((False, True)),
        found.count((True, False)),
        found.count((True, True)),
        found.count((False, False)),
        0,
    )
    assert sum(change.counts) == 36


def test_missing_sample_is_not_counted_as_a_verdict(report: ReportData) -> None:
    (change,) = verdict_changes(replace(report, samples=report.samples[1:]))
    assert (sum(change.counts), change.not_comparable) == (36, 1)


def test_settings_that_differ_come_first(report: ReportData) -> None:
    rows = setting_rows(report)
    assert [(row.name, row.values) for row in rows if row.differs] == [("sampler.steps", ("20", "8"))]
    assert rows[0].differs
    assert not rows[1].differs


def test_setting_that_one_variant_lacks_differs(report: ReportData) -> None:
    extra = replace(report.variants[1], settings={**report.variants[1].settings, "pruned": True})
    rows = setting_rows(replace(report, variants=[report.variants[0], extra]))
    assert next(row for row in rows if row.name == "pruned").values == (None, "true")


def test_flatten_keeps_every_leaf() -> None:
    nested = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": "text", "f": {}, "g": None}
    assert flatten(nested) == {"a.b": "1", "a.c.d": "[1, 2]", "e": "text", "f": "{}", "g": "null"}


def test_variants_come_grouped_by_kind_in_every_format(report: ReportData, tmp_path: Path) -> None:
    first, second = report.variants
    scaled = replace(first, kind="inference_scaled", derived_from=second.name)
    grouped = replace(report, variants=[scaled, second])
    assert [variant.name for variant in grouped.variants] == [second.name, first.name]
    assert [(kind, len(found)) for kind, found in grouped.groups] == [("full", 1), ("inference_scaled", 1)]
    paths = write_report(grouped, tmp_path)
    html = paths.html.read_text(encoding="utf-8")
    assert re.search(
        r'<th scope="colgroup" colspan="1">Full-size models.*Inference-scaled models', html, re.S
    )
    assert f"inference-scaled from {second.name}" in html
    assert (
        f"Full-size models | Inference-scaled models, inference-scaled from {second.name} |"
        in paths.markdown.read_text()
    )
    rows = list(csv.DictReader(paths.csv.open(encoding="utf-8")))
    assert {(r["variant"], r["kind"], r["derived_from"]) for r in rows} == {
        (first.name, "inference_scaled", second.name), (second.name, "full", ""),
    }  # fmt: skip
    assert f"inference-scaled from {second.name}" in render_terminal(grouped)
    # One kind needs no headings.
    assert "colgroup" not in write_report(report, tmp_path).html.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="has the unknown kind 'quantised'"):
        replace(report, variants=[replace(first, kind="quantised"), second])
