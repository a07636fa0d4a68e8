"""OneIG-Bench's rules against stored outcomes of the official code, by hand, and by their laws."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sana_bench.core.errors import UsageError
from sana_bench.metrics.oneig.rules import Reading, alignment, compare, edit_distance, text
from tests.metrics.published_cases import published_cases


def test_every_stored_alignment_is_met_exactly():
    cases = published_cases("oneig/alignment_cases.jsonl.gz")
    assert len(cases) == 60
    for case in cases:
        assert alignment(case["dependency"], case["answers"]) == case["score"]


def test_every_stored_text_score_is_met_exactly():
    cases = published_cases("oneig/text_cases.jsonl.gz")
    assert len(cases) == 40
    for case in cases:
        for image in case["images"]:
            counted = Reading(image["edit_distance"], image["matched"], image["words"])
            assert compare(image["text"], image["read"]) == counted
        assert text(case["images"], case["language"]) == case["summary"]


CHAIN = {"1": [0], "2": [1], "3": [2]}


@pytest.mark.parametrize(
    ("answers", "score"),
    [
        pytest.param({"1": ["Yes"], "2": ["Yes"], "3": ["Yes"]}, 1, id="all"),
        pytest.param({"1": ["Yes"], "2": ["No"], "3": ["Yes"]}, 1 / 3, id="a wrong parent zeroes its child"),
        pytest.param({"1": ["No"], "2": ["Yes"], "3": ["Yes"]}, 1 / 3, id="and nobody further down"),
        pytest.param({"1": ["yes"], "2": ["Yes."], "3": [" Yes"]}, 0, id="only the exact word"),
        pytest.param(
            {"1": ["Yes", "No"], "2": ["Yes", "No"], "3": ["Yes", "No"]}, 0.5, id="mean over images"
        ),
    ],
)
def test_a_chain_by_hand(answers, score):
    assert alignment(CHAIN, answers) == score
    numbered = {int(key): value for key, value in answers.items()}
    assert alignment({int(key): value for key, value in CHAIN.items()}, numbered) == score


def test_one_wrong_parent_of_two_is_enough_and_order_does_not_matter():
    dependency = {"3": [1, 2], "1": [0], "2": [0]}
    assert alignment(dependency, {"1": ["Yes"], "2": ["No"], "3": ["Yes"]}) == 1 / 3
    assert alignment(dependency, {"2": ["Yes"], "3": ["Yes"], "1": ["No"]}) == 1 / 3


def test_a_question_that_depends_on_itself_stands_alone():
    # Two of the published questions do.
    assert alignment({"1": [1]}, {"1": ["Yes"]}) == 1


@st.composite
def asked(draw):
    """A graph of questions with answers about one to four images."""
    n_questions, n_images = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    parent_lists = st.lists(st.integers(1, n_questions), max_size=3).map(lambda found: found or [0])
    answer_lists = st.lists(st.sampled_from(["Yes", "No"]), min_size=n_images, max_size=n_images)
    dependency = {str(key): draw(parent_lists) for key in range(1, n_questions + 1)}
    return dependency, {key: draw(answer_lists) for key in dependency}


@settings(deadline=None)
@given(asked(), st.randoms(use_true_random=False))
def test_alignment_keeps_its_laws(case, random):
    dependency, answers = case
    score = alignment(dependency, answers)
    assert 0 <= score <= 1
    mixed = {key: answers[key] for key in random.sample(sorted(answers), len(answers))}
    assert alignment(dependency, mixed) == score
    # A yes turned into no never helps; with dependencies taken away no question is lost.
    key = random.choice(sorted(answers))
    assert alignment(dependency, answers | {key: ["No"] * len(answers[key])}) <= score
    shares = [
        sum(answers[one][place] == "Yes" for one in answers) / len(answers)
        for place in range(len(answers[key]))
    ]
    assert alignment({one: [0] for one in dependency}, answers) == sum(shares) / len(shares) >= score


@pytest.mark.parametrize(
    ("dependency", "answers", "message"),
    [
        ({}, {}, "dependency: expected an entry for each question, got {}"),
        ({"1": [0]}, [], "answers: expected an entry for each question, got []"),
        ({"1": [0]}, {"2": ["Yes"]}, "answers: question 1 is missing"),
        ({"2": [0]}, {"1": ["Yes"], "2": ["Yes"]}, "dependency: question 1 is missing"),
        ({"1": [2]}, {"1": ["Yes"]}, "dependency[1]: question 2 is not asked"),
        ({"1": ["0"]}, {"1": ["Yes"]}, "dependency[1]: '0' is not a whole number from 0 up"),
        ({"1": 0}, {"1": ["Yes"]}, "dependency[1]: 0 is not a list"),
        ({"one": [0]}, {"1": ["Yes"]}, "dependency: the question id 'one' is not a whole number from 1 up"),
        ({"1": [0], 1: [0]}, {"1": ["Yes"]}, "dependency: question 1 appears twice"),
        ({"1": [0]}, {"1": []}, "answers[1]: the list is empty"),
        ({"1": [0]}, {"1": "Yes"}, "answers[1]: 'Yes' is not a list"),
        ({"1": [0]}, {"1": [True]}, "answers[1]: True is not a text"),
        (
            {"1": [0], "2": [0]},
            {"1": ["Yes"], "2": ["Yes", "No"]},
            "answers[2]: 2 answers, the others have 1",
        ),
    ],
)
def test_bad_questions_are_named(dependency, answers, message):
    with pytest.raises(UsageError) as caught:
        alignment(dependency, answers)
    assert str(caught.value) == message


def image(wanted, read):
    return {"text": wanted, "read": read}


def test_english_by_hand():
    # 'Happy Hour 57 PM' against 'Happy hour 57': an h and ' PM'; two of the four words are right.
    images = [image("['Happy Hour 5-7 PM']", "Happy hour, 5-7!"), image("['One']", "One")]
    assert compare(**images[0]) == Reading(edit_distance=4, matched=2, words=4)
    assert text(images, "en") == {"ED": 2, "CR": 0.5, "WAC": 0.6, "score": 1 - 2 * 0.5 * (1 - 0.6) / 100}


def test_chinese_by_hand():
    # Characters count, Latin letters and digits among them, and white space does not.
    images = [image("['欢乐时光', '5-7 PM']", "欢 乐 时光 57 M")]
    assert compare(**images[0]) == Reading(edit_distance=1, matched=7, words=8)
    assert text(images, "zh") == {"ED": 1, "CR": 0, "WAC": 0.875, "score": 1 - 1 * 1 * (1 - 0.875) / 50}


def test_text_without_chinese_is_compared_by_words_in_either_language():
    assert compare("ONE WAY", "WAY 单") == Reading(edit_distance=5, matched=0, words=2)
    assert compare("ONE WAY", "WAY ONE") == Reading(edit_distance=6, matched=2, words=2)


def test_a_word_counts_as_often_as_both_sides_have_it():
    assert compare("no no yes", "no yes yes").matched == 2
    assert compare("no", "no no").matched == 1


@pytest.mark.parametrize(
    "read", ["No text recognized.", "addCriterion\nNo text recognized.\naddCriterion", ""]
)
def test_what_the_reader_makes_up_is_removed(read):
    assert compare("['Café']", read) == Reading(edit_distance=4, matched=0, words=1)


def test_far_readings_count_as_the_largest_distance():
    far = [image("word " * 40, "")]
    assert text(far, "en") == {"ED": 199, "CR": 0, "WAC": 0, "score": 0}
    assert text([image("字" * 60, "")], "zh")["score"] == 0


@settings(deadline=None)
@given(st.text("abc 字", max_size=12), st.text("abc 字", max_size=12), st.text("abc 字", max_size=12))
def test_edit_distance_is_a_metric(first, second, third):
    distance = edit_distance(first, second)
    assert (distance == 0) == (first == second)
    assert distance == edit_distance(second, first)
    assert abs(len(first) - len(second)) <= distance <= max(len(first), len(second))
    assert edit_distance(first, third) <= distance + edit_distance(second, third)


@pytest.mark.parametrize(
    ("first", "second", "distance"), [("kitten", "sitting", 3), ("", "abc", 3), ("ab", "ba", 2)]
)
def test_known_edit_distances(first, second, distance):
    assert edit_distance(first, second) == distance


IMAGES = st.lists(
    st.builds(image, st.text("ab c字.é", min_size=1).map(lambda part: f"{part}a"), st.text("ab c字.é")),
    min_size=1,
)


@settings(deadline=None)
@given(IMAGES, st.sampled_from(["en", "zh"]), st.randoms(use_true_random=False))
def test_text_keeps_its_laws(images, language, random):
    scores = text(images, language)
    assert 0 <= scores["score"] <= 1
    assert 0 <= scores["CR"] <= 1
    assert 0 <= scores["WAC"] <= 1
    assert text(random.sample(images, len(images)), language) == scores
    perfect = text([image(one["text"], one["text"]) for one in images], language)
    assert perfect == {"ED": 0, "CR": 1, "WAC": 1, "score": 1}


GOOD = image("word", "word")


@pytest.mark.parametrize(
    ("images", "language", "message"),
    [
        ([], "en", "images: the list is empty"),
        ([GOOD], "EN", "language: 'EN', expected 'en' or 'zh'"),
        ([GOOD, {"text": "word"}], "en", "images[1]: the field 'read' is missing"),
        ([{"read": "word"}], "en", "images[0]: the field 'text' is missing"),
        (["word"], "en", "images[0]: 'word' is not a record with the field 'text'"),
        ([GOOD | {"read": None}], "en", "images[0].read: None is not a text"),
        ([GOOD | {"text": ["word"]}], "en", "images[0].text: ['word'] is not a text"),
        ([image("['!', '?']", "word")], "en", "images: no text has a word in it"),
    ],
)
def test_bad_images_are_named(images, language, message):
    with pytest.raises(UsageError) as caught:
        text(images, language)
    assert str(caught.value) == message
