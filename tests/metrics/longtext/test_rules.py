"""LongText-Bench's rule against stored outcomes of the official code, by hand, and by its laws."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sana_bench.core.errors import UsageError
from sana_bench.metrics.longtext.rules import Match, compare, score
from tests.metrics.published_cases import published_cases


def test_every_stored_score_is_met_exactly():
    cases = published_cases("longtext/text_cases.jsonl.gz")
    assert len(cases) == 40
    for case in cases:
        for one in case["images"]:
            assert compare(one["text"], one["read"], case["language"]) == Match(one["matched"], one["words"])
        assert score(case["images"], case["language"]) == case["score"]


def image(wanted, read):
    return {"text": wanted, "read": read}


def test_english_words_by_hand():
    # Case and punctuation do not matter, order neither; '5-7' becomes '57'.
    assert compare(["FRESH Brews,", "daily: 5-7 fresh"], "5-7! Fresh brews", "en") == Match(3, 5)
    assert score([image(["one two"], "two"), image(["a b c"], "a b c")], "en") == 4 / 5


def test_chinese_characters_by_hand():
    # Latin letters and digits are characters too, their case kept; white space is none.
    assert compare(["每日 Bakery", "5月"], "日每b 5", "zh") == Match(3, 10)


def test_language_decides_and_not_the_text():
    assert compare(["ab cd"], "cd ab", "zh") == Match(4, 4)
    assert compare(["每日", "五月"], "每日五月", "en") == Match(0, 2)


def test_the_published_cleaner_removes_only_its_last_phrase():
    assert compare(["text here"], "No text recognized.", "en") == Match(0, 2)
    assert compare(["addCriterion here"], "addCriterion", "en") == Match(1, 2)
    assert compare(["日ad"], "日\naddCriterion", "zh") == Match(3, 3)
    # Joined to a word it costs that word.
    assert compare(["one two"], "one twoaddCriterion", "en") == Match(1, 2)


def test_a_reader_that_leaves_out_the_full_stop_is_not_cleaned():
    assert compare(["No text here"], "No text recognized", "en") == Match(2, 3)


IMAGES = st.lists(
    st.builds(
        image,
        st.lists(st.text("aB c字.é"), max_size=3).map(lambda parts: [*parts, "a"]),
        st.text("aB c字.é"),
    ),
    min_size=1,
)


@settings(deadline=None)
@given(IMAGES, st.sampled_from(["en", "zh"]), st.randoms(use_true_random=False))
def test_the_score_keeps_its_laws(images, language, random):
    found = score(images, language)
    assert 0 <= found <= 1
    assert score(random.sample(images, len(images)), language) == found
    assert score([image(one["text"], " ".join(one["text"])) for one in images], language) == 1
    assert score([image(one["text"], "") for one in images], language) == 0
    # More read never costs a word.
    assert score([one | {"read": f"{one['read']} a"} for one in images], language) >= found


GOOD = image(["word"], "word")


@pytest.mark.parametrize(
    ("images", "language", "message"),
    [
        ([], "en", "images: the list is empty"),
        (None, "en", "images: None is not a list"),
        ([GOOD], "fr", "language: 'fr', expected 'en' or 'zh'"),
        ([GOOD, {"text": ["word"]}], "en", "images[1]: the field 'read' is missing"),
        ([{"read": "word"}], "en", "images[0]: the field 'text' is missing"),
        ([GOOD | {"text": "word"}], "en", "images[0].text: 'word' is not a list"),
        ([GOOD | {"text": []}], "en", "images[0].text: the list is empty"),
        ([GOOD | {"text": ["word", 3]}], "en", "images[0].text[1]: 3 is not a text"),
        ([GOOD | {"read": b"word"}], "en", "images[0].read: b'word' is not a text"),
        ([image(["!"], "word")], "zh", "images: no text has a word in it"),
    ],
)
def test_bad_images_are_named(images, language, message):
    with pytest.raises(UsageError) as caught:
        score(images, language)
    assert str(caught.value) == message
