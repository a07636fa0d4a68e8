"""GenEval 2 through the metric: from a judge's first tokens to summaries, against stored outcomes of the official analysis."""

import math

import numpy as np
import pytest
from PIL import Image

from sana_bench import metrics
from sana_bench.core.errors import AssetError, IncompleteError, SuiteError, UsageError
from sana_bench.core.samples import Prompt, Sample
from sana_bench.judges.base import FirstToken
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.geneval2.metric import GenEval2Metric
from sana_bench.metrics.geneval2.rules import DISTINCT_TOKENS, OFFICIAL
from sana_bench.suites.schema import MetricSpec
from tests.metrics.published_cases import published_cases
from tests.metrics.told_judge import ToldJudge, numbered_image

SEED = 3


def samples_of(tmp_path, rows, images_per_prompt=1):
    """A prompt with its images for each row of the rules, with questions `ROW.QUESTION`."""
    found = []
    for place, row in enumerate(rows):
        pairs = [[f"{place}.{number}", "Yes"] for number in range(len(row["scores"]))]
        metadata = {"vqa_list": pairs, "skills": row["skills"]}
        prompt = Prompt(f"{place:05d}", "text", f"{row['atom_count']:02d}_atoms", metadata)
        for index in range(images_per_prompt):
            path = tmp_path / f"{place}-{index}.png"
            Image.fromarray(numbered_image(index)).save(path)
            found.append(Sample("mine", "geneval2", prompt, index, path))
    return found


def judge_of(rows):
    """A judge that gives every question the score that its row has."""

    def soft(_, question):
        place, number = map(int, question.partition(" ")[0].split("."))
        return rows[place]["scores"][number]

    return ToldJudge(soft=soft)


def summaries(metric, samples, n_expected=None):
    rows = metric.score(samples)
    found = metric.summarise(rows, len(samples) if n_expected is None else n_expected, SEED)
    return {row.key: row for row in found}


def test_every_stored_outcome_is_met_through_the_metric(tmp_path):
    """The same tolerance as for the rules alone: float64 sums of a few hundred numbers up to 100, in another order."""
    for case in published_cases("geneval2/soft_tifa_cases.jsonl.gz"):
        found = summaries(
            GenEval2Metric(OFFICIAL, judge_of(case["rows"])), samples_of(tmp_path, case["rows"])
        )
        expected = {"overall": case["gm"], "am": case["am"], **case["per_skill"]}
        expected |= {f"{int(count):02d}_atoms": gm for count, gm in case["per_atom_count"].items()}
        assert {key: row.value for key, row in found.items()} == pytest.approx(expected, abs=1e-12, rel=0)


ROWS = [
    {"atom_count": 3, "skills": ["count", "object"], "scores": [0.25, 1.0]},
    {"atom_count": 3, "skills": ["object", "verb"], "scores": [0.5, 0.5]},
    {"atom_count": 4, "skills": ["object", "object"], "scores": [1.0, 0.0]},
    {"atom_count": 4, "skills": ["count", "count"], "scores": [0.75, 0.25]},
]


def test_rows_keep_what_was_asked_and_what_it_was_worth(tmp_path):
    judge = judge_of(ROWS)
    rows = GenEval2Metric(OFFICIAL, judge).score(samples_of(tmp_path, ROWS))
    assert rows[0].value == 100 * math.sqrt(0.25)
    assert rows[0].details == {
        "am": 62.5,
        "answers": [
            {"question": "0.0", "answer": "Yes", "score": 0.25, "skill": "count"},
            {"question": "0.1", "answer": "Yes", "score": 1.0, "skill": "object"},
        ],
    }
    # All questions of an image in one call, each with the instruction after a blank.
    spellings = ["Yes", "yes", " yes", " Yes"]
    assert judge.asked[0] == (["0.0 Answer in one word.", "0.1 Answer in one word."], [spellings] * 2)
    assert len(judge.asked) == 4


def test_intervals_are_clustered_by_prompt_and_images_of_a_prompt_are_no_prompts(tmp_path):
    metric = GenEval2Metric(OFFICIAL, judge_of(ROWS))
    one = summaries(metric, samples_of(tmp_path, ROWS))
    four = summaries(metric, samples_of(tmp_path, ROWS, images_per_prompt=4))
    for key, row in four.items():
        # Four equal images say no more than one; the same sums in another order.
        assert (row.value, row.low, row.high) == pytest.approx(
            (one[key].value, one[key].low, one[key].high), rel=1e-12, nan_ok=True
        )
        assert row.n_samples == 4 * one[key].n_samples
        assert row.n_prompts == one[key].n_prompts
        assert row.unit == "out of 100"
    assert {key: row.n_prompts for key, row in one.items()} == {
        "overall": 4, "am": 4, "count": 2, "object": 3, "verb": 1, "03_atoms": 2, "04_atoms": 2,
    }  # fmt: skip
    assert one["overall"].low < one["overall"].value < one["overall"].high


