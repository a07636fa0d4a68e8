import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from sana_reports import ReportData, write_report

HOSTILE = '</script><script>window.pwned = 1</script><img src=x onerror="window.pwned = 2">'


class Page(HTMLParser):
    """What a browser would see: elements with attributes, visible text, and the contents of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif not self._inside and data.strip():
            self.text.append(" ".join(data.split()))

    @property
    def visible(self) -> str:
        return " ".join(self.text)

    @property
    def gallery(self) -> dict:
        return json.loads(self.scripts[0])


def write_page(data: ReportData, folder: Path, **options: int) -> Page:
    return Page(write_report(data, folder, **options).html.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(report: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return write_page(report, tmp_path_factory.mktemp("page"))


def with_hostile_text(data: ReportData) -> ReportData:
    """The same report with markup in every place where text from outside can appear."""
    name = f"variant {HOSTILE}"
    old = data.variants[0].name
    variant = replace(
        data.variants[0],
        name=name,
        description=HOSTILE,
        settings={HOSTILE: HOSTILE},
        fingerprint=HOSTILE,
        kind="pruned",
        derived_from=HOSTILE,
    )
    summaries = [
        replace(cell, variant=name, note=HOSTILE, unit=HOSTILE, protocol=HOSTILE)
        for cell in data.summaries
        if cell.variant == old
    ]
    samples = [
        replace(
            sample,
            variant=name if sample.variant == old else sample.variant,
            prompt=HOSTILE,
            tag=f"tag {HOSTILE}",
            reasons=(HOSTILE, "</script>", "<!-- <script>"),
            detections=[{"label": HOSTILE, "score": 0.9, "box": [1, 2, 30, 40], "color": HOSTILE}],
            scores={f"score {HOSTILE}": 1.0},
            answers=[{"question": HOSTILE, "answer": HOSTILE, "score": 1.0}],
            rewards={f"reward {HOSTILE}": 0.5},
        )
        for sample in data.samples
    ]
    return replace(
        data,
        title=HOSTILE,
        suite_name=HOSTILE,
        tier_reason=HOSTILE,
        banner=HOSTILE,
        created=HOSTILE,
        fingerprint=HOSTILE,
        complete=False,
        incomplete_reasons=[HOSTILE],
        variants=[variant, data.variants[1]],
        summaries=summaries,
        samples=samples,
        provenance={HOSTILE: {HOSTILE: HOSTILE}, "command": HOSTILE},
    )


def test_page_shows_each_number_with_interval_n_and_protocol(report: ReportData, page: Page) -> None:
    cell = next(cell for cell in report.summaries if cell.metric == "clip_score")
    assert f"{cell.value:.2f} [{cell.low:.2f}, {cell.high:.2f}]" in page.visible
    assert "n = 36 · 18 prompts" in page.visible
    for text in ("geneval/micro@1", "clip_score/micro@1", "fid/clip-micro@1", "Color attribution"):
        assert text in page.visible
    assert "12.40 [11.20, 13.90] best" in page.visible  # clear of 15.5 [14.3, 17.0]


def test_page_says_that_micro_numbers_do_not_compare(report: ReportData, page: Page, tmp_path: Path) -> None:
    notice = "They do not compare with published ones."
    assert notice in page.visible
    assert notice not in write_page(replace(report, tier="full"), tmp_path).visible
    # A banner that repeats the notice is not shown twice; another one is shown beside it.
    repeated = write_page(replace(report, banner="Micro tier: does not compare."), tmp_path).visible
    assert "Micro tier: does not compare." not in repeated
    assert notice in repeated
    other = write_page(replace(report, banner="Made on a throttled machine."), tmp_path).visible
    assert "Made on a throttled machine." in other
    assert notice in other


def test_incomplete_variant_is_flagged_and_never_best(report: ReportData, tmp_path: Path) -> None:
    first = report.variants[0].name
    cells = [
        replace(cell, n_samples=34) if cell.variant == first and cell.key == "overall" else cell
        for cell in report.summaries
    ]
    data = replace(report, summaries=cells, complete=False, incomplete_reasons=["2 of 72 images are missing"])
    visible = write_page(data, tmp_path).visible
    assert "This run is incomplete." in visible
    assert "2 of 72 images are missing" in visible
    assert "incomplete, not ranked" in visible
    assert "n = 34/36 · 18 prompts · incomplete" in visible
    assert "13.90] best" not in visible
    assert "12.40 [11.20, 13.90]" in visible


def test_lists_of_the_provenance_are_read_line_by_line(report: ReportData, tmp_path: Path) -> None:
    sessions = [{"state": "interrupted", "images": 3}, {"state": "done", "images": 9}]
    provenance = {"sessions": sessions, "devices": [], "places": ["cpu", "cuda"]}
    page = write_report(replace(report, provenance=provenance), tmp_path).html.read_text(encoding="utf-8")
    lines = "state interrupted, images 3\nstate done, images 9"
    for key, value in (("sessions", lines), ("devices", "none"), ("places", "cpu\ncuda")):
        assert f'<dt>{key}</dt><dd dir="auto">{value}</dd>' in page


def test_page_without_scores_or_samples_is_still_a_page(report: ReportData, tmp_path: Path) -> None:
    page = write_page(replace(report, summaries=[], samples=[]), tmp_path)
    assert "No scores in this run." in page.visible
    assert page.gallery["groups"] == []


def test_value_that_could_not_be_computed_is_a_dash(report: ReportData, tmp_path: Path) -> None:
    nan = {"value": math.nan, "low": math.nan, "high": math.nan, "n_samples": 0}
    cells = [replace(cell, **nan) if cell.metric == "fid" else cell for cell in report.summaries]
    page = write_page(replace(report, summaries=cells), tmp_path)
    assert "n = 0/36" in page.visible
    assert not re.search(r"\bnan\b", page.visible, re.IGNORECASE)


def test_no_element_points_outside_the_file(page: Page) -> None:
    allowed = re.compile(r"#|data:")
    links = [
        (tag, value)
        for tag, attrs in page.elements
        for name, value in attrs.items()
        if name in ("src", "href")
    ]
    assert links
    assert [link for link in links if not allowed.match(link[1] or "")] == []
    sources = [cell["src"] for group in page.gallery["groups"] for cell in group["cells"]]
    assert len(sources) == 72
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    styles = files("sana_reports").joinpath("templates", "report.css").read_text()
    assert "url(" not in styles
    assert "@import" not in styles


def test_own_script_and_style_stay_small() -> None:
    sizes = [
        len(files("sana_reports").joinpath("templates", name).read_bytes())
        for name in ("report.js", "report.css")
    ]
    assert sum(sizes) <= 60_000


def test_hostile_text_creates_no_element(report: ReportData, page: Page, tmp_path: Path) -> None:
    hostile = write_page(with_hostile_text(report), tmp_path)
    assert [tag for tag, _ in hostile.elements if tag in ("script", "img", "iframe")] == ["script", "script"]
    assert not [name for _, attrs in hostile.elements for name in attrs if name.startswith("on")]
    assert hostile.scripts[1] == page.scripts[1]
    # The text survives the escaping unchanged, on the page and in the data.
    assert HOSTILE in hostile.visible
    group = hostile.gallery["groups"][0]
    assert group["prompt"] == HOSTILE
    assert group["cells"][0]["reasons"] == [HOSTILE, "</script>", "<!-- <script>"]


def test_hostile_text_stays_text_in_the_chart_and_the_source(report: ReportData, tmp_path: Path) -> None:
    html = write_report(with_hostile_text(report), tmp_path).html.read_text(encoding="utf-8")
    assert html.count("<script") == 2
    assert html.count("</script") == 2
    assert "<!--" not in html


def test_images_above_the_limit_are_linked_relative_to_the_report(
    report: ReportData, images: Path, tmp_path: Path
) -> None:
    page = write_page(report, images / "a report", inline_limit_bytes=1000)
    sources = [cell["src"] for group in page.gallery["groups"] for cell in group["cells"]]
    assert sources[0] == "../images/variant0/00000/00000.png"
    assert all((images / "a report" / source).is_file() for source in sources)
    odd = images / "50% #1?" / "x.png"
    odd.parent.mkdir()
    odd.write_bytes(report.samples[0].image_path.read_bytes())
    moved = replace(report, samples=[replace(report.samples[0], image_path=odd)])
    linked = write_page(moved, images / "a report", inline_limit_bytes=0)
    assert linked.gallery["groups"][0]["cells"][0]["src"] == "../50%25%20%231%3F/x.png"


def test_missing_and_unreadable_images_have_no_source(report: ReportData, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    samples = [
        replace(report.samples[0], image_path=tmp_path / "absent.png"),
        replace(report.samples[1], image_path=broken),
    ]
    page = write_page(replace(report, samples=samples), tmp_path)
    assert [cell["src"] for cell in page.gallery["groups"][0]["cells"]] == [None, None]


def test_sample_that_one_variant_lacks_leaves_its_cell_empty(report: ReportData, tmp_path: Path) -> None:
    page = write_page(replace(report, samples=report.samples[1:]), tmp_path)
    cells = page.gallery["groups"][0]["cells"]
    assert cells[0] is None
    assert cells[1]["src"].startswith("data:")


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, math.nan]], ids=["short", "nan"])
def test_malformed_detection_is_refused(report: ReportData, tmp_path: Path, box: list[float]) -> None:
    bad = replace(report.samples[0], detections=[{"label": "circle", "score": 1.0, "box": box}])
    with pytest.raises(ValueError, match=r"sample 00000/0 of variant 'sana-micro-20-steps': bad detection"):
        write_report(replace(report, samples=[bad]), tmp_path)


def with_findings(data: ReportData, **changes: object) -> ReportData:
    return replace(data, samples=[replace(data.samples[0], **changes), *data.samples[1:]])


def test_answers_and_rewards_reach_the_page(report: ReportData, tmp_path: Path) -> None:
    answers = [
        {"question": "Is it red?", "answer": "yes", "score": 1},
        {"question": "?", "answer": False, "score": math.nan},
    ]
    found = with_findings(report, answers=answers, rewards={"image_reward": 0.123456, "judge": math.inf})
    cell = write_page(found, tmp_path).gallery["groups"][0]["cells"][0]
    assert cell["answers"] == [["Is it red?", "yes", 1.0], ["?", "False", None]]
    assert cell["rewards"] == {"image_reward": 0.1235}
    other = write_page(report, tmp_path).gallery["groups"][0]["cells"][0]
    assert (other["answers"], other["rewards"]) == ([], {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": ["yes"]}, "an answer is a question, an answer and a score, not 'yes'"),
        ({"answers": [{"question": "?", "answer": "yes"}]}, "an answer is a question, an answer and a score"),
        (
            {"answers": [{"question": "?", "answer": "yes", "score": "1"}]},
            "the score of an answer '1' is not a number",
        ),
        ({"rewards": {"judge": True}}, "reward True is not a number"),
    ],
)
def test_malformed_answers_and_rewards_are_refused(
    report: ReportData, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"sample 00000/0 of variant .*: {re.escape(message)}"):
        write_report(with_findings(report, **changes), tmp_path)


def test_two_samples_in_one_place_are_refused(report: ReportData, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two samples 00000/0 of variant"):
        write_report(replace(report, samples=[report.samples[0], report.samples[0]]), tmp_path)


def test_failed_write_keeps_the_old_report(
    report: ReportData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_report(report, tmp_path)
    before = paths.html.read_bytes()

    def full_disk(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_report(replace(report, title="Another"), tmp_path)
    assert paths.html.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.csv", "report.html", "report.md"]


def test_report_is_a_pure_function_of_its_data(report: ReportData, tmp_path: Path) -> None:
    first, second = write_report(report, tmp_path / "a"), write_report(report, tmp_path / "b")
    assert first.html.read_bytes() == second.html.read_bytes()
    assert first.markdown.read_bytes() == second.markdown.read_bytes()
    assert first.csv.read_bytes() == second.csv.read_bytes()
