"""Views of a page in a real browser: addresses that restore them, tables that keep their headers, phones, labels of plots."""

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sana_reports import ReportData, write_report
from sana_reports.leaderboard import write_leaderboard
from sana_reports.leaderboard_data import Incomplete, Table
from sana_reports.text_table import TextTable
from tests.reports.boards import GENEVAL, board, cell, entry, table
from tests.reports.browsing import BROWSER, Visit, sync_api, visit
from tests.reports.synthetic import make_report, with_verdicts

pytestmark = BROWSER

SPEED = TextTable(
    title="Latency on a CPU",
    header=("", *(f"variant {i}" for i in range(12))),
    rows=[("median ms [95 %]", *("1234.5 [1200.4, 1300.6]" for _ in range(12)))],
)
# Tables' texts with a figure in them that their scrolling box, or the window, cuts off at a side.
CUT = """() => {
  const cut = [];
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const region = element.closest(".scroll");
    if (!region || !/[0-9]/.test(walker.currentNode.textContent) || element.closest(".sr")) continue;
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    const box = region.getBoundingClientRect();
    for (const { left, right, width } of range.getClientRects()) {
      const [from, to] = [Math.max(box.left, 0), Math.min(box.right, innerWidth)];
      if (width && (left < from - 0.5 || right > to + 0.5)) cut.push(walker.currentNode.textContent);
    }
  }
  return cut;
}"""
# Pairs of labels that touch, and labels that leave their drawing, of every plot of the page.
TOUCHING = """() => [...document.querySelectorAll(".scatter")].flatMap((plot) => {
  const inside = plot.getBoundingClientRect();
  const labels = [...plot.querySelectorAll(".point, .tick")].map((node) => [node.textContent, node.getBoundingClientRect()]);
  const out = labels.filter(([, box]) =>
    box.left < inside.left - 1 || box.right > inside.right + 1 || box.bottom > inside.bottom + 1);
  const pairs = labels.flatMap((one, i) => labels.slice(i + 1).map((other) => [one, other])).filter(([[, a], [, b]]) =>
    a.left < b.right && b.left < a.right && a.top + 1 < b.bottom && b.top + 1 < a.bottom);
  return [...out.map(([text]) => `outside: ${text}`), ...pairs.map(([[one], [other]]) => `${one} / ${other}`)];
})"""


def address(found: Visit, part: str) -> str:
    """The page's address once it has `part`."""
    sync_api.expect(found.page).to_have_url(re.compile(re.escape(part)))
    return str(found.page.url)


