"""Score against parameters, depth kept and compute; what scaling at inference costs beside what it gains."""

import csv
import io
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import pytest

from sana_reports import Gain, ImageCost, ReportData, SummaryCell
from sana_reports.csv_table import render_csv
from sana_reports.html_page import render_html
from sana_reports.labels import flops_unit
from sana_reports.leaderboard import render_leaderboard
from sana_reports.leaderboard_data import Entry, from_json, to_json
from sana_reports.markdown import render_markdown
from sana_reports.report_plots import report_quality_plots
from sana_reports.scaling import report_scaling, table_scaling
from sana_reports.tables import verdict_changes
from sana_reports.terminal import render_terminal
from tests.reports import synthetic
from tests.reports.boards import FID, GENEVAL, board, cell, entry, plots, table

DEPTH, COMPUTE, SIZE = (
    "GenEval against depth kept",
    "GenEval against compute at inference",
    "GenEval against parameters",
)


def made(name: str, score: float, **changes: Any) -> Entry:
    return replace(entry(name, score, 10.0), latency=None, **changes)


def cost(gflop: float, generated: float = 1.0, judging: float | None = None, **changes: Any) -> ImageCost:
    spent = ImageCost(
        n_images=20, n_delivered=20, generated=generated, generation_s=0.5 * generated, generation_flops=gflop * 1e9,
        judge_s=0.1 * generated if judging else 0.0, judge_flops=judging and judging * 1e9, device="cpu A",
    )  # fmt: skip
    return replace(spent, **changes)


def gained(numbers: dict[str, SummaryCell], over: str) -> dict[str, SummaryCell]:
    geneval = replace(numbers["geneval"], gain=Gain(over=over, difference=0.085, low=0.052, high=0.118))
    fid = replace(numbers["fid"], gain=Gain(over=over, difference=-1.5, low=math.nan, high=math.nan))
    return {"geneval": geneval, "fid": fid}


BASE = made("base", 0.40, parameters=1_000_000, depth=8, cost=cost(1.0))
GROWN = made("grown", 0.50, kind="grown", derived_from="base", parameters=2_000_000, depth=20, cost=cost(2.0))
CUT = {"kind": "pruned", "cut_from": "grown", "cut_from_depth": 20}
P75 = made("p75", 0.42, derived_from="grown", depth=15, parameters=1_500_000, cost=cost(1.5), **CUT)
P50 = made("p50", 0.30, derived_from="p75", depth=10, parameters=1_100_000, cost=cost(1.1), **CUT)
BEST = replace(
    made("best", 0.60, kind="inference_scaled", derived_from="grown", parameters=2_000_000, depth=20),
    cost=cost(30.0, 16.0, 2.0),
)
BEST = replace(BEST, numbers=gained(dict(BEST.numbers), "grown"))
FAMILY = (BASE, GROWN, P75, P50, BEST)


def drawing(entries: tuple[Entry, ...], caption: str) -> ElementTree.Element:
    return ElementTree.fromstring(dict(plots(table(*entries)))[caption])


def markers(svg: ElementTree.Element) -> list[tuple[float, float]]:
    """Where the markers are, in the order of the entries."""
    places = [
        group.attrib.get("transform", "") for group in svg.iter("g") if group.attrib.get("class") != "key"
    ]
    found = [text.removeprefix("translate(").removesuffix(")").split() for text in places if text]
    return [(float(x), float(y)) for x, y in found]


def lines(svg: ElementTree.Element) -> set[tuple[tuple[float, float], tuple[float, float]]]:
    found = [line.attrib for line in svg.iter("line") if line.attrib["class"] == "origin"]
    return {((float(a["x1"]), float(a["y1"])), (float(a["x2"]), float(a["y2"]))) for a in found}


def ticks(svg: ElementTree.Element) -> dict[str, float]:
    """The places of the numbers below the axis."""
    return {
        str(text.text): float(text.attrib["x"]) for text in svg.iter("text") if text.attrib.get("y") == "296"
    }


