"""Reports for everybody: keyboard, screen reader, dark scheme, paper, and text of any script."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sana_reports import ReportData, write_report
from sana_reports.leaderboard import write_leaderboard
from sana_reports.leaderboard_data import Incomplete
from tests.reports.boards import GENEVAL, board, cell, entry, table
from tests.reports.browsing import BROWSER, Visit, sync_api, visit
from tests.reports.synthetic import make_report, with_sequences, with_verdicts

pytestmark = BROWSER

# Every piece of visible text with the contrast of its colour to what is behind it (WCAG 2.1, relative luminance).
CONTRASTS = """() => {
  const channels = (color) => {
    const [r, g, b, a] = color.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a === undefined ? 1 : a];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, i) => value * a + below[i] * (1 - a));
  const luminance = (rgb) => rgb.map((value) => value / 255)
    .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const background = (element) => {
    const layers = [];
    for (let node = element; node; node = node.parentElement) {
      layers.push(channels(getComputedStyle(node).backgroundColor));
    }
    const canvas = matchMedia("print").matches ? [255, 255, 255] : [0, 0, 0];
    return layers.reverse().reduce((below, layer) => over(layer, below), canvas);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    if (["SCRIPT", "STYLE", "OPTION", "OPTGROUP"].includes(element.tagName) || element.closest(":disabled, .sr, .skip")) continue;
    const style = getComputedStyle(element);
    const behind = background(element);
    const color = over(channels(element instanceof SVGElement ? style.fill : style.color), behind);
    const [light, dark] = [luminance(color), luminance(behind)].sort((a, b) => b - a);
    found.push([text.slice(0, 40), (light + 0.05) / (dark + 0.05)]);
  }
  return found;
}"""

RTL = "\u0635\u0648\u0631\u0629 \u062f\u0627\u0626\u0631\u0629 \u062d\u0645\u0631\u0627\u0621"
ODD_TEXTS = {
    "markup": "<b onmouseover=alert(1)>bold</b> &amp; </script>",
    "right to left": RTL,
    "override": "abc\u202edcba\u202c",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f",
    "very long": "x" * 400,
    "combining": "Z\u0351\u036b\u0343\u0321\u0321a\u0350\u035c" * 20,
}


@pytest.fixture(scope="module")
def rich(images: Path) -> ReportData:
    """Four variants of four kinds whose samples have everything: verdict, boxes, answers, reward. And looks."""
    made = make_report(images / "rich", 4, prompts_per_task=3, images_per_prompt=2)
    variants = [
        made.variants[0],
        replace(made.variants[1], kind="pruned", derived_from=made.variants[0].name),
        replace(made.variants[2], kind="inference_scaled", derived_from=made.variants[0].name),
        replace(made.variants[3], kind="grown", derived_from=made.variants[0].name),
    ]
    answers = (
        {"question": "Is there a circle?", "answer": "yes", "score": 1.0},
        {"question": "Is it red?", "answer": "no, blue", "score": 0.0},
    )
    samples = [replace(sample, answers=answers, rewards={"image_reward": 0.5}) for sample in made.samples]
    return with_sequences(with_verdicts(replace(made, variants=variants, samples=samples)))


@pytest.fixture(scope="module")
def pages(rich: ReportData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A leaderboard and the report that it links."""
    folder = tmp_path_factory.mktemp("pages")
    report = write_report(rich, folder / "run").html
    entries = [
        entry(
            variant.name,
            value,
            1.0,
            kind=variant.kind,
            derived_from=variant.derived_from,
            report="../run/report.html",
        )
        for variant, value in zip(rich.variants, (0.6, 0.5, 0.4, 0.7), strict=True)
    ]
    official = replace(GENEVAL, protocol="geneval/official@1")
    full = [
        replace(one, numbers={"geneval": cell(one.variant, official, 0.5, 0.1)}, parameters=None)
        for one in entries[:2]
    ]
    left_out = Incomplete(
        variant="half", tier="micro", benchmark="geneval", run="r", reasons=["5/576 images"]
    )
    made = board(table(*entries), table(*full, tier="full", columns=[official]), incomplete=(left_out,))
    return {"report": report, "leaderboard": write_leaderboard(made, folder / "board").html}


@pytest.mark.parametrize("name", ["report", "leaderboard"])
@pytest.mark.parametrize(
    ("scheme", "media"), [("light", "screen"), ("dark", "screen"), ("light", "print"), ("dark", "print")]
)
def test_all_text_can_be_read(browser, pages: dict[str, Path], name: str, scheme: str, media: str) -> None:
    """WCAG 2.1 AA asks for a contrast of 4.5 for text of usual size; we ask it of all text."""
    found = visit(browser, pages[name])
    found.page.emulate_media(media=media, color_scheme=scheme)
    if name == "report" and media == "screen":
        found.page.locator(".sample button.frame").first.click()
    contrasts = found.page.evaluate(CONTRASTS)
    assert len(contrasts) > 100
    assert [pair for pair in contrasts if pair[1] < 4.5] == []
    found.close()