def reopened(browser: Any, url: str) -> Visit:
    """The address in a new page."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    found = Visit(page)
    page.on("pageerror", lambda error: found.problems.append(str(error)))
    page.goto(url)
    return found


@pytest.fixture(scope="module")
def rich(images: Path) -> ReportData:
    """Six variants of two benchmarks, with verdicts and a table of times."""
    made = make_report(images / "views", 6, prompts_per_task=2, images_per_prompt=2)
    twice = [
        *made.samples,
        *(replace(one, benchmark="mjhq30k", prompt=f"{one.prompt} again") for one in made.samples),
    ]
    return with_verdicts(replace(made, samples=twice, speed_tables=[SPEED]))


@pytest.fixture(scope="module")
def html(rich: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(rich, tmp_path_factory.mktemp("views")).html


def places(found: Visit) -> list[str]:
    return found.page.locator(".sample .where").all_inner_texts()


def test_the_address_keeps_filters_order_and_page(browser: Any, html: Path) -> None:
    found = visit(browser, html)
    found.choose("order", "high:scores:clip_score")
    found.choose("shown", "0:2")
    found.page.locator("[data-page='1']").first.click()
    url = address(found, "page=2")
    again = reopened(browser, url)
    assert again.page.locator("#controls [name=order]").input_value() == "high:scores:clip_score"
    assert again.page.locator(".pageno").first.inner_text() == "Page 2 of 2"
    assert (again.status(), places(again)) == (found.status(), places(found))
    assert again.page.url == url
    # Choosing something else starts at the first page, in the address too.
    again.choose("benchmark", "geneval")
    again.page.locator("[name=disagree]").check()
    again.page.locator("[name=search]").fill("a photo & more=")
    assert "page=" not in address(again, "search=a+photo+%26+more%3D")
    third = reopened(browser, again.page.url)
    assert third.page.locator("[name=search]").input_value() == "a photo & more="
    assert third.page.locator("[name=disagree]").is_checked()
    assert (third.status(), places(third)) == (again.status(), places(again))
    third.page.locator("button[type=reset]").click()
    sync_api.expect(third.page).not_to_have_url(re.compile("="))
    assert found.problems + again.problems + third.problems == []
    for one in (found, again, third):
        one.close()


def test_the_address_keeps_the_opened_sample_of_its_benchmark(browser: Any, html: Path) -> None:
    found = visit(browser, html)
    found.choose("benchmark", "mjhq30k")
    found.choose("tag", "counting")
    found.page.locator(".sample button.frame").first.click()
    found.page.keyboard.press("ArrowRight")
    sync_api.expect(found.page.locator("#viewer-meta")).to_contain_text("sample 1")
    url = address(found, "sample=mjhq30k%2F00004%2F1").replace("benchmark=mjhq30k&", "")
    again = reopened(browser, url)
    title = again.page.locator("#viewer-title")
    sync_api.expect(title).to_be_visible()
    assert title.inner_text().endswith(" again")  # the same prompt and index are on both benchmarks
    again.page.keyboard.press("Escape")
    sync_api.expect(again.page).not_to_have_url(re.compile("sample="))
    assert "tag=counting" in again.page.url
    # The address of a section does not forget the view, and what is written by hand is followed at once.
    again.page.get_by_role("link", name="Settings").click()
    address(again, "tag=counting")
    again.page.evaluate("location.hash = 'tag=colors&sample=00006/1'")
    sync_api.expect(again.page.locator("#viewer-meta")).to_contain_text("prompt 00006 · sample 1")
    assert found.problems + again.problems == []
    found.close()
    again.close()


@pytest.mark.parametrize("n_variants", [2, 6], ids=["fits", "wide"])
def test_the_variants_stay_in_sight_below_a_table_s_start(
    browser: Any, rich: ReportData, tmp_path: Path, n_variants: int
) -> None:
    names = [variant.name for variant in rich.variants[:n_variants]]
    kept = {
        field: [one for one in getattr(rich, field) if one.variant in names]
        for field in ("summaries", "samples", "verdicts")
    }
    made = replace(rich, variants=rich.variants[:n_variants], **kept)
    found = visit(browser, write_report(made, tmp_path).html)
    region = found.page.locator(".scroll", has=found.page.locator(".summary"))
    region.evaluate(
        "node => { document.documentElement.style.scrollBehavior = 'auto'; node.scrollIntoView(); }"
    )
    assert (
        "fits" in (region.get_attribute("class") or "")
        if n_variants == 2
        else region.evaluate("node => node.scrollWidth > node.clientWidth")
    )
    row = found.page.locator(".summary tbody:last-of-type tr").last
    row.evaluate("node => node.scrollIntoView({ block: 'end' })")
    for name in names[:2]:
        header = found.page.locator(".summary .names th", has_text=name)
        # Nothing lies over the name, neither the navigation nor a cell that has scrolled under it.
        assert header.evaluate(
            """node => {
              const { left, top, width, height } = node.querySelector("bdi").getBoundingClientRect();
              return node.contains(document.elementFromPoint(left + width / 2, top + height / 2));
            }"""
        ), name
        assert header.bounding_box()["y"] < row.bounding_box()["y"]
    if n_variants == 6:  # and to the side: the metric stays, the corner covers the names that pass below it
        region.evaluate("node => { node.scrollLeft = 200; }")
        corner = found.page.locator(".summary .names .rowhead")
        assert corner.evaluate(
            """node => {
              const { left, top, width, height } = node.getBoundingClientRect();
              return node.contains(document.elementFromPoint(left + width / 2, top + height / 2));
            }"""
        )
    assert found.problems == []
    found.close()


def test_a_wide_table_says_that_it_scrolls(browser: Any, html: Path) -> None:
    found = visit(browser, html)
    wide = found.page.locator(".scroll", has=found.page.locator(".summary"))
    hint = found.page.locator(".hint:has(+ .scroll .summary)")
    sync_api.expect(hint).to_be_visible()
    assert wide.evaluate("node => getComputedStyle(node).maskImage") != "none"
    wide.evaluate("node => { node.scrollLeft = node.scrollWidth; }")
    sync_api.expect(wide).to_have_css("mask-image", "none")
    narrow = found.page.locator(".hint:has(+ .scroll .compared)")
    assert not narrow.is_visible()
    found.close()


def test_speed_is_in_the_navigation(browser: Any, html: Path, report: ReportData, tmp_path: Path) -> None:
    found = visit(browser, html)
    found.page.get_by_role("navigation").get_by_role("link", name="Speed", exact=True).click()
    sync_api.expect(found.page.locator("#speed-heading")).to_be_in_viewport()
    found.close()
    without = visit(browser, write_report(report, tmp_path).html)
    assert without.page.get_by_role("link", name="Speed", exact=True).count() == 0
    without.close()


@pytest.fixture(scope="module")
def leaderboard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rankings of the micro tier, one of the full tier with published numbers, and what is not ranked."""
    a, b = entry("alpha", 0.6, 1.0), entry("beta", 0.5, 2.0, kind="pruned", derived_from="alpha")
    official = replace(GENEVAL, protocol="geneval/official@1")
    full = [
        replace(one, numbers={"geneval": cell(one.variant, official, 0.5, 0.1)}, parameters=None)
        for one in (a, b)
    ]
    short = [
        Incomplete(
            variant=f"v{i}", tier="micro", benchmark="geneval", run="r", reasons=["geneval has 5/576 images"]
        )
        for i in range(9)
    ]
    made = board(
        table(a, b, entry("gamma", 0.4, 3.0)),
        table(a, benchmark="mjhq30k", workload="w"),
        table(*full, tier="full", columns=[official]),
        incomplete=tuple(short),
    )
    return write_leaderboard(made, tmp_path_factory.mktemp("leaderboard")).html


