"""Captions that are almost true of a scene: one colour, number, shape or relation is wrong."""

from collections.abc import Callable

import numpy as np

from sana_bench.micro.captions import is_held_out
from sana_bench.micro.templates import NUMBER_WORDS, article, plural
from sana_bench.micro.world import COLORS, SHAPES

__all__ = ["hard_negative", "wrong_captions"]

_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_PLURALS = {plural(shape): shape for shape in SHAPES}
_ATTEMPTS = 8


def hard_negative(caption: str, rng: np.random.Generator) -> str | None:
    """Draw a caption that is false of every scene `caption` describes and is not held out from training.

    None when eight draws gave only held-out captions.
    """
    choices = wrong_captions(caption)
    for _ in range(_ATTEMPTS):
        candidates = choices[int(rng.integers(len(choices)))]
        wrong = candidates[int(rng.integers(len(candidates)))]
        if not is_held_out(wrong):
            return wrong
    return None


def wrong_captions(caption: str) -> list[list[str]]:
    """All one-step falsifications of `caption`, one list per kind of error.

    Kinds: colours exchanged, relation reversed, another number, another colour, another shape. Exchanging
    the two shapes of a conjunction is none: the sentence stays true.
    """
    words = caption.split()
    kinds = [
        _exchanged_colors(words),
        _replaced(words, lambda word: [_OPPOSITE[word]] if word in _OPPOSITE else []),
        _replaced(words, _others_of(tuple(NUMBER_WORDS.values()))),
        _replaced(words, _others_of(tuple(COLORS))),
        _replaced(words, _other_shapes(words)),
    ]
    return [[_with_articles(option) for option in kind] for kind in kinds if kind]


def _exchanged_colors(words: list[str]) -> list[list[str]]:
    places = [index for index, word in enumerate(words) if word in COLORS]
    if len(places) != 2:
        return []
    first, second = places
    swapped = list(words)
    swapped[first], swapped[second] = words[second], words[first]
    return [swapped]


def _replaced(words: list[str], alternatives: Callable[[str], list[str]]) -> list[list[str]]:
    return [
        [*words[:index], other, *words[index + 1 :]]
        for index, word in enumerate(words)
        for other in alternatives(word)
    ]


def _others_of(group: tuple[str, ...]) -> Callable[[str], list[str]]:
    return lambda word: [other for other in group if other != word] if word in group else []


def _other_shapes(words: list[str]) -> Callable[[str], list[str]]:
    named = {_PLURALS.get(word, word) for word in words}

    def alternatives(word: str) -> list[str]:
        if word in SHAPES:
            return [shape for shape in SHAPES if shape not in named]
        if word in _PLURALS:
            return [plural(shape) for shape in SHAPES if shape not in named]
        return []

    return alternatives


def _with_articles(words: list[str]) -> str:
    fixed = list(words)
    for index, word in enumerate(words[:-1]):
        if word in ("a", "an"):
            fixed[index] = article(words[index + 1]).split()[0]
    return " ".join(fixed)
