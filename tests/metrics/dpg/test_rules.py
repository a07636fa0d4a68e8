"""DPG-Bench's scoring rules against stored outcomes of the published script, and the corrected reading."""

import gzip
import json

import pytest

from sana_bench.core.errors import AssetError
from sana_bench.metrics.dpg.rules import (
    MissingParentError,
    broad_category,
    category,
    score_official,
    score_strict,
)
from tests import SHARED

CASES = SHARED / "data/dpg_bench/official_scoring_cases.jsonl.gz"


def chain(*links):
    """Questions from (id, parents) pairs."""
    return [
        {"proposition_id": key, "dependency": list(parents), "tuple": "entity - whole (x)"}
        for key, parents in links
    ]


def test_official_scores_equal_the_published_scripts():
    if not CASES.exists():
        pytest.skip(f"{CASES} is not there")
    with gzip.open(CASES, "rt", encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    assert len(cases) == 300
    for case in cases:
        scores = score_official(case["questions"], case["answers_per_image"])
        # Equality is exact: the same sums of the same zeros and ones.
        assert scores.image_scores == case["image_scores"]
        assert scores.prompt_score == case["prompt_score"]
        assert scores.category_inputs == case["category_inputs"]


ORDERED = chain((1, [0]), (2, [1]), (3, [2]))
CHILD_FIRST = chain((3, [2]), (1, [0]), (2, [1]))
FIRST_IS_NO = {"1": "no", "2": "yes", "3": "yes"}


def test_official_judges_a_child_before_its_parent_by_the_parents_own_answer():
    assert score_official(ORDERED, [FIRST_IS_NO]).image_scores == [0.0]
    assert score_official(CHILD_FIRST, [FIRST_IS_NO]).image_scores == [1 / 3]


def test_strict_does_not_depend_on_the_order_of_questions():
    assert score_strict(ORDERED, [FIRST_IS_NO]).image_scores == [0.0]
    assert score_strict(CHILD_FIRST, [FIRST_IS_NO]).image_scores == [0.0]


def test_categories_come_from_the_last_image_or_from_all():
    answers = [{1: "yes", 2: "yes", 3: "yes"}, FIRST_IS_NO]
    assert score_official(ORDERED, answers).category_inputs == {"1": 0.0, "2": 1.0, "3": 1.0}
    assert score_strict(ORDERED, answers).category_inputs == {"1": 0.5, "2": 0.5, "3": 0.5}


@pytest.mark.parametrize("answer", ["Yes", "yes ", "yes it is", "", "no"])
def test_only_the_exact_word_counts(answer):
    assert score_official(chain((1, [0])), [{1: answer}]).prompt_score == 0.0


def test_a_parent_that_is_not_asked():
    with pytest.raises(MissingParentError, match="question 2 depends on 1, which is not asked"):
        score_official(chain((2, [1])), [{2: "yes"}])
    with pytest.raises(AssetError, match="question 2 depends on 1"):
        score_strict(chain((2, [1])), [{2: "yes"}])


def test_strict_refuses_a_circle():
    with pytest.raises(AssetError, match=r"circle: (1 -> 2 -> 1|2 -> 1 -> 2)"):
        score_strict(chain((1, [2]), (2, [1])), [{1: "yes", 2: "yes"}])


@pytest.mark.parametrize("score", [score_official, score_strict])
@pytest.mark.parametrize(("questions", "answers"), [([], [{}]), (ORDERED, []), (ORDERED, [{1: "yes"}])])
def test_nothing_to_score_is_an_error(score, questions, answers):
    with pytest.raises(ValueError, match=r"give no score|no answer"):
        score(questions, answers)


def test_categories_are_read_from_the_tuple():
    question = {"tuple": "attribute - color (car, red - ish)"}
    assert (category(question), broad_category(question)) == ("attribute - color", "attribute")
    assert broad_category({"tuple": "global - (photo)"}) == "global"
