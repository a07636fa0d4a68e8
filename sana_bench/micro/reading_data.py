"""Training pictures with questions and answers: the endless, seeded stream of the micro world's reading judge.

Beside what `vqa_data` asks, numbers are asked for in words, of one colour too, and text is read letter by letter.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sana_bench.micro import vqa_data
from sana_bench.micro.captions import scene_for
from sana_bench.micro.claims import COUNT_WORDS, Claim
from sana_bench.micro.renderer import render
from sana_bench.micro.templates import RELATIONS, article, plural
from sana_bench.micro.text_world import (
    LABELS,
    LETTERS,
    MAX_LETTERS,
    MAX_WORDS,
    TextScene,
    glimpses,
    letter_labels,
    random_word,
    render_text,
    text_scene_for,
)
from sana_bench.micro.truth import patch_labels
from sana_bench.micro.vqa_data import VQABatch, claim_pair, open_pair, sample_scene
from sana_bench.micro.world import COLORS, IMAGE_SIZE, SHAPES, Scene

__all__ = [
    "EXTRA_LABELS",
    "READ",
    "TEXT_WORDS",
    "VOCABULARY",
    "counted_question",
    "sample_reading_batch",
    "sample_shape_scene",
    "sample_text_scene",
    "spelled",
]

#: The question whose answer is the text in the picture.
READ = "Read the text."
#: Words of the text prompts, which training never shows.
TEXT_WORDS = (
    *("BAKE", "BEACH", "BIRD", "BOOK", "BREAD", "CAFE", "CAMP", "CLOUD", "DANCE", "DREAM", "DUSK", "EARTH"),
    *("FISH", "FLAG", "FROST", "GATE", "GLOW", "HAPPY", "HOTEL", "HOUSE", "JAZZ", "JUMP", "KITE", "LAKE"),
    *("LIGHT", "LUNCH", "MAGIC", "MAP", "MILK", "MOON", "MUSIC", "NIGHT", "OPEN", "PARK", "PEACE", "QUIZ"),
    *("RAIN", "RIVER", "SALE", "SHOP", "SKY", "SNOW", "STOP", "SUN", "TAXI", "TEA", "TRAIN", "UP"),
    *("VIEW", "WAVE", "WIND", "WORLD", "YES", "ZOO"),
)

_Item = TypeVar("_Item")

_WORDS = "read the text word words many . answer in with or only please"
_LETTER_TOKENS = [letter.lower() for letter in LETTERS]
#: The vocabulary of the VQA judge, whose tokens keep their numbers, then that of reading.
VOCABULARY = tuple(
    dict.fromkeys(
        (
            *vqa_data.VOCABULARY,
            *_WORDS.split(),
            *_LETTER_TOKENS,
            *(f"##{letter}" for letter in _LETTER_TOKENS),
        )
    )
)
#: Labels of patches beside shape and colour, with the number of their values.
EXTRA_LABELS = {
    "letters": len(LETTERS) + 1,
    **LABELS,
    "objects": len(SHAPES) + 1,
    "nth_of_shape": len(COUNT_WORDS),
    "nth_of_color": len(COUNT_WORDS),
}

_TEXT_SHARE = 0.4
_ONE_COLOR_SHARE = 0.7
# Of the whole text, one word, a colour, a number, and yes or no.
_TEXT_KIND_SHARES = (0.3, 0.35, 0.1, 0.1, 0.15)
_LONGEST = MAX_WORDS * MAX_LETTERS
# Of a colour, a number, a place, a place beside another shape, and everything: numbers need the most practice.
_OPEN_KIND_SHARES = (0.15, 0.5, 0.1, 0.2, 0.05)
_OPEN_SHARE = 0.5
# Questions of pictures of shapes that the VQA judge is not asked: for text, for the number of one colour, and for the place of
# or beside a shape that is not there, whatever else is.
_READ_SHARE, _COLOR_COUNT_SHARE, _ABSENT_SHARE = 0.04, 0.15, 0.03
# Scenes that repeat one shape: in those of `sample_scene` four or five of a kind are rare.
_GROUP_SHARE = 0.3
_INSTRUCTIONS = (
    *(
        "Answer in one word.",
        "Answer with yes or no.",
        "Only answer yes or no.",
        "Please answer yes or no only.",
    ),
)
# What may follow a question is drawn from these too, so that no wording matters.
_AFTER = (*["answer", "in", "one", "word", ".", "with", "yes", "or", "no", "only", "please"], "[UNK]")
_PLAIN_SHARE, _INSTRUCTED_SHARE = 0.5, 0.25


def sample_reading_batch(
    seed: int, step: int, n_images: int, questions_per_image: int, patch: int
) -> VQABatch:
    """Return the batch of one step; a pure function of its arguments. Four of ten scenes show text, the others shapes."""
    rng = np.random.default_rng([seed, step])
    images, labels = [], []
    pairs: list[tuple[str, str]] = []
    read: list[list[int]] = []
    nothing = dict.fromkeys(("shapes", *EXTRA_LABELS), np.zeros((IMAGE_SIZE // patch) ** 2, np.int64))
    for _ in range(n_images):
        if rng.random() < _TEXT_SHARE:
            text = sample_text_scene(rng)
            images.append(render_text(text))
            labels.append({**nothing, **letter_labels(text, patch)})
            places = glimpses(text, patch)
            for _ in range(questions_per_image):
                question, answer, words = _text_pair(text, rng)
                pairs.append((question, answer))
                read.append([where for word in words for where in places[word]])
        else:
            scene = sample_shape_scene(rng)
            images.append(render(scene))
            shapes, colors = patch_labels(scene, patch)
            labels.append({**nothing, **_object_labels(scene, patch), "shapes": shapes, "colors": colors})
            pairs += [_shape_pair(scene, rng) for _ in range(questions_per_image)]
            read += [[] for _ in range(questions_per_image)]
    stacked = {name: np.stack([of_image[name] for of_image in labels]) for name in labels[0]}
    return VQABatch(
        np.stack(images),
        stacked.pop("shapes"),
        stacked.pop("colors"),
        [question + _after(rng) for question, _ in pairs],
        [answer for _, answer in pairs],
        stacked,
        np.array([of_answer + [-1] * (_LONGEST - len(of_answer)) for of_answer in read]),
    )


def sample_text_scene(rng: np.random.Generator) -> TextScene:
    """Draw a scene of one to three words of random letters, none of them a word of the prompts."""
    colors = tuple(COLORS)
    one = _pick(rng, colors) if rng.random() < _ONE_COLOR_SHARE else ""
    n_words = int(rng.integers(1, MAX_WORDS + 1))
    words: list[tuple[str, str]] = []
    while len(words) < n_words:
        word = random_word(rng)
        if word not in TEXT_WORDS:
            words.append((word, one or _pick(rng, colors)))
    return text_scene_for(words, rng)


def spelled(word: str) -> str:
    """A word as the vocabulary writes what it has no word for: its letters, all but the first marked as going on."""
    return " ".join([word[0].lower(), *(f"##{letter}" for letter in word[1:].lower())])


def counted_question(shape: str, color: str = "") -> str:
    """The question for the number of a shape, of one colour if given."""
    return f"How many {color} {plural(shape)} are there?".replace("  ", " ")


def sample_shape_scene(rng: np.random.Generator) -> Scene:
    """Draw any scene of the VQA judge's, or one to five of one shape with up to two other shapes, in up to three colours."""
    if rng.random() >= _GROUP_SHARE:
        return sample_scene(rng)
    n = int(rng.integers(1, len(COUNT_WORDS)))
    shape, *others = (SHAPES[index] for index in rng.choice(len(SHAPES), size=3, replace=False))
    colors = [tuple(COLORS)[index] for index in rng.choice(len(COLORS), size=int(rng.integers(1, 4)))]
    drawn = [shape] * n + others[: int(rng.integers(0, min(3, len(COUNT_WORDS) - n)))]
    include = [{"class": name, "count": 1, "color": _pick(rng, tuple(colors))} for name in drawn]
    return scene_for({"include": include}, rng)


