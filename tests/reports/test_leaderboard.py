import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from sana_reports import KINDS, Latency
from sana_reports.assets import script, script_hash
from sana_reports.leaderboard import render_leaderboard, write_leaderboard
from sana_reports.leaderboard_data import Column, Incomplete, Leaderboard, from_json, to_json
from sana_reports.leaderboard_text import CSV_COLUMNS, escape_latex, render_csv, render_latex, render_markdown
from sana_reports.ranking import RankRange, grouped, rank_ranges
from tests.reports.boards import FID, GENEVAL, board, cell, contrast, entry, plots, table
from tests.reports.test_html import HOSTILE, Page

A, B, C = entry("a", 0.60, 1.0), entry("b", 0.58, 2.0), entry("c", 0.40, 3.0)


def ranks(made, column=GENEVAL) -> list[str]:
    return [str(found) for found in rank_ranges(made, column)]


def read_csv(made: Leaderboard) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_csv(made))))


def test_overlapping_intervals_are_ties() -> None:
    assert ranks(table(A, B, C)) == ["1\u20132", "1\u20132", "3"]
    assert ranks(table(A, B, C), FID) == ["1", "2", "3"]  # lower is better


def test_a_paired_difference_decides_before_the_intervals() -> None:
    assert ranks(table(A, B, contrasts=(contrast(A, B, -0.02, 0.01),))) == ["1", "2"]
    assert ranks(table(A, B, contrasts=(contrast(B, A, 0.02, 0.01),))) == ["1", "2"]
    assert ranks(table(A, B, contrasts=(contrast(A, B, -0.02, 0.03),))) == ["1\u20132", "1\u20132"]
    # The intervals of A and C are far apart, the paired difference is not: the pairs decide.
    assert ranks(table(A, C, contrasts=(contrast(A, C, -0.2, 0.3),))) == ["1\u20132", "1\u20132"]


def test_ties_need_not_be_transitive() -> None:
    middle = entry("m", 0.57, 1.0)
    made = table(entry("x", 0.60, 1.0), middle, entry("z", 0.54, 1.0))
    assert ranks(made) == ["1\u20132", "1\u20133", "2\u20133"]


def test_without_an_interval_nothing_is_significant() -> None:
    bare = replace(A, numbers={**A.numbers, "geneval": cell("a", GENEVAL, 0.9, math.nan)})
    assert ranks(table(bare, C)) == ["1\u20132", "1\u20132"]
    assert rank_ranges(table(A), GENEVAL) == [RankRange(1, 1)]


def test_groups_come_in_order_of_kind_with_ranks_over_all() -> None:
    scaled = replace(C, kind="inference_scaled", derived_from="a")
    grown = replace(entry("g", 0.2, 5.0), kind="grown", derived_from="d")
    made = table(scaled, replace(B, kind="pruned", derived_from="a"), A, grown, entry("d", 0.5, 4.0))
    found = [(kind, [row.variant for row, _ in rows]) for kind, rows in grouped(made)]
    assert found == [("full", ["a", "d"]), ("grown", ["g"]), ("pruned", ["b"]), ("inference_scaled", ["c"])]
    pages = render_leaderboard(board(made))
    for name in ("leaderboard.html", "leaderboard.md", "leaderboard.tex"):
        places = [pages[name].index(title) for title in KINDS.values()]
        assert places == sorted(places), name
        for origin in ("grown from d", "pruned from a", "inference-scaled from a"):
            assert origin in pages[name]
    rows = {row["variant"]: (row["kind"], row["derived_from"]) for row in read_csv(board(made))}
    assert rows["a"] == ("full", "")
    assert rows["g"] == ("grown", "d")
    assert rows["c"] == ("inference_scaled", "a")
    assert [str(found[1][0]) for found in grouped(made)[3][1]] == ["4"]


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": "geneval/official@1"},
        {"n_samples": 575},
        {"value": math.nan},
    ],
)
def test_other_protocols_and_incomplete_numbers_cannot_enter(changes: dict[str, object]) -> None:
    numbers = {**B.numbers, "geneval": replace(B.numbers["geneval"], **changes)}
    with pytest.raises(ValueError, match="variant 'b' has"):
        table(A, replace(B, numbers=numbers))


def test_a_variant_enters_once_and_with_a_known_kind() -> None:
    with pytest.raises(ValueError, match="twice"):
        table(A, A)
    with pytest.raises(ValueError, match="unknown kind"):
        table(replace(A, kind="quantised"))


