"""A report of ten thousand samples, timed in a real browser."""

from dataclasses import replace
from pathlib import Path

from sana_reports import ReportData, SampleCell, write_report
from tests.reports.browsing import BROWSER, sync_api, visit

pytestmark = BROWSER

# Milliseconds from a user's act until the changed page has been painted.
TIME = """async (act) => {
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  const form = document.getElementById("controls").elements;
  const change = (name, value) => {
    if (typeof value === "boolean") form[name].checked = value; else form[name].value = value;
    form[name].dispatchEvent(new Event("input", { bubbles: true }));
  };
  const acts = {
    "filter by task": () => change("tag", "position"),
    "only where variants disagree": () => change("disagree", true),
    "all again": () => document.querySelector("#controls [type=reset]").click(),
    "largest change first": () => change("order", "change:scores:clip_score"),
    "two variants, flips first": () => change("shown", "0:1"),
    "next page": () => document.querySelector("[data-page='1']").click(),
    "open a sample": () => document.querySelector(".sample button.frame").click(),
    "next sample": () => document.getElementById("viewer-next").click(),
    "largest tenth by change": () => change("change", "change:scores:clip_score"),
    "search for a prompt": () => change("search", "04999"),
  };
  const changes = new Promise((done) => {
    const seen = new MutationObserver(() => { seen.disconnect(); done(); });
    for (const id of ["cards", "viewer-body"]) seen.observe(document.getElementById(id), { childList: true });
  });
  const start = performance.now();
  acts[act]();
  await changes;
  await painted();
  return performance.now() - start;
}"""


def many_samples(report: ReportData, n_comparisons: int) -> list[SampleCell]:
    """Samples of two variants with everything a sample can have."""
    by_variant = [next(s for s in report.samples if s.variant == v.name) for v in report.variants]
    tags = [sample.tag for sample in report.samples]
    answers = [
        {"question": f"Is this question {i} about it?", "answer": "yes", "score": 1.0} for i in range(4)
    ]
    return [
        replace(
            sample,
            prompt_id=f"{number:05d}",
            index=0,
            prompt=f"{sample.prompt}, number {number}",
            tag=tags[number % len(tags)],
            correct=number % 3 > rank,
            scores={"clip_score": float((number * 7919 * (rank + 1)) % 1000)},
            answers=answers,
            rewards={"image_reward": 0.001 * number},
        )
        for number in range(n_comparisons)
        for rank, sample in enumerate(by_variant)
    ]


def test_ten_thousand_samples_stay_responsive(
    browser: "sync_api.Browser", report: ReportData, tmp_path: Path
) -> None:
    """5,000 comparisons of two variants; only a page of cards may exist at a time. `-s` prints the times."""
    made = replace(report, samples=many_samples(report, 5000))
    found = visit(browser, write_report(made, tmp_path, inline_limit_bytes=0).html)
    found.expect_cards(24)
    opening = found.page.evaluate("performance.getEntriesByType('navigation')[0].domComplete")
    times = {"open the report": opening}
    for act in (
        "filter by task", "only where variants disagree", "all again", "largest change first",
        "two variants, flips first", "next page", "open a sample", "next sample",
    ):  # fmt: skip
        times[act] = found.page.evaluate(TIME, act)
        assert found.count(".sample") == 24
    found.page.keyboard.press("Escape")
    times["largest tenth by change"] = found.page.evaluate(TIME, "largest tenth by change")
    times["search for a prompt"] = found.page.evaluate(TIME, "search for a prompt")
    assert found.count(".sample") == 1
    print("".join(f"\n{milliseconds:7.0f} ms  {act}" for act, milliseconds in times.items()))
    # Up to a second keeps a reader's thread of thought; the usual times, a tenth of that, are in docs/report.md.
    assert {act: time for act, time in times.items() if time >= 1000 and act != "open the report"} == {}
    assert opening < 5000
    assert found.count("img[loading=lazy]") >= 2
    assert found.problems == []
    found.close()