def _shape_pair(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    chance = rng.random()
    if chance < _READ_SHARE:
        return _pick(rng, ((READ, ""), ("Is there text?", "no"), ("How many words are there?", "zero")))
    chance -= _READ_SHARE
    if chance < _COLOR_COUNT_SHARE:
        item = scene.objects[int(rng.integers(len(scene.objects)))]
        color = item.color if rng.random() < 0.5 else _pick(rng, tuple(COLORS))
        counts = Counter((one.shape, one.color) for one in scene.objects)
        return counted_question(item.shape, color), COUNT_WORDS[counts[item.shape, color]]
    chance -= _COLOR_COUNT_SHARE
    if chance < _ABSENT_SHARE:
        shown = tuple({item.shape: None for item in scene.objects})
        pair = [_pick(rng, shown), _pick(rng, tuple(name for name in SHAPES if name not in shown))]
        one, other = pair if rng.random() < 0.5 else pair[::-1]
        return Claim("relation", one, relation=_pick(rng, RELATIONS), other=other).question, "no"
    return open_pair(scene, rng, _OPEN_KIND_SHARES) if rng.random() < _OPEN_SHARE else claim_pair(scene, rng)


def _text_pair(scene: TextScene, rng: np.random.Generator) -> tuple[str, str, Sequence[int]]:
    """A question about text, its answer, and the words that the answer is read from."""
    words = scene.words
    which = int(rng.integers(len(words)))
    colors = {word.color for word in words}
    match str(rng.choice(("read", "word", "color", "count", "claim"), p=_TEXT_KIND_SHARES)):
        case "read":
            return READ, " ".join(spelled(word.text) for word in words), range(len(words))
        case "word":
            return f"Read word {COUNT_WORDS[which + 1]}.", spelled(words[which].text), (which,)
        case "color" if len(colors) == 1:
            return "What color is the text?", words[0].color, ()
        case "color":
            return f"What color is word {COUNT_WORDS[which + 1]}?", words[which].color, ()
        case "count":
            return "How many words are there?", COUNT_WORDS[len(words)], ()
    return (*_text_claim(words[which].color if len(colors) == 1 else "", rng), ())


def _text_claim(color: str, rng: np.random.Generator) -> tuple[str, str]:
    """Yes or no about text: that it is there, its one colour, or a shape that is not there."""
    kind = int(rng.integers(3))
    if kind == 0:
        return "Is there text?", "yes"
    if kind == 1 and color:
        asked = color if rng.random() < 0.5 else _pick(rng, tuple(COLORS))
        return f"Is the text {asked}?", "yes" if asked == color else "no"
    shape = _pick(rng, SHAPES)
    if rng.random() < 0.5:
        return counted_question(shape), COUNT_WORDS[0]
    return f"Is there {article(shape)}?", "no"


def _after(rng: np.random.Generator) -> str:
    """What follows a question: nothing, an instruction, or any few words."""
    chance = rng.random()
    if chance < _PLAIN_SHARE:
        return ""
    if chance < _PLAIN_SHARE + _INSTRUCTED_SHARE:
        return " " + _pick(rng, _INSTRUCTIONS)
    return " " + " ".join(_pick(rng, _AFTER) for _ in range(int(rng.integers(1, 8))))


def _object_labels(scene: Scene, patch: int) -> dict[str, NDArray[np.int64]]:
    """What each patch has the middle of, row by row: which shape, and which of its shape, and of its shape and colour, it is."""
    side = IMAGE_SIZE // patch
    found = {name: np.zeros(side * side, np.int64) for name in ("objects", "nth_of_shape", "nth_of_color")}
    seen: Counter[tuple[str, ...]] = Counter()
    middles = {int(item.cy // patch) * side + int(item.cx // patch): item for item in scene.objects}
    for where, item in sorted(middles.items()):
        seen.update([(item.shape,), (item.shape, item.color)])
        found["objects"][where] = SHAPES.index(item.shape) + 1
        found["nth_of_shape"][where] = seen[item.shape,]
        found["nth_of_color"][where] = seen[item.shape, item.color]
    return found


def _pick(rng: np.random.Generator, items: tuple[_Item, ...]) -> _Item:
    return items[int(rng.integers(len(items)))]
