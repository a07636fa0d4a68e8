import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pandas
from hypothesis import given
from hypothesis import strategies as st

from sana_reports import ReportData, render_terminal, write_report
from sana_reports.csv_table import COLUMNS, csv_text, render_csv
from sana_reports.labels import FID_BIASED_BELOW
from sana_reports.markdown import render_markdown

TERMINAL = """\
GenEval on the micro world: suite geneval, micro tier (no CUDA device found)
Micro tier: these numbers come from a small world of coloured shapes and small models. They do not compare \
with published ones.
FID of fewer than 10,000 images is biased upwards: compare only at equal n.

   variant              GenEval (higher is better)  CLIP score (higher is better)  FID (lower is better)  n
                        geneval/micro@1             clip_score/micro@1             fid/clip-micro@1
-  -------------------  --------------------------  -----------------------------  ---------------------  --
1  sana-micro-20-steps  0.500 [0.400, 0.600]        27.00 [26.70, 27.30]           12.40 [11.20, 13.90]   36
1  sana-micro-8-steps   0.500 [0.400, 0.600]        27.00 [26.70, 27.30]           15.50 [14.30, 17.00]   36

Ranked by GenEval (geneval/micro@1). [95 % interval], n images.
"""


def with_fixed_numbers(data: ReportData) -> ReportData:
    """Round numbers, so that the expected text does not depend on the random scenes."""
    fixed = {"geneval": (0.5, 0.4, 0.6), "clip_score": (27.0, 26.7, 27.3)}
    cells = []
    for cell in data.summaries:
        if cell.metric in fixed:
            value, low, high = fixed[cell.metric]
            cell = replace(cell, value=value, low=low, high=high)
        cells.append(cell)
    return replace(data, summaries=cells)


def read_csv(data: ReportData) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_csv(data))))


def make_incomplete(data: ReportData) -> ReportData:
    """The first variant lacks an image but has the best value."""
    first = data.variants[0].name
    cells = [
        replace(cell, n_samples=35, value=1.0) if cell.variant == first and cell.key == "overall" else cell
        for cell in data.summaries
    ]
    return replace(data, summaries=cells, complete=False, incomplete_reasons=["1 of 72 images is missing"])


def test_terminal_table(report: ReportData) -> None:
    assert render_terminal(with_fixed_numbers(report)) == TERMINAL  # equal values share a rank


def test_a_fid_of_few_images_is_warned_of_and_of_many_not(report: ReportData) -> None:
    warning = "FID of fewer than 10,000 images is biased upwards: compare only at equal n."
    many = [
        replace(cell, n_samples=10_000, n_expected=10_000) if cell.metric == "fid" else cell
        for cell in report.summaries
    ]
    without = [cell for cell in report.summaries if cell.metric != "fid"]
    for render in (render_terminal, render_markdown):
        assert warning in render(report)
        assert "biased" not in render(replace(report, summaries=many))
        assert "biased" not in render(replace(report, summaries=without))


def test_the_bound_is_that_of_the_metric() -> None:
    from sana_bench.metrics.fid.frechet import BIASED_BELOW

    assert FID_BIASED_BELOW == BIASED_BELOW


def test_terminal_lists_incomplete_variants_below_without_a_rank(report: ReportData) -> None:
    lines = render_terminal(make_incomplete(report)).splitlines()
    heading = lines.index("Incomplete, not ranked:")
    above, below = lines[:heading], lines[heading + 1 :]
    assert any(line.startswith("1  sana-micro-8-steps") for line in above)
    assert below[0].startswith("-  sana-micro-20-steps")
    assert below[0].endswith("35/36")
    # All reasons of a variant in one line.
    assert below[1].startswith("   geneval (overall): 35/36 samples")
    assert below[2] == ""
    assert below[-2:] == ["This run is incomplete:", "   1 of 72 images is missing"]
    assert not any("sana-micro-20-steps" in line for line in above)


def test_terminal_text_cannot_carry_control_sequences(report: ReportData) -> None:
    hostile = "\x1b[2Jevil\r\nname"
    variants = [replace(report.variants[0], name=hostile), report.variants[1]]
    cells = [
        replace(cell, variant=hostile) if cell.variant == report.variants[0].name else cell
        for cell in report.summaries
    ]
    text = render_terminal(replace(report, variants=variants, summaries=cells))
    assert "\x1b" not in text
    assert "\r" not in text
    assert "[2Jevil name" in text


def test_terminal_without_scores_says_so(report: ReportData) -> None:
    text = render_terminal(replace(report, summaries=[]))
    assert "Incomplete, not ranked:" in text
    assert text.count("   no scores") == 2


def test_full_tier_has_no_micro_notice(report: ReportData) -> None:
    full = replace(report, tier="full", tier_reason="CUDA device found")
    assert "do not compare" not in render_terminal(full)
    assert "do not compare" not in render_markdown(full)


def test_every_format_names_the_licences_of_prompts(report: ReportData, tmp_path: Path) -> None:
    licences = {"geneval2": ["CC BY-NC 4.0, no commercial use"], "own": ["A", "B"]}
    line = "icence of the prompts: GenEval 2 CC BY-NC 4.0, no commercial use; own A, B"
    licensed = replace(report, prompt_licences=licences)
    pages = write_report(licensed, tmp_path)
    assert line in render_terminal(licensed)
    assert line in pages.markdown.read_text(encoding="utf-8").replace("\\", "")
    assert line in pages.html.read_text(encoding="utf-8")
    assert "icence of the prompts" not in render_terminal(report)


