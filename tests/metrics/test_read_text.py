"""Which characters of a reading count, and how made-up phrases leave it."""

import pytest

from sana_bench.metrics.read_text import kept, n_matched, without

ACCENTS = "àâäéèêëîïôöùûüçÀÂÄÉÈÊËÎÏÔÖÙÛÜÇ"


def test_characters_that_count():
    everything = f"azAZ09{ACCENTS}\u4e00\u9fa5"
    assert kept(everything, blanks=True) == kept(everything, blanks=False) == everything


@pytest.mark.parametrize("character", [*"ñßæ_-\u2013—'\u2019&%.\uff0c。「·\uff5eΩя", "\u3400", "\u9fa6"])
def test_characters_that_do_not(character):
    assert kept(f"a{character}b", blanks=True) == "ab"


def test_white_space_is_one_blank_or_none():
    assert kept(" a\t\nb\u3000c ", blanks=True) == "a b c"
    assert kept(" a\t\nb\u3000c ", blanks=False) == "abc"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("one phrase two phrase", "one  two "),
        # What removing it once makes of the text goes only beside a line's end, as in the published scripts.
        ("one phrphrasease two", "one phrase two"),
        ("one\nphrphrasease two", "one two"),
        ("one phrphrasease\ntwo", "one two"),
    ],
)
def test_phrases_leave_as_in_the_published_scripts(text, left):
    assert without(text, "phrase") == left


def test_repeated_words_match_as_often_as_both_sides_have_them():
    assert n_matched("aab", "abbc") == 2