def test_depth_kept_is_of_the_model_that_was_cut() -> None:
    svg = drawing(FAMILY, DEPTH)
    # The base was not cut, and best-of-N cuts nothing.
    description = svg.findtext("desc")
    assert description == (
        "grown (Grown models): 0.500 at 1 share of blocks kept; p75 (Pruned models): 0.420 at 0.75 share of blocks kept; "
        "p50 (Pruned models): 0.300 at 0.5 share of blocks kept."
    )
    (whole, _), (three, _), (half, _) = markers(svg)
    at = ticks(svg)
    scale = (at["1"] - at["0"]) / 1.0
    for share, x in ((1.0, whole), (0.75, three), (0.5, half)):
        assert x == pytest.approx(at["0"] + share * scale, abs=0.2)  # coordinates are printed to 0.1


def test_compute_is_logarithmic_and_counts_the_judge() -> None:
    svg = drawing(FAMILY, COMPUTE)
    assert "best (Inference-scaled models): 0.600 at 32 GFLOP per delivered image" in (
        svg.findtext("desc") or ""
    )
    xs = [x for x, _ in markers(svg)]
    # Twice the work is as far from 1 to 2 as 16 times is in four such steps.
    octave = xs[1] - xs[0]
    assert xs[4] - xs[1] == pytest.approx(4 * octave, abs=0.5)
    at = ticks(svg)
    assert at["2"] - at["1"] == pytest.approx(octave, abs=0.2)
    assert list(at) == ["1", "2", "5", "10", "20"]


def test_the_interval_is_the_error_bar() -> None:
    svg = drawing(FAMILY, COMPUTE)
    bars = [line.attrib for line in svg.iter("line") if line.attrib["class"] == "range"]
    assert len(bars) == len(FAMILY)
    ys = {
        str(text.text): float(text.attrib["y"]) for text in svg.iter("text") if text.attrib.get("x") == "44"
    }
    pixels = (ys["0.6"] - ys["0.3"]) / 0.3
    for attributes, one in zip(bars, FAMILY, strict=True):
        number = one.numbers["geneval"]
        for name, value in (("y1", number.low), ("y2", number.high)):
            assert float(attributes[name]) == pytest.approx(ys["0.3"] + (value - 0.3) * pixels, abs=0.3)


@pytest.mark.parametrize("caption", [SIZE, COMPUTE])
def test_lines_join_a_family(caption: str) -> None:
    svg = drawing(FAMILY, caption)
    base, grown, p75, p50, best = markers(svg)
    assert lines(svg) == {(base, grown), (grown, p75), (p75, p50), (grown, best)}
    names = [text.text for text in svg.iter("text")]
    assert all(one.variant in names for one in FAMILY)


def test_a_line_passes_over_a_member_without_the_number() -> None:
    svg = drawing((GROWN, replace(P75, cost=None), P50), COMPUTE)
    grown, p50 = markers(svg)
    assert lines(svg) == {(grown, p50)}


def test_a_plot_needs_two_variants_with_the_number() -> None:
    bare = replace(GROWN, cost=None, parameters=None)
    captions = [caption for caption, _ in plots(table(BASE, bare))]
    assert captions == []
    assert [caption for caption, _ in plots(table(BASE, GROWN))] == [SIZE, COMPUTE]
    # One pruned variant, and what it was cut from is not here.
    assert DEPTH not in dict(plots(table(BASE, P75)))
    uncounted = replace(BEST, cost=replace(cost(1.0), generation_flops=None))
    assert COMPUTE not in dict(plots(table(BASE, uncounted)))


@pytest.mark.parametrize(
    ("values", "unit"), [([4e12, 1e11], "TFLOP"), ([5e12, 5e10], "GFLOP"), ([1e8], "GFLOP"), ([3e6], "MFLOP")]
)
def test_units_suit_the_smallest(values: list[float], unit: str) -> None:
    assert flops_unit(values)[0] == unit