def test_csv_has_every_number_at_full_precision(report: ReportData) -> None:
    rows = read_csv(report)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == len(report.summaries)
    for row, cell in zip(rows, report.summaries, strict=True):
        assert (row["variant"], row["metric"], row["protocol"], row["key"]) == (
            cell.variant,
            cell.metric,
            cell.protocol,
            cell.key,
        )
        # Shortest-repr floats read back exactly.
        assert (float(row["value"]), float(row["low"]), float(row["high"])) == (
            cell.value,
            cell.low,
            cell.high,
        )
        assert (int(row["n_samples"]), int(row["n_expected"])) == (cell.n_samples, cell.n_expected)
        assert row["higher_is_better"] == str(cell.higher_is_better).lower()
        assert (row["tier"], row["ranked"]) == ("micro", "true")


def test_csv_marks_unranked_variants_and_leaves_missing_values_empty(report: ReportData) -> None:
    nan = replace(report.summaries[0], value=math.nan, low=math.nan, high=math.nan, n_samples=0)
    rows = list(
        csv.DictReader(io.StringIO(render_csv(replace(report, summaries=[nan, *report.summaries[1:]]))))
    )
    assert (rows[0]["value"], rows[0]["low"], rows[0]["high"]) == ("", "", "")
    assert {row["ranked"] for row in rows if row["variant"] == nan.variant} == {"false"}
    assert {row["ranked"] for row in rows if row["variant"] != nan.variant} == {"true"}


CELLS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.sampled_from(list("\r\n\v\x85\u2028,\"'")),
)  # fmt: skip


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=5))
def test_csv_gives_back_every_cell(rows: list[tuple[object, ...]]) -> None:
    text = csv_text(("a", "b", "c"), rows)
    header, *found = list(csv.reader(io.StringIO(text, newline="")))
    assert header == ["a", "b", "c"]
    for row, cells in zip(rows, found, strict=True):
        for value, cell in zip(row, cells, strict=True):
            if isinstance(value, bool):
                assert cell == str(value).lower()
            elif value is None or isinstance(value, str):
                assert cell == (value or "")
            else:
                assert type(value)(cell) == value


def test_a_carriage_return_breaks_no_row_of_the_report(report: ReportData) -> None:
    cells = [replace(cell, note="one\rtwo") for cell in report.summaries]
    text = render_csv(replace(report, summaries=cells))
    found = pandas.read_csv(io.StringIO(text, newline=""), keep_default_na=False)
    assert list(found["note"]) == ["one\rtwo"] * len(cells)
    assert text.count('"one\rtwo"') == len(cells)


def test_csv_text_is_never_a_spreadsheet_formula(report: ReportData) -> None:
    formula = '=HYPERLINK("x")'
    variants = [replace(report.variants[0], name=formula), report.variants[1]]
    cells = [
        replace(cell, variant=formula) for cell in report.summaries if cell.variant == report.variants[0].name
    ]
    rows = list(csv.DictReader(io.StringIO(render_csv(replace(report, variants=variants, summaries=cells)))))
    assert {row["variant"] for row in rows} == {f"'{formula}"}


def test_markdown_shows_variants_as_columns_with_interval_n_and_protocol(report: ReportData) -> None:
    text = render_markdown(with_fixed_numbers(report))
    assert "| Metric | Task | Protocol | sana-micro-20-steps | sana-micro-8-steps |" in text
    number = r"0.500 \[0.400, 0.600] n=36 (18)"
    heading = "**geneval: GenEval** (higher is better)"
    assert f"| {heading} | Overall | `geneval/micro@1` | {number} | {number} |" in text
    assert r"12.40 \[11.20, 13.90] n=36 (18) | 15.50 \[14.30, 17.00] n=36 (18) |" in text
    assert "| **sampler.steps** | `20` | `8` |" in text
    assert "| packages.torch | `2.15.0` |" in text
    assert "> **Micro tier: these numbers come from a small world" in text
    assert "incomplete" not in text


def test_markdown_says_what_is_incomplete(report: ReportData) -> None:
    text = render_markdown(make_incomplete(report))
    assert "> **This run is incomplete.**\n>\n> - 1 of 72 images is missing" in text
    assert "n=35/36 (18) **incomplete**" in text
    assert "- sana-micro-20-steps: geneval (overall): 35/36 samples" in text


def test_markdown_escapes_markup_and_table_separators(report: ReportData) -> None:
    settings = {"note": "a|b`c`", "link": "[x](y) <script>"}
    variant = replace(report.variants[0], settings=settings)
    text = render_markdown(
        replace(report, title="<script>alert(1)</script> | *x*", variants=[variant], summaries=[])
    )
    assert text.startswith("# &lt;script\\>alert(1)&lt;/script\\> \\| \\*x\\*\n")
    assert "| note | `` a\\|b`c` `` |" in text
    assert "| link | `[x](y) <script>` |" in text