@pytest.mark.parametrize("page", ["report", "leaderboard"])
@pytest.mark.parametrize("width", [360, 390])
def test_a_phone_cuts_no_number(browser: Any, html: Path, leaderboard: Path, page: str, width: int) -> None:
    found = visit(browser, html if page == "report" else leaderboard, width=width)
    for details in found.page.locator("details").all():
        details.evaluate("node => { node.open = true; }")
    assert found.page.locator(".scroll table").count() > 3
    assert found.page.evaluate(CUT) == []
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    # Each number says whose it is, with the colour of the variant.
    value = found.page.locator("table.stack td[data-label]").first
    said = value.evaluate("node => getComputedStyle(node, '::before').content")
    assert (value.get_attribute("data-label") or "?") in said
    assert found.problems == []
    found.close()


def test_the_leaderboard_is_filtered_and_its_address_remembers(browser: Any, leaderboard: Path) -> None:
    found = visit(browser, leaderboard)

    def shown(visited: Visit) -> list[str]:
        return [
            one.inner_text()
            for one in visited.page.locator(".board tbody .variant").all()
            if one.is_visible()
        ]

    assert sorted(shown(found)) == ["alpha", "alpha", "alpha", "beta", "beta", "gamma"]
    assert "3 rankings" in found.page.locator(".facts").inner_text()
    assert "3 ranked variants" in found.page.locator(".facts").inner_text()
    assert "9 incomplete results, not ranked" in found.page.locator(".facts").inner_text()
    found.choose("tier", "micro")
    found.page.locator("[name=search]").fill("a about")
    found.choose("kind", "pruned")
    assert shown(found) == ["beta"]
    assert found.page.locator("#count").inner_text() == "1 of 6 rows, 1 of 3 rankings"
    assert found.page.locator(".kind").all_inner_texts()  # headings of groups that are empty now are hidden
    assert [one.inner_text() for one in found.page.locator(".board .kind").all() if one.is_visible()] == [
        "Pruned models 1"
    ]
    again = reopened(browser, address(found, "kind=pruned"))
    assert shown(again) == ["beta"]
    assert again.page.locator("[name=search]").input_value() == "a about"
    again.page.locator("button[type=reset]").click()
    sync_api.expect(again.page).not_to_have_url(re.compile("="))
    assert len(shown(again)) == 6
    found.page.locator("[name=search]").fill("nobody")
    assert shown(found) == []
    links = found.page.get_by_role("navigation").get_by_role("link").all_inner_texts()
    assert links == ["GenEval, micro tier", "MJHQ-30K, micro tier", "GenEval, full tier", "Not ranked"]
    # What a run says of nine variants is one line.
    assert found.page.locator(".unranked tbody tr").count() == 1
    assert found.problems + again.problems == []
    found.close()
    again.close()


def crowd(n: int, seed: int) -> Table:
    """Variants with long and odd names whose points lie close together."""
    draw = random.Random(seed)
    names = [
        f"{draw.choice(('sana15-micro', 'MMMWWW', '模型', 'il'))}-{'x' * draw.randrange(25)}-{i}"
        for i in range(n)
    ]
    return table(
        *(
            entry(
                name,
                draw.choice((0.5, 0.51, draw.random())),
                draw.choice((1.0, 1.1, 20 * draw.random())),
                parameters=draw.choice((2_700_000, 2_800_000, draw.randrange(10**6, 10**7))),
                kind=draw.choice(("full", "grown", "pruned", "inference_scaled")),
            )
            for name in names
        )
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_labels_of_plots_never_lie_over_each_other(browser: Any, tmp_path: Path, width: int) -> None:
    sizes = [2, 3, 3, 5, 8, 13, 28]
    tables = [replace(crowd(n, seed), workload=str(seed)) for seed, n in enumerate(sizes)]
    found = visit(browser, write_leaderboard(board(*tables), tmp_path).html, width=width)
    plots = found.page.locator(".scatter")
    assert plots.count() == 2 * len(sizes)
    assert found.page.locator(".scatter .point").count() >= 2 * sum(sizes)
    assert found.page.evaluate(TOUCHING) == []
    found.close()
