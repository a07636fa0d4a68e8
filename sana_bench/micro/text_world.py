"""Text in the micro world: one to three words of capital letters, one below the other, in the palette's colours.

A kind of scene of its own. The scenes of shapes, their captions and what was trained on them know nothing of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sana_bench.micro.captions import background_color, jittered
from sana_bench.micro.world import COLORS, IMAGE_SIZE

__all__ = [
    "LETTERS",
    "MAX_LETTERS",
    "MAX_WORDS",
    "TextScene",
    "Word",
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

_WIDTH, _HEIGHT = 5, 7
# A column between letters; two rows between words.
_PITCH, _LINE = _WIDTH + 1, _HEIGHT + 2
# Side of a glyph's dot in pixels. From 1.4 on no two letters have their middle in one patch of 8 x 8.
_DOT = (1.4, 2.0)
_MARGIN = 1.0


@dataclass(frozen=True, slots=True)
class Word:
    """Capital letters side by side; (x, y) is the upper left corner, `dot` the side of a glyph's dot, in pixels."""

    text: str
    color: str
    x: float
    y: float
    dot: float
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
    """Return the scene as uint8 (64, 64, 3); a pixel's share of ink is exact."""
    canvas = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3))
    canvas[:] = scene.background
    for word in scene.words:
        ink = np.concatenate([_dots(letter) for letter in word.text], axis=1)
        rows = _overlap(word.y, word.dot, ink.shape[0])
        columns = _overlap(word.x, word.dot, ink.shape[1])
        shares = (rows.T @ ink @ columns)[..., None]
        canvas += shares * (np.asarray(word.rgb, dtype=float) - canvas)
    return np.floor(canvas + 0.5).astype(np.uint8)


def letter_labels(scene: TextScene, patch: int) -> dict[str, NDArray[np.int64]]:
    """What each patch of `patch` x `patch` pixels has the middle of, row by row; 0 where it has none.

    `letters` and `colors` count from 1 in the order of `LETTERS` and `COLORS`, `places` from 1 in the order of reading.
    """
    side = IMAGE_SIZE // patch
    found = {name: np.zeros((side, side), np.int64) for name in ("letters", "colors", "places")}
    place = 0
    for word in scene.words:
        row = int((word.y + _HEIGHT * word.dot / 2) // patch)
        for index, letter in enumerate(word.text):
            place += 1
            column = int((word.x + (index * _PITCH + _WIDTH / 2) * word.dot) // patch)
            found["letters"][row, column] = LETTERS.index(letter) + 1
            found["colors"][row, column] = tuple(COLORS).index(word.color) + 1
            found["places"][row, column] = place
    return {name: labels.ravel() for name, labels in found.items()}


def text_scene_for(words: list[tuple[str, str]], rng: np.random.Generator) -> TextScene:
    """Draw a scene of one to three (word, colour), each of one to five capital letters; size and places are random.

    Raises ValueError for what has no room or is no such word.
    """
    if not 1 <= len(words) <= MAX_WORDS:
        raise ValueError(f"{len(words)} words; one to {MAX_WORDS} have room")
    for text, _ in words:
        if not 1 <= len(text) <= MAX_LETTERS or not set(text) <= set(LETTERS):
            raise ValueError(f"{text!r} is not one to {MAX_LETTERS} capital letters")
    room = IMAGE_SIZE - 2 * _MARGIN
    widest = max(len(text) for text, _ in words) * _PITCH - 1
    tallest = len(words) * _LINE - (_LINE - _HEIGHT)
    dot = float(rng.uniform(_DOT[0], min(_DOT[1], room / widest, room / tallest)))
    free = room - tallest * dot
    # The free height falls anywhere above, between and below the lines.
    gaps = np.sort(rng.uniform(0, free, size=len(words)))
    drawn = []
    for line, ((text, color), gap) in enumerate(zip(words, gaps, strict=True)):
        width = (len(text) * _PITCH - 1) * dot
        x = _MARGIN + float(rng.uniform(0, room - width))
        y = _MARGIN + float(gap) + line * _LINE * dot
        drawn.append(Word(text, color, x, y, dot, jittered(rng, COLORS[color])))
    return TextScene(tuple(drawn), background_color(rng))


def random_word(rng: np.random.Generator) -> str:
    """Draw two to five letters, all alike."""
    length = int(rng.integers(2, MAX_LETTERS + 1))
    return "".join(LETTERS[index] for index in rng.integers(len(LETTERS), size=length))


def _dots(letter: str) -> NDArray[np.float64]:
    """The letter's dots and the empty column after it, (7, 6)."""
    rows = [[float(dot == "#") for dot in row] + [0.0] for row in _GLYPHS[letter].split()]
    return np.array(rows)


def _overlap(start: float, dot: float, count: int) -> NDArray[np.float64]:
    """Share of each pixel of an axis that each of `count` dots covers along it: (count, pixels)."""
    edges = start + dot * np.arange(count + 1)
    pixels = np.arange(IMAGE_SIZE)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return np.clip(high - low, 0.0, 1.0)
