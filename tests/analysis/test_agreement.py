"""What metrics agree on: orders, the images they differ on, the renderer's truth, and how all of it is told."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sana_bench.analysis.agreement import find_agreement
from sana_bench.analysis.agreement_text import as_page
from sana_bench.analysis.known_truth import drawn_images, right_answers
from sana_bench.cli.main import execute
from sana_bench.core.errors import UsageError
from sana_bench.core.registry import METRICS, Entry
from sana_bench.metrics.base import ScoreRow
from sana_bench.micro.rendered import draw
from sana_bench.micro.text_world import TextScene
from sana_bench.results.reader import load_run
from sana_bench.results.schema import ScoreRecord
from sana_bench.runner.run import RunOptions, run_suite
from sana_reports import agreement_text, write_agreement
from tests.analysis.stored import rendered_run
from tests.runner import fakes


class Paleness(fakes.Redness):
    """How far the red channel is from full: the opposite order of redness, but lower is better."""

    name = "paleness"
    protocol = "paleness/test@1"
    higher_is_better = False

    def score(self, samples):
        return [replace(row, value=255 - row.value, details={}) for row in super().score(samples)]


class Chance(fakes.Redness):
    """Nothing to do with the image's colour."""

    name = "chance"
    protocol = "chance/test@1"

    def score(self, samples):
        rng = [np.random.default_rng(list(f"{one.variant} {one.id}".encode())) for one in samples]
        return [
            ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, float(one.random()), {})
            for sample, one in zip(samples, rng, strict=True)
        ]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A finished run of three variants with three metrics of single images and one of sets."""
    folder = tmp_path_factory.mktemp("judged")
    metrics = ("redness", "paleness", "chance", "spread")
    entries = [Entry(metric.name, lambda *_, m=metric: m()) for metric in (Paleness, Chance)]
    with pytest.MonkeyPatch.context() as patch, fakes.installed(), METRICS.added(*entries):
        patch.setattr(fakes.Shapes, "metric_names", metrics)
        patch.setattr(fakes, "N_PROMPTS", 30)
        path = fakes.write_suite(folder, steps=(4, 2, 3))
        path.write_text(path.read_text().replace("[redness, spread]", f"[{', '.join(metrics)}]"))
        assert run_suite(RunOptions(suite=path, output=folder / "results", tier="micro")) == 0
    return load_run(folder / "results", "latest")


def test_orders_are_compared_pair_by_pair(judged):
    found = find_agreement(judged)
    pairs = {(pair.a, pair.b): pair for pair in found.pairs}
    assert set(pairs) == {("redness", "paleness"), ("redness", "chance"), ("paleness", "chance")}
    same, other = pairs["redness", "paleness"], pairs["redness", "chance"]
    # Better comes first for both, whichever way the numbers run.
    assert same.prompts.kendall.value == same.prompts.spearman.value == pytest.approx(1)
    assert same.variants.kendall.value == pytest.approx(1)
    assert (same.n_prompts, same.n_variants) == (30, 3)
    # Three variants of 30 prompts each without any connection: a standard error of 0.13 / sqrt 3, of which five are allowed.
    assert abs(other.prompts.kendall.value) < 5 * 0.13 / np.sqrt(3)
    assert other.prompts.kendall.low < other.prompts.kendall.value < other.prompts.kendall.high
    assert found.left_out == ["shapes: spread scores no single images"]
    assert found.truth == []


def test_images_that_differ_most_come_first_one_a_prompt(judged):
    shown = [
        one for one in find_agreement(judged, 5).disagreements if (one.a, one.b) == ("redness", "chance")
    ]
    gaps = [abs(one.rank_a - one.rank_b) for one in shown]
    assert len(shown) == 5
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.5
    assert len({one.prompt_id for one in shown}) == 5
    assert all(one.image.is_file() for one in shown)
    every = [
        (s.scores["redness"].value, s.scores["chance"].value)
        for v in judged.variants.values()
        for s in v.samples
    ]
    worst = shown[0]
    assert worst.rank_a == pytest.approx(sum(a < worst.value_a for a, _ in every) / (len(every) - 1))
    # Two metrics of one order differ on no image.
    assert not [
        one for one in find_agreement(judged).disagreements if (one.a, one.b) == ("redness", "paleness")
    ]


def test_the_page_and_the_text_say_the_same(judged, tmp_path):
    page = as_page(find_agreement(judged, 3))
    text = agreement_text(page)
    html = write_agreement(page, tmp_path).read_text(encoding="utf-8")
    assert "redness, paleness  1.00 [1.00, 1.00]" in text
    for words in (
        "redness, paleness",
        "shapes: where redness and chance differ most",
        "spread scores no single",
    ):
        assert words in text
        assert words in html
    assert html.count("data:image/png;base64,") == 6
    assert "micro-rendered" in text
    images = [image for contrast in page.contrasts for image in contrast.images]
    assert all(image.where in text and image.where in html for image in images)


def test_it_is_a_table_and_shows_itself(judged):
    found = find_agreement(judged, 1)
    table = found.table()
    assert list(table.columns) == [
        *("benchmark", "a", "b", "over", "kendall", "kendall_low", "kendall_high"),
        *("spearman", "spearman_low", "spearman_high", "n"),
    ]
    assert table["over"].tolist() == ["prompts", "variants"] * 3
    assert table["n"].tolist() == [30, 3] * 3
    assert table["kendall"].tolist()[::2] == [pair.prompts.kendall.value for pair in found.pairs]
    assert "What metrics agree on" in found._repr_html_()
    assert str(found) == agreement_text(as_page(found))


def test_a_missing_image_is_said_and_text_is_escaped(judged, tmp_path):
    found = find_agreement(judged, 1)
    one = replace(found.disagreements[0], prompt="<script>x</script>", image=tmp_path / "gone.png")
    html = write_agreement(as_page(replace(found, disagreements=[one])), tmp_path).read_text(encoding="utf-8")
    assert "the image is not there" in html
    assert "<script>" not in html
    assert "&lt;script&gt;x" in html


def test_the_command_prints_a_table_or_json_and_writes_a_page(judged, capsys):
    output = str(judged.output)
    assert execute(["agreement", "latest", "--output", output, "--images", "2"]) == 0
    text = capsys.readouterr().out
    page = judged.files.report / "agreement.html"
    assert f"page: {page}" in text
    assert page.is_file()
    page.unlink()
    assert execute(["agreement", "latest", "--output", output, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data == find_agreement(judged).to_dict()
    assert {"run_id", "tier", "pairs", "disagreements", "truth", "left_out"} == set(data)
    assert not page.exists()


def test_a_run_with_one_metric_is_refused_in_one_line(world):
    world.run()
    with pytest.raises(UsageError, match="nothing to compare: no benchmark has two metrics"):
        find_agreement(load_run(world.output, "latest"))


def test_prompts_that_lack_a_score_are_not_compared(judged):
    variant = next(iter(judged.variants.values()))
    kept = [
        replace(one, scores={"chance": one.scores["chance"]}) if one.prompt.id == "00003" else one
        for one in variant.samples
    ]
    less = replace(judged, variants={**judged.variants, variant.name: replace(variant, samples=kept)})
    pairs = {(pair.a, pair.b): pair for pair in find_agreement(less).pairs}
    assert pairs["redness", "paleness"].n_prompts == 29
    apart = [
        replace(one, scores={name: one.scores[name]})
        for one in variant.samples
        for name in [("redness", "chance")[int(one.prompt.id) % 2]]
    ]
    none = replace(judged, variants={variant.name: replace(variant, samples=apart)})
    with pytest.raises(UsageError, match="nothing to compare"):
        find_agreement(none)
    nothing = replace(judged, variants={variant.name: replace(variant, samples=[])})
    with pytest.raises(UsageError, match="nothing to compare"):
        find_agreement(nothing)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return rendered_run(tmp_path_factory.mktemp("rendered"))


def test_metrics_are_held_against_the_renderer(rendered):
    rates = {(rate.metric, rate.kind): rate for rate in find_agreement(rendered).truth}
    geneval, pairs = rates["geneval", "answers"], rates["geneval", "pairs"]
    # The detector is right on every scene of the renderer (docs/micro_world.md).
    assert geneval.rate.value == 1
    assert geneval.rate.low < 1
    assert geneval.protocol == "geneval/micro@1"
    assert geneval.n == 4 * geneval.n_prompts
    # A right image passes and one with a mistake does not: no pair is tied.
    assert pairs.rate.value == 1
    assert pairs.n_prompts <= geneval.n_prompts
    assert find_agreement(rendered).pairs == []


def test_a_wrong_verdict_costs(rendered):
    """Turning every verdict around turns the rates around: a right one of k is a wrong one of k."""
    (variant,) = rendered.variants.values()
    turned = []
    for one in variant.samples:
        record = one.scores["geneval"]
        details = record.details | {"correct": not record.details["correct"]}
        turned.append(
            replace(one, scores={"geneval": replace(record, value=1 - record.value, details=details)})
        )
    wrong = replace(rendered, variants={variant.name: replace(variant, samples=turned)})
    before, after = (
        {rate.kind: rate.rate.value for rate in find_agreement(run).truth} for run in (rendered, wrong)
    )
    assert after["answers"] == 0
    assert after["pairs"] == pytest.approx(1 - before["pairs"])


def test_drawn_images_are_those_of_the_run(rendered):
    from sana_bench.core.images import load_image

    seen = list(drawn_images(rendered, "geneval@12"))
    assert {drawn.as_asked for _, drawn in seen} == {True, False}
    for one, drawn in seen:
        np.testing.assert_array_equal(load_image(one.sample.image_path), drawn.image)


def sample_of(rendered, text, metric, **details):
    one = next(iter(rendered.variants.values())).samples[0]
    prompt = replace(one.prompt, text=text, metadata={})
    record = ScoreRecord("", "", 0.0, details)
    return replace(one, sample=replace(one.sample, prompt=prompt), scores={metric: record})


def test_answers_are_held_against_what_is_shown_not_against_what_was_asked(rendered):
    text = "a photo of two red circles and a blue square"
    asked = {"How many circles are there?": 0.9, "Are the circles red?": 0.2, "Is there a square?": 0.7}
    answers = [{"question": question, "answer": "", "score": score} for question, score in asked.items()]
    answers += [{"question": "Is it art?", "answer": "", "score": 1.0}]
    one = sample_of(rendered, text, "any", answers=answers)
    right = draw(text, 0)
    assert right.as_asked
    # What no scene can answer is left out.
    assert right_answers(one, right, "any") == [True, False, True]
    # Questions that depend on others are judged by what was said of them.
    undone = [{**answer, "score": 0.0, "raw": answer["score"]} for answer in answers]
    assert right_answers(sample_of(rendered, text, "any", answers=undone), right, "any") == [
        True,
        False,
        True,
    ]
    assert right_answers(sample_of(rendered, text, "any"), right, "any") == []


def test_readings_are_right_with_exactly_the_words_that_are_shown(rendered):
    text = "a photo of the red text OPEN CAFE"
    drawn = draw(text, 1)
    assert isinstance(drawn.scene, TextScene)
    assert not drawn.as_asked
    read = [drawn.scene.text, drawn.scene.text.lower(), "OPEN CAFE", ""]
    answers = [{"question": text, "answer": words, "score": 0.0} for words in read]
    one = sample_of(rendered, text, "any", answers=answers)
    assert right_answers(one, drawn, "any") == [True, True, False, False]