def test_incomplete_results_are_listed_apart_in_every_page() -> None:
    row = Incomplete(
        variant="half", tier="micro", benchmark="geneval", run="run-9", reasons=["geneval has 5/576 images"]
    )
    pages = render_leaderboard(board(table(A, C), incomplete=(row,)))
    for name in ("leaderboard.html", "leaderboard.md", "leaderboard.tex"):
        before, _, after = pages[name].partition("Not ranked")
        assert "half" not in before
        assert "half" in after
        assert "geneval has 5/576 images" in after
    assert "half" not in pages["leaderboard.csv"]


def test_a_ranking_by_fid_of_few_images_is_warned_of() -> None:
    numbers = {**A.numbers, "fid": replace(A.numbers["fid"], n_samples=30_000, n_expected=30_000)}
    many = render_leaderboard(board(table(replace(A, numbers=numbers))))
    few = render_leaderboard(board(table(A, C)))
    for name in ("leaderboard.html", "leaderboard.md", "leaderboard.tex"):
        assert "FID of fewer than 10,000 images is biased upwards: compare only at equal n." in few[name]
        assert "biased" not in many[name]


def test_a_column_that_would_be_empty_is_left_out() -> None:
    def shown(**changes: object) -> tuple[list[str], str]:
        made = table(entry("a", 0.6, 1.0), entry("b", 0.5, 1.0, kind="pruned"))
        made = replace(made, entries=[replace(one, **changes) for one in made.entries])
        page = render_leaderboard(board(made))["leaderboard.html"]
        found = [name for name in ("Time per image", "Parameters") if f'data-label="{name}"' in page]
        return found, page.partition('colspan="')[2].partition('"')[0]

    assert shown() == (["Time per image", "Parameters"], "5")
    assert shown(latency=None) == (["Parameters"], "4")
    assert shown(latency=None, parameters=None) == ([], "3")


def test_a_variant_in_two_tables_is_counted_once() -> None:
    other = table(A, B, benchmark="mjhq30k", workload="another")
    made = board(table(A, B, C), other)
    assert made.n_variants == 3
    html = render_leaderboard(made)["leaderboard.html"]
    assert "2 rankings 3 ranked variants GenEval, micro tier" in Page(html).visible
    # A variant measured again with other settings is another one, whatever its name.
    assert board(table(A), table(replace(A, fingerprint="f" * 64), workload="another")).n_variants == 2


def test_a_variant_has_one_colour_in_all_tables() -> None:
    made = board(table(A, B), table(B, C, benchmark="mjhq30k", workload="another"))
    elements = Page(render_leaderboard(made)["leaderboard.html"]).elements
    swatches = [
        (attrs["class"] or "").split()[1]
        for _, attrs in elements
        if (attrs.get("class") or "").startswith("swatch")
    ]
    assert swatches == [f"v{made.colors[name]}" for name in ("a", "b", "b", "c")]
    assert len(set(swatches)) == 3


def test_csv_has_a_line_per_variant_and_metric() -> None:
    rows = read_csv(board(table(A, C)))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [(row["variant"], row["metric"], row["rank_best"], row["rank_worst"]) for row in rows] == [
        ("a", "geneval", "1", "1"), ("a", "fid", "1", "1"), ("c", "geneval", "2", "2"), ("c", "fid", "2", "2"),
    ]  # fmt: skip
    assert float(rows[0]["value"]) == 0.60
    assert rows[0]["parameters"] == "2700000"


def test_plots_never_mix_devices() -> None:
    slow = Latency(value_ms=900, low_ms=800, high_ms=950, n_images=576, device="cpu B")
    captions = [caption for caption, _ in plots(table(A, B, replace(C, latency=slow)))]
    assert captions == ["GenEval against time per image on cpu A", "GenEval against parameters"]
    drawing = plots(table(A, B, replace(C, latency=slow)))[0][1]
    assert drawing.count("<circle") == 2
    assert plots(table(A, replace(C, latency=slow, parameters=None))) == []


def hostile_board() -> Leaderboard:
    evil = replace(
        entry(HOSTILE, 0.6, 1.0),
        description=HOSTILE,
        run=HOSTILE,
        fingerprint="f" * 64,
        report="../x.html",
        other_runs=[HOSTILE],
        latency=Latency(value_ms=1, low_ms=1, high_ms=1, n_images=1, device=HOSTILE),
    )
    row = Incomplete(variant=HOSTILE, tier="micro", benchmark="geneval", run=HOSTILE, reasons=[HOSTILE])
    return board(table(evil, replace(A, latency=evil.latency)), incomplete=(row,))


