"""GenEval 2's rules against stored outcomes of the official analysis, by hand, and by their laws."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sana_bench.core.errors import UsageError
from sana_bench.metrics.geneval2.rules import (
    DISTINCT_TOKENS,
    OFFICIAL,
    accepted_spellings,
    geometric_mean,
    soft_score,
    summarise,
)
from tests import SHARED
from tests.metrics.published_cases import published_cases

# The official analysis adds in another order and takes its logarithms with numpy: 1e-12 of 100 is 70 roundings.
TOLERANCE = 1e-12


def row(atom_count, **scores):
    """A prompt with one question a skill."""
    return {"atom_count": atom_count, "skills": list(scores), "scores": list(scores.values())}


def test_every_stored_outcome_is_met():
    cases = published_cases("geneval2/soft_tifa_cases.jsonl.gz")
    assert len(cases) == 18
    for case in cases:
        summary = summarise(case["rows"])
        assert summary.keys() | {"rows"} == case.keys()
        for name in ("am", "gm"):
            assert summary[name] == pytest.approx(case[name], abs=TOLERANCE, rel=0)
        for name in ("per_skill", "per_atom_count"):
            assert summary[name] == pytest.approx(case[name], abs=TOLERANCE, rel=0)


def test_a_small_set_by_hand():
    rows = [
        {"atom_count": 3, "skills": ["count", "object", "object"], "scores": [0.25, 1, 0.5]},
        row(10, count=0.0, verb=0.5),
    ]
    summary = summarise(rows)
    assert summary["am"] == pytest.approx(100 * (1.75 / 3 + 0.25) / 2, abs=TOLERANCE)
    assert summary["gm"] == pytest.approx(100 * 0.5 / 2, abs=TOLERANCE)
    assert summary["per_skill"] == pytest.approx({"count": 12.5, "object": 75, "verb": 50}, abs=TOLERANCE)
    assert summary["per_atom_count"] == pytest.approx({"3": 50, "10": 0}, abs=TOLERANCE)
    assert list(summary["per_atom_count"]) == ["3", "10"]


def test_scores_above_one_stay():
    summary = summarise([row(3, count=1.5, object=1.5)])
    assert summary["am"] == pytest.approx(150, abs=TOLERANCE)
    assert summary["gm"] == pytest.approx(150, abs=TOLERANCE)


PROMPTS = st.lists(
    st.builds(
        lambda atom_count, questions: {
            "atom_count": atom_count,
            "skills": [skill for skill, _ in questions],
            "scores": [score for _, score in questions],
        },
        st.integers(3, 10),
        st.lists(st.tuples(st.sampled_from(["count", "object", "verb"]), st.floats(0, 1)), min_size=1),
    ),
    min_size=1,
)


@settings(deadline=None)
@given(PROMPTS, st.randoms(use_true_random=False))
def test_the_order_of_prompts_and_of_their_questions_does_not_matter(rows, random):
    mixed = []
    for one in random.sample(rows, len(rows)):
        pairs = random.sample(list(zip(one["skills"], one["scores"])), len(one["skills"]))
        skills, scores = zip(*pairs)
        mixed.append({"atom_count": one["atom_count"], "skills": skills, "scores": scores})
    # Exactly: sums are rounded once.
    assert summarise(mixed) == summarise(rows)


@settings(deadline=None)
@given(PROMPTS)
def test_the_geometric_mean_is_never_above_the_arithmetic_and_both_lie_in_range(rows):
    summary = summarise(rows)
    assert 0 <= summary["gm"] <= summary["am"] + 1e-11
    assert summary["am"] <= 100 + TOLERANCE
    lowest, highest = min(summary["per_atom_count"].values()), max(summary["per_atom_count"].values())
    assert lowest - TOLERANCE <= summary["gm"] <= highest + TOLERANCE


def test_perfect_scores_give_a_hundred():
    summary = summarise([row(3, count=1, object=1), row(4, verb=1)])
    assert (summary["am"], summary["gm"]) == (100, 100)
    assert set(summary["per_skill"].values()) == set(summary["per_atom_count"].values()) == {100}


def test_a_tiny_score_is_not_zero():
    # Multiplied, these would be 0 in float64.
    assert geometric_mean([1e-200, 1e-200]) == pytest.approx(1e-200, rel=1e-12)
    assert geometric_mean([1e-200, 0.0]) == 0


def test_spellings_of_a_count():
    question = "How many cows are in the image?"
    assert accepted_spellings(question, "three") == ["three", "Three", " three", " Three", "3", " 3"]
    assert accepted_spellings(question, "ten")[-2:] == ["10", " 10"]


def test_spellings_of_anything_else():
    assert accepted_spellings("Are the cows plastic?", "Yes") == ["Yes", "yes", " yes", " Yes"]


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        (
            "How many cows?",
            "thre",
            "answer: 'thre' is not a number word from one to ten (did you mean 'three'?)",
        ),
        ("How many cows?", "3", "answer: '3' is not a number word from one to ten"),
        ("Are there cows?", "No", "answer: 'No', but only 'Yes' is right for a question that counts nothing"),
    ],
)
def test_other_answers_are_refused(question, answer, message):
    with pytest.raises(UsageError) as caught:
        accepted_spellings(question, answer)
    assert str(caught.value) == message


def test_every_published_question_has_spellings():
    path = SHARED / "data/geneval2/geneval2_data.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    pairs = [
        pair
        for line in path.read_text(encoding="utf-8").splitlines()
        for pair in json.loads(line)["vqa_list"]
    ]
    assert sorted({len(accepted_spellings(*pair)) for pair in pairs}) == [4, 6]
    assert len(pairs) == 6012


# As with a tokenizer that drops a blank before a capital: tokens 7 and 9 begin two spellings each.
TOKENS = [7, 9, 7, 9, 4]
PROBABILITIES = {7: 0.5, 9: 0.125, 4: 0.0625, 11: 0.3125}


def test_a_first_token_that_spellings_share_counts_twice_or_once():
    assert soft_score(TOKENS, PROBABILITIES) == soft_score(TOKENS, PROBABILITIES, OFFICIAL) == 1.3125
    assert soft_score(TOKENS, PROBABILITIES, DISTINCT_TOKENS) == 0.6875


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_counting_once_is_a_probability_and_never_more_than_counting_twice(tokens, weights):
    total = math.fsum(weights) or 1
    probabilities = {token: weight / total for token, weight in enumerate(weights)}
    once, twice = (soft_score(tokens, probabilities, protocol) for protocol in (DISTINCT_TOKENS, OFFICIAL))
    assert 0 <= once <= min(twice, 1 + 1e-12)
    if len(set(tokens)) == len(tokens):
        assert once == twice


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], {}), "first_tokens: the list is empty"),
        (([1], {2: 0.5}), "probabilities[1] is missing"),
        (([1], {1: 1.5}), "probabilities[1]: 1.5 is not a finite number from 0 to 1"),
        (([1], {1: math.nan}), "probabilities[1]: nan is not a finite number from 0 to 1"),
        (
            ([1], {1: 0.5}, "geneval2/oficial@1"),
            "protocol: 'geneval2/oficial@1', expected geneval2/official@1 or geneval2/distinct-tokens@1"
            " (did you mean 'geneval2/official@1'?)",
        ),
    ],
)
def test_bad_probabilities_are_named(arguments, message):
    with pytest.raises(UsageError) as caught:
        soft_score(*arguments)
    assert str(caught.value) == message


GOOD = row(3, count=0.5)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows: the list is empty"),
        ("rows", "rows: 'rows' is not a list"),
        ([GOOD, 3], "rows[1]: 3 is not a record with the field 'atom_count'"),
        ([{"skills": ["count"], "scores": [1]}], "rows[0]: the field 'atom_count' is missing"),
        ([GOOD | {"atom_count": "3"}], "rows[0].atom_count: '3' is not a whole number from 1 up"),
        ([GOOD | {"atom_count": True}], "rows[0].atom_count: True is not a whole number from 1 up"),
        ([GOOD | {"atom_count": 0}], "rows[0].atom_count: 0 is not a whole number from 1 up"),
        ([GOOD | {"scores": []}], "rows[0].scores: the list is empty"),
        ([GOOD | {"scores": [-0.1]}], "rows[0].scores[0]: -0.1 is not a finite number from 0 up"),
        ([GOOD | {"scores": [math.inf]}], "rows[0].scores[0]: inf is not a finite number from 0 up"),
        ([GOOD | {"scores": ["1"]}], "rows[0].scores[0]: '1' is not a finite number from 0 up"),
        ([GOOD | {"scores": [True]}], "rows[0].scores[0]: True is not a finite number from 0 up"),
        ([GOOD | {"scores": [1, 1]}], "rows[0]: 1 skills for 2 scores"),
        ([GOOD | {"skills": [1]}], "rows[0].skills[0]: 1 is not a text"),
    ],
)
def test_bad_rows_are_named(rows, message):
    with pytest.raises(UsageError) as caught:
        summarise(rows)
    assert str(caught.value) == message
