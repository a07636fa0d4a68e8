import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sana_reports import ReportData
from sana_reports.plots import nice_ticks, short_names, task_bars, value_domain
from sana_reports.tables import MetricBlock, metric_blocks

VARIANTS = {"sana-micro-20-steps": 0, "sana-micro-8-steps": 1}


def geneval_block(data: ReportData) -> MetricBlock:
    return next(block for block in metric_blocks(data) if block.metric == "geneval")


def parse(block: MetricBlock, *, wide: bool = True) -> ElementTree.Element:
    return ElementTree.fromstring(task_bars(block, VARIANTS, wide=wide))


@pytest.mark.parametrize("wide", [True, False], ids=["wide", "narrow"])
def test_bars_are_proportional_and_directly_labelled(report: ReportData, wide: bool) -> None:
    block = geneval_block(report)
    svg = parse(block, wide=wide)
    cells = [cell for row in block.tasks for cell in row.cells if cell is not None]
    widths = [float(bar.attrib["width"]) for bar in svg.iter("rect")]
    assert len(widths) == len(cells) == 12
    full = widths[0] / cells[0].value
    for width, cell in zip(widths, cells, strict=True):
        assert width == pytest.approx(cell.value * full, abs=0.2)  # coordinates are printed to 0.1
    texts = [text.text for text in svg.iter("text")]
    assert [text for text in texts if text in ("Single object", "Color attribution")]
    assert texts.count("sana-micro-20-steps") == (6 if wide else 0)
    assert texts.count("sana-micr…20-steps") == (0 if wide else 6)  # both ends of a long name survive
    assert all(f"{cell.value:.3f}" in texts for cell in cells)


def test_whiskers_span_the_interval(report: ReportData) -> None:
    block = geneval_block(report)
    svg = parse(block)
    (bar, *_), (whisker, *_) = list(svg.iter("rect")), list(svg.iter("path"))
    cell = block.tasks[0].cells[0]
    assert cell is not None
    scale = float(bar.attrib["width"]) / cell.value
    start, rest = whisker.attrib["d"].removeprefix("M").split(" ", 1)
    end = rest.split("H", 1)[1].split("M", 1)[0]
    assert float(start) == pytest.approx(float(bar.attrib["x"]) + scale * cell.low, abs=0.2)
    assert float(end) == pytest.approx(float(bar.attrib["x"]) + scale * cell.high, abs=0.2)


def test_chart_has_an_accessible_name_and_description(report: ReportData) -> None:
    svg = parse(geneval_block(report))
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == "GenEval by task"
    description = svg.find("desc")
    assert description is not None
    assert (description.text or "").startswith(
        "Single object: sana-micro-20-steps 1.000 [1.000, 1.000], 6 images;"
    )


def test_missing_and_negative_numbers_are_drawn_honestly(report: ReportData) -> None:
    block = replace(geneval_block(report), unit="reward")
    first, second = block.rows[1], block.rows[2]
    low = replace(first.cells[0], value=-0.5, low=-0.8, high=-0.2, unit="reward")  # type: ignore[type-var]
    high = replace(second.cells[0], value=1.0, low=0.9, high=1.1, unit="reward")  # type: ignore[type-var]
    svg = parse(replace(block, rows=(replace(first, cells=(low, None)), replace(second, cells=(high, None)))))
    negative, positive = list(svg.iter("rect"))
    # Both bars touch zero: one from the left, one from the right.
    zero = float(negative.attrib["x"]) + float(negative.attrib["width"])
    assert float(positive.attrib["x"]) == pytest.approx(zero, abs=0.2)
    assert [text.text for text in svg.iter("text")].count("no value") == 2


def test_names_are_escaped(report: ReportData) -> None:
    svg = task_bars(geneval_block(report), {"<script>&\"'": 0, "b": 1}, wide=True)
    assert "<script" not in svg
    texts = [text.text for text in ElementTree.fromstring(svg).iter("text")]
    assert texts.count("<script>&\"'") == 6


def test_fractions_always_span_zero_to_one(report: ReportData) -> None:
    assert value_domain(geneval_block(report).tasks, "fraction", from_zero=True) == (0.0, 1.0)
    assert value_domain((), "points", from_zero=True) == (0.0, 1.0)


@given(low=st.floats(-1e3, 1e3), span=st.floats(1e-3, 1e4), n=st.integers(2, 8))
def test_ticks_are_few_increasing_and_inside(low: float, span: float, n: int) -> None:
    ticks = nice_ticks(low, low + span, n)
    assert 1 <= len(ticks) <= n + 1
    assert ticks == sorted(set(ticks))
    slack = 1e-9 * (abs(low) + span)  # ticks are rounded to 10 decimals
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)


def test_a_crowd_of_variants_drops_the_words_that_all_share() -> None:
    family = [
        f"sana15-micro-{name}" for name in ("base", "base-best-of-16", "pruned75", "pruned75-unrecovered")
    ]
    assert short_names(family, 40) == family
    crowd = [*family, "sana15-micro"]
    # The last word of a name stays, whatever the others are called.
    assert short_names(crowd, 30)[1:3] == ["…micro-base-best-of-16", "…micro-pruned75"]
    crowd[-1] = "sana15-micro-scratch"
    assert short_names(crowd, 30) == [
        "…base",
        "…base-best-of-16",
        "…pruned75",
        "…pruned75-unrecovered",
        "…scratch",
    ]
    assert short_names(crowd, 10)[3] == "…prun…ered"
    others = ["a", "b-c", "d", "e", "f"]
    assert short_names(others, 10) == others