def test_html_escapes_everything_and_stays_offline() -> None:
    html = render_leaderboard(hostile_board())["leaderboard.html"]
    page = Page(html)
    (found,) = page.scripts
    assert found.strip() == script("leaderboard.js").strip()
    assert f"script-src 'sha256-{script_hash(script('leaderboard.js'))}'" in html
    assert not any(tag in ("img", "b", "iframe", "object") for tag, _ in page.elements)
    assert HOSTILE in page.visible
    addresses = [
        value for _, attrs in page.elements for name, value in attrs.items() if name in ("src", "href")
    ]
    assert not any(str(address).startswith(("http", "//")) for address in addresses)
    (link,) = [str(address) for address in addresses if str(address).startswith("../x.html")]
    assert re.fullmatch(r"\.\./x\.html#variant=[\w.%~-]+", link)


def test_markdown_and_csv_escape() -> None:
    assert "<script" not in render_markdown(hostile_board())
    formula = read_csv(board(table(entry("=1+1", 0.5, 1.0))))
    assert formula[0]["variant"] == "'=1+1"


def is_balanced_tex(text: str) -> bool:
    """Whether braces and environments close in order, and no character is left that TeX would stumble over."""
    open_environments: list[str] = []
    depth = 0
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    for token in re.finditer(r"\\begin\{(\w+)\}|\\end\{(\w+)\}|\\.|[{}]|[#%~^$]", code):
        begin, end = token.groups()
        if begin:
            open_environments.append(begin)
        elif end:
            if not open_environments or open_environments.pop() != end:
                return False
        elif token[0] in "{}":
            depth += 1 if token[0] == "{" else -1
            if depth < 0:
                return False
        elif token[0] in "#%~^":
            return False
    return depth == 0 and not open_environments and code.count("$") % 2 == 0


def test_latex_is_balanced_and_every_row_has_all_its_columns() -> None:
    nasty = r"50% \evil_{a} & $x$ #1 ~^ <b> | } {"
    made = board(table(entry(nasty, 0.6, 1.0), C), table(replace(A, kind="pruned"), B))
    text = render_latex(made)
    assert is_balanced_tex(text)
    assert not is_balanced_tex(text.replace(r"\end{tabular}", "", 1))
    assert not is_balanced_tex(text.replace(escape_latex(nasty), nasty))
    for line in text.splitlines():
        if line.endswith(r"\\") and "multicolumn" not in line:
            assert len(re.findall(r"(?<!\\)&", line)) == 6  # variant, 2 x (value, rank), time, parameters


def test_latex_name_cannot_become_an_argument_of_the_line_break() -> None:
    lines = render_latex(board(table(entry("[9cm]", 0.5, 1.0)))).splitlines()
    assert any(line.startswith("{}[9cm] & ") for line in lines)


def test_latex_comment_lines_cannot_be_left() -> None:
    row = Incomplete(variant="a\n\\input{x}", tier="micro", benchmark="b", run="r", reasons=["line\nbreak"])
    lines = render_latex(board(table(A), incomplete=(row,))).splitlines()
    assert next(line for line in lines if "input{x}" in line).startswith("% ")


def test_json_reads_back_to_the_same_pages() -> None:
    bare = replace(B, numbers={**B.numbers, "geneval": cell("b", GENEVAL, 0.5, math.nan)}, latency=None)
    made = board(table(A, bare, contrasts=(contrast(A, bare, 0.1, 0.05),)))
    again = from_json(to_json(made))
    assert to_json(again) == to_json(made)
    assert render_leaderboard(again) == render_leaderboard(made)
    with pytest.raises(ValueError, match="not a leaderboard"):
        from_json('{"tables": [{}], "incomplete": []}')


def test_write_makes_four_files(tmp_path: Path) -> None:
    paths = write_leaderboard(board(table(A, B)), tmp_path / "deep")
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == [
        "leaderboard.csv", "leaderboard.html", "leaderboard.md", "leaderboard.tex",
    ]  # fmt: skip
    assert "Micro tier" in paths.html.read_text(encoding="utf-8")


def test_empty_leaderboard_says_so() -> None:
    pages = render_leaderboard(board())
    assert "No complete result yet" in pages["leaderboard.html"]
    assert "No complete result yet" in pages["leaderboard.md"]


def test_two_protocols_of_one_metric_make_two_tables() -> None:
    other = Column(metric="geneval", protocol="geneval/official@1", unit="fraction", higher_is_better=True)
    full = replace(B, numbers={"geneval": cell("b", other, 0.9, 0.01)})
    made = board(table(A, columns=[GENEVAL]), table(full, columns=[other], tier="full"))
    assert [(row["protocol"], row["rank_worst"]) for row in read_csv(made) if row["source"] == "measured"] == [
        ("geneval/micro@1", "1"), ("geneval/official@1", "1"),
    ]  # fmt: skip