def test_missing_images_mark_every_number(tmp_path):
    metric = GenEval2Metric(OFFICIAL, judge_of(ROWS))
    found = summaries(metric, samples_of(tmp_path, ROWS)[:3], n_expected=4)
    assert not any(row.complete for row in found.values())
    assert (found["overall"].n_samples, found["overall"].n_expected) == (3, 4)
    with pytest.raises(IncompleteError, match="no scored samples"):
        metric.summarise([], 4, SEED)


class Doubling:
    """A tokenizer that drops the blank in front of a word: `Yes` and ` Yes` begin with one token."""

    def identity(self):
        return {}

    def probabilities(self, image, questions, spellings):
        tokens = {"Yes": FirstToken(1, 0.375), "yes": FirstToken(2, 0.125)}
        return [[tokens[spelling.strip()] for spelling in found] for found in spellings]


@pytest.mark.parametrize(
    ("protocol", "score"), [(OFFICIAL, 1.0), (DISTINCT_TOKENS, 0.5), ("geneval2/vlm-x@1", 0.5)]
)
def test_only_the_official_protocol_counts_shared_first_tokens_twice(tmp_path, protocol, score):
    metric = GenEval2Metric(protocol, Doubling())
    assert [row.value for row in metric.score(samples_of(tmp_path, ROWS[:1]))] == [100 * score]
    assert metric.identity()["first_tokens"] == (OFFICIAL if protocol == OFFICIAL else DISTINCT_TOKENS)


def test_the_judge_sees_the_image(tmp_path):
    samples = samples_of(tmp_path, ROWS[:1], images_per_prompt=3)
    judge = ToldJudge(soft=lambda image, _: float(image[0, 0, 0]) / 4)
    assert [row.value for row in GenEval2Metric(OFFICIAL, judge).score(samples)] == [0, 25, 50]
    assert np.array_equal(numbered_image(2), np.asarray(Image.open(samples[2].image_path)))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "prompt 7: the field 'vqa_list' is missing"),
        ({"vqa_list": [], "skills": []}, "prompt 7: vqa_list: the list is empty"),
        (
            {"vqa_list": [["Is it?", "Yes"]], "skills": ["a", "b"]},
            "prompt 7: 1 pairs in vqa_list for 2 skills",
        ),
        (
            {"vqa_list": [["Is it?"]], "skills": ["a"]},
            "prompt 7: vqa_list[0]: 1 texts, expected a question and its answer",
        ),
        (
            {"vqa_list": [["Is it?", "No"]], "skills": ["a"]},
            "prompt 7: vqa_list[0]: answer: 'No', but only 'Yes' is right",
        ),
        ({"vqa_list": [[1, "Yes"]], "skills": ["a"]}, "prompt 7: vqa_list[0]: 1 is not a text"),
        ({"vqa_list": [["Is it?", "Yes"]], "skills": [1]}, "prompt 7: skills[0]: 1 is not a text"),
    ],
)
def test_prompts_that_cannot_be_scored_are_named(tmp_path, metadata, message):
    path = tmp_path / "one.png"
    Image.fromarray(numbered_image(0)).save(path)
    sample = Sample("mine", "own", Prompt("7", "text", "all", metadata), 0, path)
    with pytest.raises(UsageError) as caught:
        GenEval2Metric(OFFICIAL, ToldJudge()).score([sample])
    assert str(caught.value).startswith(message)


@pytest.fixture
def assets(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return MetricAssets(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(
    ("protocol", "parameters", "kind", "message"),
    [
        (None, {}, AssetError, "metric 'geneval2' on the full tier: weights 'Qwen/Qwen3-VL-8B-Instruct' are not on this machine"),
        (None, {"judge": "owner/judge-1b"}, AssetError, "hf download owner/judge-1b"),
        (None, {"precision": "fp8"}, SuiteError, "metric 'geneval2' on the full tier: precision is 'fp8'; one of fp32, bf16"),
        (None, {"beams": 3}, SuiteError, "no parameter 'beams'"),
        ("geneval2/oficial@1", {}, SuiteError, "did you mean 'geneval2/official@1'?"),
        ("geneval2/vlm-x@1", {}, SuiteError, "geneval2/vlm-x@1 needs the parameter judge"),
        ("geneval2/official@1", {"judge": "a/b"}, SuiteError, "it has geneval2/vlm-b@1"),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_is_one_line(assets, protocol, parameters, kind, message):
    with pytest.raises(kind) as caught:
        metrics.build(MetricSpec(name="geneval2", protocol=protocol, parameters=parameters), "full", assets)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
