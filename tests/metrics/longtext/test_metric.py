"""LongText-Bench through the metric: from readings to summaries, against stored outcomes of the official code."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sana_bench import metrics
from sana_bench.core.errors import AssetError, IncompleteError, SuiteError, UsageError
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.longtext.metric import LongTextMetric
from sana_bench.metrics.longtext.rules import contributions
from sana_bench.metrics.read_text import REQUEST
from sana_bench.suites.schema import MetricSpec
from tests.metrics.published_cases import published_cases
from tests.metrics.told_judge import ToldJudge, numbered_image

OFFICIAL = "longtext/official@1"
SEED = 3


def samples_of(tmp_path, images, language="en", per_prompt=1):
    """An image for each record of the rules, of one colour that says which it is; so many of them in a row share a prompt."""
    found = []
    for place, image in enumerate(images):
        path = tmp_path / f"{place}.png"
        Image.fromarray(numbered_image(place)).save(path)
        metadata = {"text": image["text"], "language": language}
        prompt = Prompt(f"{place // per_prompt:03d}", "text", image.get("tag", "sign"), metadata)
        found.append(Sample("mine", "longtext", prompt, place % per_prompt, path))
    return found


def judge_of(images):
    return ToldJudge(reads=lambda image: images[image[0, 0, 0]]["read"])


def summaries(images, samples, n_expected=None):
    metric = LongTextMetric(OFFICIAL, judge_of(images))
    rows = metric.score(samples)
    return rows, {row.key: row for row in metric.summarise(rows, n_expected or len(samples), SEED)}


def test_every_stored_outcome_is_met_exactly_through_the_metric(tmp_path):
    for case in published_cases("longtext/text_cases.jsonl.gz"):
        rows, found = summaries(case["images"], samples_of(tmp_path, case["images"], case["language"]))
        counted = [(row.details["matched"], row.details["words"]) for row in rows]
        assert counted == [(image["matched"], image["words"]) for image in case["images"]]
        assert found["overall"].value == case["score"]


def image(wanted, read, tag="sign"):
    return {"text": [wanted], "read": read, "tag": tag}


IMAGES = [
    image("one two three four", "one two three four"),
    image("one", "two"),
    image("red green", "green", "poster"),
    image("red green", "red green", "poster"),
]


def test_words_are_pooled_and_prompts_are_what_varies(tmp_path):
    rows, found = summaries(IMAGES, samples_of(tmp_path, IMAGES))
    assert [row.value for row in rows] == [1, 0, 0.5, 1]
    assert {key: row.value for key, row in found.items()} == {
        "overall": 7 / 9,
        "sign": 4 / 5,
        "poster": 3 / 4,
    }
    assert {key: row.n_prompts for key, row in found.items()} == {"overall": 4, "sign": 2, "poster": 2}
    assert found["overall"].low < 7 / 9 < found["overall"].high
    assert {row.unit for row in found.values()} == {"fraction"}
    assert found["overall"].note == "9 words or characters"
    # Images of one prompt are one draw: with two prompts instead of four there is less to go by.
    _, pooled = summaries(IMAGES, samples_of(tmp_path, IMAGES, per_prompt=2))
    assert pooled["overall"].value == 7 / 9
    assert pooled["overall"].n_prompts == 2
    assert pooled["overall"].low != found["overall"].low


def test_rows_keep_the_reading_and_the_request(tmp_path):
    judge = judge_of(IMAGES)
    (row,) = LongTextMetric(OFFICIAL, judge).score(samples_of(tmp_path, IMAGES)[2:3])
    assert judge.asked == [(REQUEST, 1024)]
    answer = {"question": "red green", "answer": "green", "score": 0.5}
    assert row.details == {"answers": [answer], "matched": 1, "words": 2}


def test_an_image_without_any_text_still_counts(tmp_path):
    """Nothing is left out: a reading of nothing is worth nothing, and its words are in the denominator."""
    images = [*IMAGES, image("four words of text", "No text recognized.")]
    _, found = summaries(images, samples_of(tmp_path, images))
    assert found["overall"].value == 7 / 13


def test_missing_images_mark_every_number(tmp_path):
    samples = samples_of(tmp_path, IMAGES)
    _, found = summaries(IMAGES, samples[:3], n_expected=4)
    assert not any(row.complete for row in found.values())
    with pytest.raises(IncompleteError, match="no scored samples"):
        LongTextMetric(OFFICIAL, ToldJudge()).summarise([], 4, SEED)


COUNTS = st.integers(1, 40).flatmap(
    lambda words: st.builds(lambda matched: {"matched": matched, "words": words}, st.integers(0, words))
)


@settings(deadline=None)
@given(st.lists(COUNTS, min_size=1, max_size=30))
def test_contributions_average_to_the_pooled_share(images):
    share = sum(one["matched"] for one in images) / sum(one["words"] for one in images)
    found = contributions(images)
    # Values up to 40, of which about 30 are added: 1e-12 is a hundred roundings.
    assert sum(found) / len(found) == pytest.approx(share, abs=1e-12)
    if len({one["words"] for one in images}) == 1:
        shares = [one["matched"] / one["words"] for one in images]
        assert found == pytest.approx(shares, abs=1e-12)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "prompt 7: the field 'text' is missing"),
        ({"text": "word"}, "prompt 7: text: 'word' is not a list"),
        ({"text": ["word", 3]}, "prompt 7: text[1]: 3 is not a text"),
        ({"text": ["!"]}, "prompt 7: text: there is no word in it"),
        ({"text": ["word"], "language": "fr"}, "prompt 7: language: 'fr', expected 'en' or 'zh'"),
    ],
)
def test_prompts_that_ask_for_no_text_are_named(tmp_path, metadata, message):
    sample = Sample("mine", "own", Prompt("7", "text", "all", metadata), 0, tmp_path / "none.png")
    with pytest.raises(UsageError) as caught:
        LongTextMetric(OFFICIAL, ToldJudge()).score([sample])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("protocol", "parameters", "kind", "message"),
    [
        (None, {}, AssetError, "metric 'longtext' on the full tier: weights 'Qwen/Qwen2.5-VL-7B-Instruct' are not on"),
        ("longtext/official@2", {}, SuiteError, "did you mean 'longtext/official@1'?"),
        (None, {"language": "zh"}, SuiteError, "no parameter 'language'"),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_is_one_line(tmp_path, monkeypatch, protocol, parameters, kind, message):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    choice = MetricSpec(name="longtext", protocol=protocol, parameters=parameters)
    with pytest.raises(kind) as caught:
        metrics.build(choice, "full", MetricAssets(tmp_path, tmp_path / "cache"))
    assert message in str(caught.value)