def test_the_dark_scheme_is_dark_and_paper_is_white(browser, pages: dict[str, Path]) -> None:
    found = visit(browser, pages["report"])

    def background(selector: str) -> list[int]:
        color = found.page.eval_on_selector(selector, "node => getComputedStyle(node).backgroundColor")
        return [int(value) for value in re.findall(r"\d+", color)[:3]]

    seen = {}
    for media, scheme in (("screen", "light"), ("screen", "dark"), ("print", "dark")):
        found.page.emulate_media(media=media, color_scheme=scheme)
        seen[media, scheme] = (background("body"), background(".card"))
    assert all(min(color) > 200 for color in seen["screen", "light"])
    assert all(max(color) < 60 for color in seen["screen", "dark"])
    assert all(color == [255, 255, 255] for color in seen["print", "dark"])
    found.close()


@pytest.mark.parametrize("name", ["report", "leaderboard"])
def test_paper_has_the_numbers_and_no_controls(browser, pages: dict[str, Path], name: str) -> None:
    found = visit(browser, pages[name], width=720)  # A4 less its margins, in CSS pixels
    found.page.emulate_media(media="print")
    found.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    hidden = "#controls, nav.sections, .hint, .skip, " + (".pages button" if name == "report" else ".arrow")
    assert found.page.locator(hidden).count() > 0
    assert not any(node.is_visible() for node in found.page.locator(hidden).all())
    assert all(node.is_visible() for node in found.page.locator("main h2").all())
    assert all(node.get_attribute("open") is not None for node in found.page.locator("details").all())
    assert (
        found.page.evaluate("document.documentElement.scrollWidth") <= 720
    )  # nothing is cut off at the edge
    assert found.page.pdf().startswith(b"%PDF")
    found.close()


def test_the_keyboard_reaches_every_control_in_reading_order(browser, pages: dict[str, Path]) -> None:
    found = visit(browser, pages["report"])
    reached = focus_walk(found)
    controls = found.page.evaluate(
        """() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")]
          .filter((node) => !node.disabled && (node.checkVisibility() || node.matches(".skip")))
          .map((node) => { node.dataset.control = ""; return true; }).length"""
    )
    assert reached["order"] == sorted(reached["order"])
    assert len(reached["order"]) == controls
    assert reached["invisible"] == []
    found.close()


def test_the_keyboard_reaches_everything_of_the_leaderboard(browser, pages: dict[str, Path]) -> None:
    found = visit(browser, pages["leaderboard"])
    reached = focus_walk(found)
    controls = found.page.locator("a[href], button, input, select, summary, [tabindex='0']").count()
    assert reached["order"] == sorted(reached["order"])
    assert len(reached["order"]) == controls
    assert reached["invisible"] == []
    found.close()


def focus_walk(found: Visit) -> dict[str, list]:
    """Press Tab until it leaves the page: positions in the document, and what had no visible focus."""
    order: list[int] = []
    invisible: list[str] = []
    for _ in range(500):
        found.page.keyboard.press("Tab")
        here = found.page.evaluate(
            """() => {
              const node = document.activeElement;
              if (node === document.body) return null;
              const style = getComputedStyle(node);
              return [[...document.querySelectorAll("*")].indexOf(node),
                      style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2, node.outerHTML.slice(0, 80)];
            }"""
        )
        if here is None or here[0] in order:
            break
        order.append(here[0])
        if not here[1]:
            invisible.append(here[2])
    return {"order": order, "invisible": invisible}


def test_the_viewer_keeps_the_focus_inside_and_gives_it_back(browser, pages: dict[str, Path]) -> None:
    found = visit(browser, pages["report"])
    frames = found.page.locator(".sample button.frame")
    frames.first.focus()
    found.page.keyboard.press("Enter")
    sync_api.expect(found.page.locator("#viewer")).to_be_visible()
    inside = "document.getElementById('viewer').contains(document.activeElement)"
    assert found.page.evaluate(inside)
    found.page.keyboard.press("ArrowRight")
    found.page.keyboard.press("ArrowLeft")  # the first sample again: its Previous button is off
    assert found.page.evaluate(inside)
    n_last = found.page.evaluate(
        "JSON.parse(document.getElementById('report-data').textContent).groups.length"
    )
    next_button = found.page.get_by_role("button", name="Next sample")
    next_button.focus()
    for _ in range(n_last):
        found.page.keyboard.press("Enter")
        if next_button.is_disabled():
            break
    assert next_button.is_disabled()
    assert found.page.evaluate(
        inside
    )  # the button that was pressed is off now, and did not take the focus along
    found.page.keyboard.press("Escape")
    assert not found.page.locator("#viewer").is_visible()
    assert frames.first.evaluate("node => node === document.activeElement")
    found.close()


def drawings(found: Visit) -> dict[str, str]:
    """Name to description of every drawing, as Chromium hands them to a screen reader."""
    tree = found.page.context.new_cdp_session(found.page).send("Accessibility.getFullAXTree")
    return {
        node["name"]["value"]: node.get("description", {}).get("value", "")
        for node in tree["nodes"]
        if node.get("role", {}).get("value") in ("image", "img") and not node["ignored"]
    }