def test_the_cost_stands_beside_the_gain() -> None:
    (text_table,) = table_scaling(table(*FAMILY))
    assert list(text_table.header) == [
        "", "gain over", "gain in GenEval", "gain in FID", "images generated", "generation, s", "judging, s",
        "generation, GFLOP", "judging, GFLOP", "compute",
    ]  # fmt: skip
    assert [list(row) for row in text_table.rows] == [
        ["grown", "\u2013", "\u2013", "\u2013", "1.00", "0.500", "\u2013", "2", "\u2013", "\u2013"],
        ["best", "grown", "+0.085 [+0.052, +0.118]", "-1.50 (no paired interval)", "16.00", "8.000", "1.600", "30", "2",
         "16.00 times"],
    ]  # fmt: skip
    assert (
        "best: 320 images generated for 20 delivered, 160.0 s of generation and 32.0 s of judging in all."
        in text_table.notes
    )
    assert "Seconds on cpu A." in text_table.notes
    assert any("GenEval: higher is better; FID: lower is better" in note for note in text_table.notes)
    assert table_scaling(table(BASE, GROWN, P75)) == []


def test_what_was_not_counted_says_so() -> None:
    partly = replace(BEST, cost=cost(30.0, 16.0, 2.0, n_images=12, judge_flops=None, device="cpu B"))
    (text_table,) = table_scaling(
        table(GROWN, partly, replace(BEST, variant="old", fingerprint="01", cost=None))
    )
    rows = {row[0]: row for row in text_table.rows}
    assert rows["best"][8] == "not counted"
    assert rows["best"][9] == "15.00 times"
    assert set(rows["old"][4:]) == {"\u2013"}
    notes = "\n".join(text_table.notes)
    assert "192 images generated for 12 delivered (of 20; the cost of the others was not recorded)" in notes
    assert "old: the cost of its images was not recorded." in notes
    assert "Seconds on cpu A: grown." in notes
    assert "Seconds on cpu B: best." in notes


def test_every_page_of_the_leaderboard_has_the_numbers() -> None:
    pages = render_leaderboard(board(table(*FAMILY)))
    assert "+0.085 [+0.052, +0.118]" in pages["leaderboard.html"]
    assert "+0.085 \\[+0.052, +0.118\\]" in pages["leaderboard.md"]
    for caption in (DEPTH, COMPUTE, SIZE):
        assert f"<figcaption>{caption}</figcaption>" in pages["leaderboard.html"]
    rows = list(csv.DictReader(io.StringIO(pages["leaderboard.csv"])))
    row = next(row for row in rows if (row["variant"], row["metric"]) == ("best", "geneval"))
    assert [float(row[name]) for name in ("gain", "gain_low", "gain_high")] == [0.085, 0.052, 0.118]
    assert [float(row[name]) for name in ("generated_per_image", "generation_s", "judge_s")] == [
        16.0,
        8.0,
        1.6,
    ]
    assert (float(row["generation_flops"]), float(row["judge_flops"])) == (30e9, 2e9)
    pruned = next(row for row in rows if row["variant"] == "p50")
    assert (pruned["depth"], pruned["cut_from_depth"], pruned["gain"]) == ("10", "20", "")


def test_json_reads_back_costs_and_gains() -> None:
    first = board(table(*FAMILY))
    again = from_json(to_json(first))
    assert to_json(again) == to_json(first)
    assert render_leaderboard(again) == render_leaderboard(first)
    # As written before there were costs.
    old = to_json(board(table(A_OLD)))
    for name in ("cost", "cut_from", "cut_from_depth", "depth", "gain"):
        old = "\n".join(line for line in old.splitlines() if f'"{name}":' not in line)
    assert from_json(old) == from_json(to_json(board(table(A_OLD))))


A_OLD = replace(
    made("old", 0.5), numbers={"geneval": cell("old", GENEVAL, 0.5, 0.1), "fid": cell("old", FID, 2, 1)}
)


