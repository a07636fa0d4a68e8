"""GenEval's score: from detections to rows, and from rows to the official aggregates."""

from dataclasses import replace

import pytest

from sana_bench.metrics import build
from sana_bench.metrics.base import ScoreRow
from sana_bench.metrics.geneval.metric import GenEvalMetric


class Scripted:
    """A detector that finds what it is told to."""

    def __init__(self, detections):
        self.detections = detections

    def identity(self):
        return {"backend": "scripted"}

    def detect(self, image):
        return self.detections


def rows_of(outcomes):
    """Rows from {tag: {prompt: [0 or 1, ...]}}."""
    return [
        ScoreRow(f"{prompt}/{index:05d}", prompt, tag, float(outcome))
        for tag, prompts in outcomes.items()
        for prompt, values in prompts.items()
        for index, outcome in enumerate(values)
    ]


def by_key(rows, n_expected=None):
    metric = GenEvalMetric("geneval/test@1", Scripted([]))
    return {summary.key: summary for summary in metric.summarise(rows, n_expected or len(rows), seed=0)}


def test_micro_detector_tells_right_images_from_wrong_ones(samples, assets):
    rows = build("geneval", "micro", assets).score(samples)
    for row, sample in zip(rows, samples, strict=True):
        assert row.details["correct"] == (row.value == 1.0) == (not row.details["reasons"])
        # The third image shows the prompt before; for the very first that is a scene with a circle in it.
        shows_its_prompt = sample.index < 2 or sample.prompt.id == "00000"
        assert row.value == float(shows_its_prompt), row


def test_rows_keep_unfiltered_detections_and_reasons(samples):
    faint = {"label": "circle", "score": 0.1, "box": [0.0, 0.0, 9.0, 9.0], "color": "red"}
    sample = next(sample for sample in samples if sample.prompt.text == "a photo of a circle")
    row = GenEvalMetric("geneval/test@1", Scripted([faint])).score([sample])[0]
    assert row.details == {
        "correct": False,
        "reasons": ["expected circle>=1, found 0"],
        "detections": [faint],
    }
    sure = GenEvalMetric("geneval/test@1", Scripted([faint | {"score": 0.9}])).score([sample])[0]
    assert (sure.value, sure.details["correct"]) == (1.0, True)


def test_overall_is_the_mean_of_tasks_not_of_images():
    rows = rows_of({"counting": {"a": [1, 1], "b": [1, 0]}, "colors": {"c": [0]}, "position": {"d": [1]}})
    summaries = by_key(rows)
    assert list(summaries) == ["overall", "counting", "colors", "position"]
    assert summaries["overall"].value == pytest.approx((0.75 + 0 + 1) / 3, rel=1e-15)
    assert summaries["counting"].value == 0.75
    assert summaries["overall"].note == (
        "mean of 3 tasks; correct images 0.667, prompts with a correct image 0.750"
    )


def test_tasks_come_in_official_order_and_unknown_ones_last():
    rows = rows_of({tag: {tag: [1, 0]} for tag in ("zebra", "color_attr", "dense", "single_object")})
    assert list(by_key(rows)) == ["overall", "single_object", "color_attr", "dense", "zebra"]


def test_interval_is_wider_for_images_of_one_prompt_than_for_prompts():
    clustered = rows_of({"colors": {f"p{i}": [i % 2] * 4 for i in range(10)}})
    spread = rows_of({"colors": {f"p{i}-{k}": [i % 2] for i in range(10) for k in range(4)}})
    wide, narrow = by_key(clustered)["overall"], by_key(spread)["overall"]
    # Four identical images carry the information of one: the width shrinks by about sqrt(40 / 10) = 2.
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(2, rel=0.15)


def test_all_correct_still_has_an_interval():
    summary = by_key(rows_of({"colors": {f"p{i}": [1, 1] for i in range(24)}}))["overall"]
    assert (summary.value, summary.high) == (1.0, 1.0)
    assert summary.low == pytest.approx(24 / (24 + 1.96**2), abs=1e-4)


def test_missing_samples_leave_no_task_complete():
    rows = rows_of({"counting": {"a": [1, 1]}, "colors": {"b": [0]}})
    summaries = by_key(rows, n_expected=4)
    counts = {key: (summary.n_samples, summary.n_expected) for key, summary in summaries.items()}
    assert counts == {"overall": (3, 4), "counting": (2, 3), "colors": (1, 2)}


def test_prompt_decides_what_is_asked_for(samples, assets):
    metric = build("geneval", "micro", assets)
    two = [sample for sample in samples if sample.prompt.tag == "colors" and sample.index == 0]
    swapped = [replace(two[0], prompt=two[1].prompt), replace(two[1], prompt=two[0].prompt)]
    assert [row.value for row in metric.score(two)] == [1.0, 1.0]
    assert [row.value for row in metric.score(swapped)] == [0.0, 0.0]