def test_a_screen_reader_hears_the_report(browser, pages: dict[str, Path], rich: ReportData) -> None:
    found = visit(browser, pages["report"])
    tree = found.page.locator("body").aria_snapshot()
    for line in (
        "- banner:",
        '- navigation "Sections":',
        "- main:",
        '- heading "Compared with sana-micro-20-steps, prompt by prompt" [level=2]',
        '- heading "Results" [level=2]',
        '- search "Filter the samples":',
        '- combobox "Task"',
        '- combobox "Verdict"',
        '- combobox "Order"',
        '- checkbox "Only where variants disagree"',
        "- status:",
        '- button "Next page"',
        "- contentinfo:",
    ):
        assert line in tree, line
    nameless = re.findall(
        r"^\s*- (?:button|link|combobox|checkbox|searchbox|img|article|region|figure|dialog)(?=:|$| \[)",
        tree,
        re.M,
    )
    assert nameless == []
    assert drawings(found)["GenEval by task"].startswith("Single object: sana-micro-20-steps ")
    sample = rich.samples[0]
    first = found.page.locator(".sample").first.aria_snapshot()
    assert f'article "{sample.prompt}, sample 0"' in first
    assert f'figure "{sample.variant}"' in first
    assert re.search(rf'button "{sample.variant}, sample 0: “{sample.prompt}”, (correct|wrong)"', first)
    assert [node.get_attribute("lang") for node in found.page.locator("html").all()] == ["en"]
    found.page.locator(".sample button.frame").first.click()
    dialog = found.page.locator("#viewer").aria_snapshot()
    assert f'dialog "{sample.prompt}"' in dialog
    assert 'table "Answers to questions about the image"' in dialog
    assert 'table "Detections"' in dialog
    assert 'row "Is it red? no, blue 0"' in dialog
    found.close()


def test_a_screen_reader_hears_the_leaderboard(browser, pages: dict[str, Path]) -> None:
    found = visit(browser, pages["leaderboard"])
    tree = found.page.locator("body").aria_snapshot()
    for line in (
        'region "GenEval, micro tier: ranking"',
        '- columnheader "GenEval higher is better geneval/micro@1"',
        '- rowheader "Pruned models 1"',
        '- region "Published numbers beside GenEval, full tier"',
        '- heading "Not ranked" [level=2]',
    ):
        assert line in tree, line
    drawing = drawings(found)["GenEval against parameters"]
    assert "sana-micro-8-steps (Pruned models): 0.400 at 2.7 million parameters" in drawing
    assert re.findall(r"^\s*- (?:button|link|img|region|columnheader|rowheader)(?=:|$| \[)", tree, re.M) == []
    sync_api.expect(
        found.page.locator("table.board").first.locator("th[aria-sort=descending]")
    ).to_have_count(1)
    found.close()


@pytest.mark.parametrize(
    ("kind", "width"), [*((kind, 400) for kind in ODD_TEXTS), ("very long", 1280), ("right to left", 1280)]
)
def test_text_of_any_script_stays_text_and_inside(
    browser, report: ReportData, tmp_path: Path, kind: str, width: int
) -> None:
    text = ODD_TEXTS[kind]
    name = f"{text}-variant"
    old = report.variants[0].name
    tasks = dict.fromkeys(sample.tag for sample in report.samples)
    samples = [
        replace(
            sample, prompt=text, variant=name if sample.variant == old else sample.variant, reasons=(text,),
            answers=[{"question": text, "answer": text, "score": 1}],
        )
        for sample in report.samples
    ]  # fmt: skip
    odd = replace(
        report,
        title=text,
        variants=[replace(report.variants[0], name=name, description=text), *report.variants[1:]],
        samples=samples,
        summaries=[
            replace(one, variant=name if one.variant == old else one.variant) for one in report.summaries
        ],
    )
    listed = replace(
        entry(name, 0.5, 1.0), description=text, report="../run/report.html", fingerprint="f" * 64
    )
    write_report(odd, tmp_path / "run")
    made = board(table(listed, entry("plain", 0.4, 1.0)))
    found = visit(browser, write_leaderboard(made, tmp_path / "board").html, width=width)
    link = found.page.locator("table.board tbody a")
    assert link.text_content() == name
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    if kind == "right to left":
        assert link.evaluate("node => getComputedStyle(node).direction") == "rtl"
        assert link.evaluate("node => getComputedStyle(node.parentElement).direction") == "ltr"
    link.click()
    sync_api.expect(found.page.locator("h1")).to_have_text(" ".join(text.split()), use_inner_text=False)
    assert found.page.locator(".asked bdi").text_content() == name
    assert found.page.locator(".sample h3").first.text_content() == text
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    found.page.locator(".sample button.frame").first.click()
    assert found.page.locator("#viewer td").first.text_content() == text
    assert found.page.locator("#viewer").evaluate("node => node.scrollWidth <= node.clientWidth")
    assert found.page.locator("select[name=tag] option").count() == len(tasks) + 1
    assert found.problems == []
    found.close()
