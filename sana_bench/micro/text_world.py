"""Text in the micro world: one to three words of capital letters, one below the other, in the palette's colours.

A kind of scene of its own. The scenes of shapes, their captions and what was trained on them know nothing of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sana_bench.micro.captions import background_color, jittered
from sana_bench.micro.world import COLORS, IMAGE_SIZE

__all__ = [
    "LABELS",
    "LETTERS",
    "MAX_LETTERS",
    "MAX_WORDS",
    "TextScene",
    "Word",
    "glimpses",
    "letter_labels",
    "random_word",
    "render_text",
    "text_scene_for",
]

MAX_WORDS = 3
MAX_LETTERS = 5

#: Rows from top to bottom of each letter, five columns by seven rows.
_GLYPHS = {
    "A": ".###. #...# #...# ##### #...# #...# #...#",
    "B": "####. #...# #...# ####. #...# #...# ####.",
    "C": ".#### #.... #.... #.... #.... #.... .####",
    "D": "####. #...# #...# #...# #...# #...# ####.",
    "E": "##### #.... #.... ###.. #.... #.... #####",
    "F": "##### #.... #.... ###.. #.... #.... #....",
    "G": ".#### #.... #.... #.### #...# #...# .####",
    "H": "#...# #...# #...# ##### #...# #...# #...#",
    "I": "##### ..#.. ..#.. ..#.. ..#.. ..#.. #####",
    "J": "..### ...#. ...#. ...#. ...#. #..#. .##..",
    "K": "#...# #..#. #.#.. ##... #.#.. #..#. #...#",
    "L": "#.... #.... #.... #.... #.... #.... #####",
    "M": "#...# ##.## #.#.# #.#.# #...# #...# #...#",
    "N": "#...# ##..# ##..# #.#.# #..## #..## #...#",
    "O": ".###. #...# #...# #...# #...# #...# .###.",
    "P": "####. #...# #...# ####. #.... #.... #....",
    "Q": ".###. #...# #...# #...# #.#.# #..#. .##.#",
    "R": "####. #...# #...# ####. #.#.. #..#. #...#",
    "S": ".#### #.... #.... .###. ....# ....# ####.",
    "T": "##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..",
    "U": "#...# #...# #...# #...# #...# #...# .###.",
    "V": "#...# #...# #...# #...# .#.#. .#.#. ..#..",
    "W": "#...# #...# #...# #.#.# #.#.# ##.## #...#",
    "X": "#...# #...# .#.#. ..#.. .#.#. #...# #...#",
    "Y": "#...# #...# .#.#. ..#.. ..#.. ..#.. ..#..",
    "Z": "##### ....# ...#. ..#.. .#... #.... #####",
}
LETTERS = tuple(_GLYPHS)
#: What `letter_labels` says of a place in the text, with the number of values, 0 included.
LABELS = {"places": MAX_WORDS * MAX_LETTERS + 1, "lines": MAX_WORDS + 1, "spots": MAX_LETTERS + 1}

# In pixels: a dot of a glyph, a glyph, from one letter to the next, and from one word to the next at least.
_DOT = 2
_WIDTH, _HEIGHT = 5 * _DOT, 7 * _DOT
_PITCH, _LINE = 12, 16
# Letters stand on a grid, so that a small network learns them soon; no two have their middle in one patch of 8 x 8.
_GRID = 4


@dataclass(frozen=True, slots=True)
class Word:
    """Capital letters side by side; (x, y) is the upper left corner in pixels."""

    text: str
    color: str
    x: int
    y: int
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class TextScene:
    """Words from top to bottom on a flat background."""

    words: tuple[Word, ...]
    background: tuple[int, int, int]

    @property
    def text(self) -> str:
        """What stands there, from top to bottom."""
        return " ".join(word.text for word in self.words)


def render_text(scene: TextScene) -> NDArray[np.uint8]:
    """Return the scene as uint8 (64, 64, 3): every pixel is ink or background."""
    canvas = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    canvas[:] = scene.background
    for word in scene.words:
        for spot, letter in enumerate(word.text):
            x = word.x + spot * _PITCH
            canvas[word.y : word.y + _HEIGHT, x : x + _WIDTH][_ink(letter)] = word.rgb
    return canvas


def letter_labels(scene: TextScene, patch: int) -> dict[str, NDArray[np.int64]]:
    """What each patch of `patch` x `patch` pixels has the middle of, row by row; 0 where it has none.

    `letters` and `colors` count from 1 in the order of `LETTERS` and `COLORS`, `places` from 1 in the order of reading, `lines`
    the words, and `spots` the letters of a word.
    """
    side = IMAGE_SIZE // patch
    found = {name: np.zeros(side * side, np.int64) for name in ("letters", "colors", *LABELS)}
    for place, (line, spot, where) in enumerate(_middles(scene, patch), start=1):
        word = scene.words[line]
        found["letters"][where] = LETTERS.index(word.text[spot]) + 1
        found["colors"][where] = tuple(COLORS).index(word.color) + 1
        found["places"][where], found["lines"][where], found["spots"][where] = place, line + 1, spot + 1
    return found


def glimpses(scene: TextScene, patch: int) -> list[list[int]]:
    """For each word, the patches that have the middles of its letters."""
    found: list[list[int]] = [[] for _ in scene.words]
    for line, _, where in _middles(scene, patch):
        found[line].append(where)
    return found


def text_scene_for(words: list[tuple[str, str]], rng: np.random.Generator) -> TextScene:
    """Draw a scene of one to three (word, colour), each of one to five capital letters, at random places.

    Raises ValueError for what has no room or is no such word.
    """
    if not 1 <= len(words) <= MAX_WORDS:
        raise ValueError(f"{len(words)} words; one to {MAX_WORDS} have room")
    for text, _ in words:
        if not 1 <= len(text) <= MAX_LETTERS or not set(text) <= set(LETTERS):
            raise ValueError(f"{text!r} is not one to {MAX_LETTERS} capital letters")
    tallest = (len(words) - 1) * _LINE + _HEIGHT
    # The free height falls anywhere above, between and below the lines.
    gaps = np.sort(rng.integers((IMAGE_SIZE - tallest) // _GRID + 1, size=len(words)))
    drawn = []
    for line, ((text, color), gap) in enumerate(zip(words, gaps, strict=True)):
        width = (len(text) - 1) * _PITCH + _WIDTH
        x = _GRID * int(rng.integers((IMAGE_SIZE - width) // _GRID + 1))
        drawn.append(Word(text, color, x, _GRID * int(gap) + line * _LINE, jittered(rng, COLORS[color])))
    return TextScene(tuple(drawn), background_color(rng))


def random_word(rng: np.random.Generator) -> str:
    """Draw two to five letters, all alike."""
    length = int(rng.integers(2, MAX_LETTERS + 1))
    return "".join(LETTERS[index] for index in rng.integers(len(LETTERS), size=length))


def _middles(scene: TextScene, patch: int) -> Iterator[tuple[int, int, int]]:
    """Word, letter and patch of each letter's middle, in the order of reading."""
    for line, word in enumerate(scene.words):
        row = (word.y + _HEIGHT // 2) // patch
        for spot in range(len(word.text)):
            column = (word.x + spot * _PITCH + _WIDTH // 2) // patch
            yield line, spot, row * (IMAGE_SIZE // patch) + column


@cache
def _ink(letter: str) -> NDArray[np.bool_]:
    """Which pixels of a letter are ink, (14, 10)."""
    dots = np.array([[dot == "#" for dot in row] for row in _GLYPHS[letter].split()])
    return dots.repeat(_DOT, axis=0).repeat(_DOT, axis=1)
