"""The reading judge's card: who knows everything is always right, and who says one thing is right where that is the answer."""

import numpy as np
import pytest

from sana_bench.judges.base import Answer
from sana_bench.metrics import reading_card
from sana_bench.metrics.reading_card import measure_numbers, measure_places, measure_reading


class Knowing:
    """Is shown scenes, not pictures."""

    def answer(self, scene, questions):
        return [self._count(scene, question) for question in questions]

    def read_text(self, scene, request):
        return scene.text

    def _count(self, scene, question):
        *color, noun = question.removeprefix("How many ").removesuffix(" are there?").split()
        found = [
            item for item in scene.objects if noun.startswith(item.shape) and color in ([], [item.color])
        ]
        return ("Zero", "One", "Two", "Three", "Four", "Five")[len(found)]


class Saying:
    """Says the same to everything."""

    def __init__(self, word):
        self._word = word

    def answers(self, image, questions):
        return [Answer(self._word) for _ in questions]

    def answer(self, image, questions):
        return [self._word.capitalize() for _ in questions]

    def read_text(self, image, request):
        return self._word.upper()


@pytest.fixture
def shown(monkeypatch):
    """Judges are given the scene where they would be given its picture."""
    for name in ("render", "render_text"):
        monkeypatch.setattr(reading_card, name, lambda scene: scene)


def test_numbers_and_text_are_counted_against_the_scene(shown):
    for rates in (measure_numbers(Knowing(), 60, 5), measure_reading(Knowing(), 8, 5)):
        assert all(rate.n_right == rate.n for rate in rates)
    numbers = measure_numbers(Knowing(), 60, 5)
    assert sum(rate.n for rate in numbers) == 4 * 60
    assert {rate.truth for rate in numbers if rate.kind == "how many"} >= {"zero", "one", "two", "three"}
    reading = measure_reading(Knowing(), 8, 5)
    assert [rate.n for rate in reading] == [8, 8, 8, 16, 8, 24] * 2


def test_one_word_for_everything_is_right_only_where_it_is_the_answer(shown):
    for rate in measure_numbers(Saying("two"), 60, 5):
        assert rate.n_right == (rate.n if rate.truth == "two" else 0)
    assert {rate.n_right for rate in measure_reading(Saying("zzzzz"), 8, 5)} == {0}


@pytest.mark.parametrize("word", ["yes", "no"])
def test_places_are_asked_for_four_times_a_pair(shown, word):
    rates = measure_places(Saying(word), 12, 5)
    assert {(rate.scenes, rate.truth) for rate in rates} == {
        ("as asked", "yes"),
        ("wrong place", "no"),
        ("shape not there", "no"),
        ("third shape not there", "no"),
    }
    assert all((rate.n, rate.n_right) == (12, 12 * (rate.truth == word)) for rate in rates)


def test_the_same_seed_asks_the_same(shown):
    seen = [[], []]
    for found in seen:
        judge = Knowing()
        whole = judge.answer
        judge.answer = lambda scene, questions, whole=whole, found=found: (
            found.append((scene, tuple(questions))) or whole(scene, questions)
        )
        measure_numbers(judge, 5, 6)
    assert seen[0] == seen[1]
    assert np.array_equal(len(seen[0]), 5)