@pytest.fixture
def family(report: ReportData) -> ReportData:
    """The synthetic run, its second variant scaling the first at inference."""
    first, second = report.variants
    costs = {"geneval": cost(1.0)}, {"geneval": cost(4.0, 4.0, 0.5)}
    variants = [
        replace(first, parameters=1_000_000, depth=6, costs=costs[0]),
        replace(
            second,
            kind="inference_scaled",
            derived_from=first.name,
            parameters=1_000_000,
            depth=6,
            costs=costs[1],
        ),
    ]
    gain = Gain(over=first.name, difference=0.125, low=0.05, high=0.2)
    summaries = [
        replace(one, gain=gain)
        if (one.variant, one.metric, one.key) == (second.name, "geneval", "overall")
        else one
        for one in report.summaries
    ]
    return replace(report, variants=variants, summaries=summaries)


def test_a_report_shows_costs_gains_and_plots(family: ReportData, tmp_path: Any) -> None:
    captions = [caption for caption, _ in report_quality_plots(family)]
    assert captions[1:] == [SIZE, COMPUTE]
    (text_table,) = report_scaling(family)
    assert text_table.rows[1][2:] == (
        "+0.125 [+0.050, +0.200]", "\u2013", "\u2013", "4.00", "2.000", "0.400", "4", "0.5", "4.50 times"
    )  # fmt: skip
    page = render_html(family, tmp_path)
    assert page.count("+0.125 [+0.050, +0.200]") == 1
    assert page.index('id="scaling-heading"') < page.index("+0.125 [+0.050, +0.200]")
    assert "+0.125 \\[+0.050, +0.200\\]" in render_markdown(family)
    assert "+0.125 [+0.050, +0.200]" in render_terminal(family)
    rows = list(csv.DictReader(io.StringIO(render_csv(family))))
    found = [(row["metric"], row["gain"], row["gain_over"]) for row in rows if row["gain"]]
    assert found == [("geneval", "0.125", family.variants[0].name)]
    assert {(row["parameters"], row["depth"]) for row in rows} == {("1000000", "6")}


def test_an_incomplete_variant_has_a_cost_but_no_gain_and_no_place_in_a_plot(family: ReportData) -> None:
    first, second = family.variants
    short = replace(family, variants=[first, replace(second, incomplete_reasons=["geneval has 5/36 images"])])
    (text_table,) = report_scaling(short)
    assert text_table.rows[1][5] == "4.00"
    assert set(text_table.rows[1][2:5]) == {"incomplete"}
    assert report_quality_plots(short) == []


def test_verdicts_are_compared_with_what_a_variant_was_made_from(images: Any, tmp_path: Any) -> None:
    data = synthetic.make_report(images / "three", 3, prompts_per_task=2, images_per_prompt=1)
    a, b, c = data.variants
    assert [(x.variant, x.reference) for x in verdict_changes(data)] == [(b.name, a.name), (c.name, a.name)]
    derived = replace(data, variants=[a, b, replace(c, kind="pruned", derived_from=b.name)])
    changes = verdict_changes(derived)
    assert [(x.variant, x.reference) for x in changes] == [(b.name, a.name), (c.name, b.name)]
    verdicts = {(s.variant, s.prompt_id): s.correct for s in data.samples}
    pairs = [(verdicts[b.name, prompt], verdicts[c.name, prompt]) for _, prompt in verdicts if _ == b.name]
    assert (changes[1].gained, changes[1].lost) == (pairs.count((False, True)), pairs.count((True, False)))
    page = render_html(derived, tmp_path)
    assert 'data-filter-verdict="pair:2:1"' in page
    # What it was made from is in another run: the first variant stands in.
    lost = replace(data, variants=[a, b, replace(c, kind="pruned", derived_from="elsewhere")])
    assert [x.reference for x in verdict_changes(lost)] == [a.name, a.name]


def test_the_samples_behind_a_compared_pair_can_be_chosen(images: Any, tmp_path: Any) -> None:
    data = synthetic.make_report(images / "six", 6, prompts_per_task=1, images_per_prompt=1)
    *rest, last = data.variants
    page = render_html(
        replace(data, variants=[*rest, replace(last, kind="pruned", derived_from=rest[3].name)]), tmp_path
    )
    for pair in ("pair:5:3", "pair:3:5", "pair:1:0"):
        assert f'<option value="{pair}">' in page
        assert f'data-filter-verdict="{pair}"' in page
    assert '<option value="pair:1:2">' not in page
