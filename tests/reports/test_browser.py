"""The report in a real browser, opened from disk."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sana_reports import ReportData, SampleCell, write_report
from sana_reports.leaderboard import write_leaderboard
from tests.reports.boards import board, entry, table
from tests.reports.browsing import BROWSER, Visit, sync_api, visit
from tests.reports.synthetic import make_report
from tests.reports.test_html import HOSTILE, with_hostile_text

pytestmark = BROWSER


@pytest.fixture
def opened(browser: "sync_api.Browser", report: ReportData, tmp_path: Path) -> Iterator[Visit]:
    found = visit(browser, write_report(report, tmp_path).html)
    yield found
    assert found.problems == []
    found.page.close()


def disagreements(report: ReportData) -> int:
    verdicts: dict[tuple[str, int], set[bool | None]] = {}
    for sample in report.samples:
        verdicts.setdefault((sample.prompt_id, sample.index), set()).add(sample.correct)
    return sum(len(found) == 2 for found in verdicts.values())


def test_page_opens_from_disk_without_network(opened: Visit) -> None:
    outside = [url for url in opened.requests[1:] if not url.startswith("data:")]
    assert opened.requests[0].startswith("file://")
    assert outside == []


def test_cards_come_in_pages(opened: Visit) -> None:
    assert opened.count(".sample") == 24
    assert opened.status() == "1\u201324 of 36 comparisons"
    opened.page.locator("[data-page='1']").first.click()
    assert opened.count(".sample") == 12
    assert opened.status() == "25\u201336 of 36 comparisons"
    assert opened.page.locator("[data-page='1']").first.is_disabled()


def test_what_leaves_no_choice_is_not_offered(browser, report: ReportData, tmp_path: Path) -> None:
    samples = [replace(sample, tag="all") for sample in report.samples if sample.index == 0]
    digest = "0123456789abcdef" * 4
    variants = [replace(one, settings={"weights_sha256": digest}) for one in report.variants]
    alone = replace(report, samples=samples, variants=variants)
    found = visit(browser, write_report(alone, tmp_path).html, width=390)
    for name in ("tag", "index"):
        assert not found.page.locator(f"#controls [name={name}]").is_visible()
    assert found.page.locator("#controls [name=order]").is_visible()
    assert found.page.locator(".sample .where").first.inner_text().startswith("prompt ")
    found.page.locator("details.more > summary").click()
    # Every digit of a hash can be read on a phone.
    tables = found.page.locator(".scroll:has(.settings)")
    assert tables.count() == 2
    assert all(one.evaluate("node => node.scrollWidth <= node.clientWidth") for one in tables.all())
    assert found.problems == []
    found.close()


def test_filters_change_the_number_of_cards(opened: Visit, report: ReportData) -> None:
    opened.choose("tag", "position")
    opened.expect_cards(6)
    assert set(opened.page.locator(".sample .tag").all_inner_texts()) == {"Position"}
    opened.choose("index", "1")
    opened.expect_cards(3)
    opened.page.locator("button[type=reset]").click()
    opened.expect_cards(24)

    opened.page.locator("[name=disagree]").check()
    n_different = disagreements(report)
    assert 0 < n_different < 24
    opened.expect_cards(n_different)
    for card in opened.page.locator(".sample").all():
        assert sorted(card.locator(".verdict").all_inner_texts()) == ["✓ correct", "✗ wrong"]


def test_verdict_filter_and_search(opened: Visit, report: ReportData) -> None:
    second = report.variants[1].name
    n_wrong = sum(sample.variant == second and sample.correct is False for sample in report.samples)
    opened.choose("verdict", "one:1:0")
    sync_api.expect(opened.page.locator("#count")).to_contain_text(f"of {n_wrong} matching")
    opened.page.locator("button[type=reset]").click()
    opened.page.locator("[name=search]").fill("00004")
    opened.expect_cards(2)
    opened.page.locator("[name=search]").fill("no such words")
    opened.expect_cards(0)
    assert opened.status() == "Nothing matches; 36 comparisons in all"


def test_order_by_score_puts_the_lowest_first(opened: Visit, report: ReportData) -> None:
    lowest = min(report.samples, key=lambda sample: sample.scores["clip_score"])
    opened.choose("order", "low:scores:clip_score")
    place = f"prompt {lowest.prompt_id} · sample {lowest.index}"
    sync_api.expect(opened.page.locator(".sample .where").first).to_contain_text(place)


def test_a_count_of_changed_verdicts_leads_to_its_samples(opened: Visit) -> None:
    button = opened.page.locator("[data-filter-verdict='pair:0:1']")
    n_lost = int(button.inner_text().split()[0])
    assert n_lost > 0
    button.click()
    opened.expect_cards(n_lost)
    opened.page.locator("a[data-filter-tag=colors]").click()
    opened.expect_cards(6)


def test_every_image_has_alt_text_and_boxes(opened: Visit, report: ReportData) -> None:
    alts = opened.page.eval_on_selector_all(".sample img", "images => images.map((image) => image.alt)")
    assert len(alts) == 48
    first = report.samples[0]
    assert alts[0] == f"{first.variant}, sample 0: “{first.prompt}”, correct"
    assert opened.count(".sample img.small") == 48  # 64 pixels: enlarged without blur
    overlay = opened.page.locator(".sample .frame").first.locator("rect.over")
    assert overlay.count() == len(first.detections)
    x1, _, x2, _ = first.detections[0]["box"]
    assert float(overlay.first.get_attribute("x")) == x1
    assert float(overlay.first.get_attribute("width")) == x2 - x1
    opened.choose("boxes", "none")
    sync_api.expect(opened.page.locator(".sample rect")).to_have_count(0)


def test_viewer_opens_and_moves_with_the_keyboard(opened: Visit, report: ReportData) -> None:
    opened.page.locator(".sample button.frame").first.focus()
    opened.page.keyboard.press("Enter")
    viewer = opened.page.locator("#viewer")
    assert viewer.is_visible()
    assert opened.page.locator("#viewer-title").inner_text() == report.samples[0].prompt
    assert "sample 0" in opened.page.locator("#viewer-meta").inner_text().lower()
    n_found = sum(len(sample.detections) for sample in report.samples[:2])
    assert viewer.locator(".detections tbody tr").count() == n_found
    opened.page.keyboard.press("ArrowRight")
    assert "sample 1" in opened.page.locator("#viewer-meta").inner_text().lower()
    opened.page.keyboard.press("Escape")
    assert not viewer.is_visible()


@pytest.mark.parametrize("width", [390, 1280])
def test_page_never_scrolls_sideways(
    browser: "sync_api.Browser", report: ReportData, tmp_path: Path, width: int
) -> None:
    found = visit(browser, write_report(report, tmp_path).html, width=width)
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    found.page.close()


def test_hostile_text_is_shown_and_never_run(
    browser: "sync_api.Browser", report: ReportData, tmp_path: Path
) -> None:
    found = visit(browser, write_report(with_hostile_text(report), tmp_path).html)
    assert found.page.locator(".sample h3").first.inner_text() == HOSTILE
    found.page.locator(".sample button.frame").first.click()
    assert found.page.locator("#viewer-title").inner_text() == HOSTILE
    assert found.page.locator("#viewer .boxlabel").first.inner_text() == f"{HOSTILE} {HOSTILE} 0.90"
    assert found.page.evaluate("window.pwned === undefined")
    assert found.problems == []
    assert [url for url in found.requests[1:] if not url.startswith("data:")] == []
    found.page.close()


def test_injected_script_is_refused_by_the_policy(
    browser: "sync_api.Browser", report: ReportData, tmp_path: Path
) -> None:
    """The second line of defence: even markup that did get in would not run."""
    html = write_report(report, tmp_path).html
    html.write_text(html.read_text().replace("<footer", "<script>window.pwned = 1</script><footer"))
    found = visit(browser, html)
    assert found.page.evaluate("window.pwned === undefined")
    assert any("Content Security Policy" in problem for problem in found.problems)
    assert found.count(".sample") == 24
    found.page.close()


def test_linked_images_load_from_beside_the_report(
    browser: "sync_api.Browser", report: ReportData, images: Path
) -> None:
    found = visit(browser, write_report(report, images / "linked", inline_limit_bytes=0).html)
    for card in found.page.locator(".sample").all():
        card.scroll_into_view_if_needed()  # linked images are fetched when they come near
    sync_api.expect(found.page.locator(".sample img.small")).to_have_count(48)
    assert found.problems == []
    assert all(url.startswith("file://") for url in found.requests)
    found.page.close()


def test_missing_image_says_so(browser: "sync_api.Browser", report: ReportData, tmp_path: Path) -> None:
    gone = replace(report.samples[0], image_path=tmp_path / "gone.png")
    found = visit(browser, write_report(replace(report, samples=[gone, *report.samples[1:]]), tmp_path).html)
    assert found.page.locator(".absent").all_inner_texts() == ["Image missing or unreadable"]
    found.page.locator("#controls [name=verdict]").select_option("missing")
    found.expect_cards(1)
    found.page.close()


def test_two_variants_side_by_side_have_their_flips_first(
    browser: "sync_api.Browser", images: Path, tmp_path: Path
) -> None:
    three = make_report(images / "three", 3, prompts_per_task=1, images_per_prompt=2)
    found = visit(browser, write_report(three, tmp_path).html)
    found.choose("shown", "0:2")
    sync_api.expect(found.page.locator(".sample").first.locator(".side")).to_have_count(2)
    pairs = [card.locator(".verdict").all_inner_texts() for card in found.page.locator(".sample").all()]
    flips = [left != right for left, right in pairs]
    assert len(flips) == 12
    assert any(flips)
    assert flips == sorted(flips, reverse=True)
    assert found.problems == []
    found.page.close()


def with_answers(data: ReportData) -> ReportData:
    """The same samples with answers and a reward that falls from sample to sample, most for the last variant."""
    samples = [
        replace(
            sample,
            answers=[{"question": f"Is it as asked, {sample.index}?", "answer": "yes", "score": 1.0}],
            rewards={"image_reward": -0.01 * number * (1 + (sample.variant == data.variants[-1].name))},
        )
        for number, sample in enumerate(data.samples)
    ]
    return replace(data, samples=samples)


def test_samples_are_ordered_by_reward_and_by_its_change(
    browser: "sync_api.Browser", report: ReportData, tmp_path: Path
) -> None:
    data = with_answers(report)
    rewards: dict[tuple[str, int], list[float]] = {}
    for sample in data.samples:
        rewards.setdefault((sample.prompt_id, sample.index), []).append(sample.rewards["image_reward"])
    wanted = {
        "low": min(rewards, key=lambda key: min(rewards[key])),
        "high": max(rewards, key=lambda key: max(rewards[key])),
        "change": max(rewards, key=lambda key: max(rewards[key]) - min(rewards[key])),
    }
    found = visit(browser, write_report(data, tmp_path).html)
    for kind, (prompt, index) in wanted.items():
        found.choose("order", f"{kind}:rewards:image_reward")
        place = f"prompt {prompt} · sample {index}"
        sync_api.expect(found.page.locator(".sample .where").first).to_contain_text(place)
    assert wanted["low"] != wanted["high"]
    assert found.problems == []
    found.close()


def test_the_largest_changes_can_be_picked_out(opened: Visit, report: ReportData) -> None:
    scores: dict[tuple[str, int], list[float]] = {}
    for sample in report.samples:
        scores.setdefault((sample.prompt_id, sample.index), []).append(sample.scores["clip_score"])
    changes = sorted((max(pair) - min(pair) for pair in scores.values()), reverse=True)
    opened.choose("change", "change:scores:clip_score")
    opened.expect_cards(4)  # of 36
    kept = {
        (text.split("prompt ")[1].split(" ")[0], int(text.rsplit(" ", 1)[1]))
        for text in opened.page.locator(".sample .where").all_inner_texts()
    }
    assert kept == {key for key, pair in scores.items() if max(pair) - min(pair) >= changes[3]}
    opened.choose("tag", "position")
    opened.expect_cards(1)  # of the 6 of this task


def test_flips_stay_first_when_two_variants_are_ordered_by_change(
    browser: "sync_api.Browser", images: Path, tmp_path: Path
) -> None:
    data = make_report(images / "ordered", 3, prompts_per_task=2, images_per_prompt=2)
    pair = (data.variants[0].name, data.variants[2].name)
    found = visit(browser, write_report(data, tmp_path).html)
    found.choose("shown", "0:2")
    found.choose("order", "change:scores:clip_score")
    sync_api.expect(found.page.locator(".sample").first.locator(".side")).to_have_count(2)
    by_place: dict[str, dict[str, SampleCell]] = {}
    for sample in data.samples:
        by_place.setdefault(f"prompt {sample.prompt_id} · sample {sample.index}", {})[sample.variant] = sample
    order = sorted(
        by_place,
        key=lambda place: (
            by_place[place][pair[0]].correct == by_place[place][pair[1]].correct,
            -abs(
                by_place[place][pair[0]].scores["clip_score"] - by_place[place][pair[1]].scores["clip_score"]
            ),
        ),
    )
    shown = [text.split(" · ", 1)[1] for text in found.page.locator(".sample .where").all_inner_texts()]
    assert shown == order
    found.close()


def test_the_leaderboard_sorts_within_its_groups(browser: "sync_api.Browser", tmp_path: Path) -> None:
    entries = [
        entry("a", 0.7, 3.0),
        entry("b", 0.6, 1.0, latency=None),
        entry("c", 0.5, 2.0),
        entry("p", 0.9, 9.0, kind="pruned", derived_from="a"),
    ]
    found = visit(browser, write_leaderboard(board(table(*entries)), tmp_path).html)

    def order() -> list[str]:
        return found.page.locator("table.board tbody .variant").all_inner_texts()

    def press(name: str) -> str:
        found.page.locator("table.board").get_by_role("button", name=name).press("Enter")
        header = found.page.locator("table.board th", has=found.page.get_by_role("button", name=name))
        return str(header.get_attribute("aria-sort"))

    assert order() == ["a", "b", "c", "p"]
    assert press("FID") == "ascending"
    assert order() == ["b", "c", "a", "p"]
    assert press("FID") == "descending"
    assert order() == ["a", "c", "b", "p"]
    assert press("Time per image") == "ascending"
    assert order() == ["c", "a", "b", "p"]  # what was not timed comes last, either way
    assert press("Time per image") == "descending"
    assert order() == ["a", "c", "b", "p"]
    assert press("Variant") == "ascending"
    assert order() == ["a", "b", "c", "p"]
    assert found.count("th[aria-sort=ascending]") == 1
    assert found.problems == []
    found.close()


def test_from_the_leaderboard_to_a_sample_in_three_clicks(
    browser: "sync_api.Browser", report: ReportData, tmp_path: Path
) -> None:
    write_report(with_answers(report), tmp_path / "run")
    name = report.variants[1].name
    listed = replace(entry(name, 0.5, 1.0), report="../run/report.html")
    board_page = write_leaderboard(board(table(listed)), tmp_path / "board").html
    found = visit(browser, board_page)
    found.page.get_by_role("link", name=name).click()
    sync_api.expect(found.page.locator("th.asked")).to_contain_text(name)
    found.page.locator("a[data-filter-tag=position]").click()
    found.expect_cards(6)
    found.page.locator(".sample button.frame").first.click()
    viewer = found.page.locator("#viewer")
    assert viewer.is_visible()
    sample = next(sample for sample in report.samples if sample.tag == "position")
    assert found.page.locator("#viewer-title").inner_text() == sample.prompt
    assert "position" in found.page.locator("#viewer-meta").inner_text().lower()
    # Every variant's image at the same seed, its boxes, what was answered about it, and its reward.
    assert viewer.locator("figure").count() == len(report.variants)
    assert viewer.locator("figure img").count() == len(report.variants)
    sync_api.expect(viewer.locator("rect.over").first).to_be_visible()
    assert viewer.get_by_text(f"Is it as asked, {sample.index}?").count() == len(report.variants)
    assert viewer.locator(".reward strong").count() == len(report.variants)
    assert found.problems == []
    assert all(url.startswith(("file://", "data:")) for url in found.requests)
    found.page.close()


def test_an_address_opens_a_variant_s_failures_and_a_sample(
    browser: "sync_api.Browser", report: ReportData, tmp_path: Path
) -> None:
    html = write_report(report, tmp_path).html
    wrong = next(sample for sample in report.samples if sample.correct is False)
    found = visit(browser, html)
    place = f"{wrong.prompt_id}/{wrong.index}"
    found.page.goto(f"{html.as_uri()}#variant={wrong.variant}&verdict=wrong&tag={wrong.tag}&sample={place}")
    sync_api.expect(found.page.locator("#viewer-title")).to_have_text(wrong.prompt)
    assert found.page.locator("#controls [name=tag]").input_value() == wrong.tag
    assert found.problems == []
    found.page.close()
