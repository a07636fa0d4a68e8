"""Training pictures with questions and answers: the endless, seeded stream of the micro world's VQA judge."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sana_bench.micro.captions import scene_for
from sana_bench.micro.claims import COUNT_WORDS, related_pairs, sample_claim
from sana_bench.micro.dense_prompts import (
    FORMS,
    NoSceneError,
    dense_scene,
    one_mistake,
    sample_dense_prompt,
    stored_dense_prompts,
)
from sana_bench.micro.renderer import render
from sana_bench.micro.templates import plural
from sana_bench.micro.truth import patch_labels
from sana_bench.micro.world import COLORS, IMAGE_SIZE, SHAPES, Scene

__all__ = ["VOCABULARY", "VQABatch", "claim_pair", "open_pair", "sample_scene", "sample_vqa_batch"]

_WORDS = (
    "? is are there a an exactly the what color how many where which shape describe left right above below of"
)
#: BERT's layout, ids 0 and 100 to 103 being its special tokens, so that published code reads it too.
VOCABULARY = (
    "[PAD]",
    *(f"[unused{i}]" for i in range(99)),
    *("[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *dict.fromkeys(
        (
            *("yes", "no"),
            *_WORDS.split(),
            *COUNT_WORDS,
            *COLORS,
            *SHAPES,
            *(plural(shape) for shape in SHAPES),
        )
    ),
)

_MAX_OBJECTS = 5
_DENSE_SHARE = 0.5
_OFF_THE_MIDDLE = 5
_OPEN_SHARE = 0.5
#: Of questions for a colour, a number, a place, a place beside another shape, and everything. Places are the hardest to learn,
#: and those of a single shape are the first half of it.
_OPEN_KIND_SHARES = (0.1, 0.1, 0.35, 0.35, 0.1)


@dataclass(frozen=True, eq=False)
class VQABatch:
    """Pictures uint8 (B, 64, 64, 3), and for each the same number of questions with answers, one after the other.

    An answer is words of the vocabulary with blanks between them. shapes, colors (B, patches): what each patch shows, 0 for
    background; `more` holds further labels of patches by name. glimpses (questions, tokens): the patch that has what each token
    of an answer is read from, -1 where there is none; None for answers that are not read.
    """

    images: NDArray[np.uint8]
    shapes: NDArray[np.int64]
    colors: NDArray[np.int64]
    questions: list[str]
    answers: list[str]
    more: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    glimpses: NDArray[np.int64] | None = None


def sample_vqa_batch(seed: int, step: int, n_images: int, questions_per_image: int, patch: int) -> VQABatch:
    """Return the batch of one step; a pure function of its arguments.

    Two thirds are yes-or-no questions, as many yes as no; the others are answered in words, which teaches the
    network to see faster than single bits do. No scene is drawn for a prompt of the stored evaluation set.
    """
    rng = np.random.default_rng([seed, step])
    scenes = [sample_scene(rng) for _ in range(n_images)]
    pairs = [_pair(scene, rng) for scene in scenes for _ in range(questions_per_image)]
    images = np.stack([render(scene) for scene in scenes])
    shapes, colors = (
        np.stack(labels) for labels in zip(*(patch_labels(scene, patch) for scene in scenes), strict=True)
    )
    return VQABatch(
        images, shapes, colors, [question for question, _ in pairs], [answer for _, answer in pairs]
    )


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene: half of them of a dense prompt, right or with one mistake, half of any one to five objects."""
    if rng.random() >= _DENSE_SHARE:
        return _any_scene(rng)
    while True:
        prompt = sample_dense_prompt(FORMS[int(rng.integers(len(FORMS)))], rng)
        if prompt.text not in stored_dense_prompts():
            with suppress(NoSceneError):
                return dense_scene(one_mistake(prompt, rng) if rng.random() < 0.4 else prompt, rng)


def _any_scene(rng: np.random.Generator) -> Scene:
    """Shapes repeat often, in one colour or in several, as generated images have them; in a third of the scenes none does."""
    n = int(rng.integers(1, _MAX_OBJECTS + 1))
    unlike = rng.random() < 1 / 3
    shapes = rng.choice(len(SHAPES), size=n if unlike else int(rng.integers(1, n + 1)), replace=False)
    colors = rng.choice(len(COLORS), size=int(rng.integers(1, n + 1)), replace=False)
    drawn = shapes if unlike else rng.choice(shapes, size=n)
    include = [
        {"class": SHAPES[shape], "count": 1, "color": tuple(COLORS)[rng.choice(colors)]} for shape in drawn
    ]
    return scene_for({"include": include}, rng)


def _pair(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    return open_pair(scene, rng) if rng.random() < _OPEN_SHARE else claim_pair(scene, rng)


def claim_pair(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Draw a yes-or-no question about a scene, with its answer."""
    claim = sample_claim(scene, rng, truth=bool(rng.random() < 0.5))
    return claim.question, "yes" if claim.holds(scene) else "no"


def open_pair(
    scene: Scene, rng: np.random.Generator, shares: Sequence[float] = _OPEN_KIND_SHARES
) -> tuple[str, str]:
    """Draw a question that is answered in words, with its answer; `shares` of colour, number, place, relation, everything."""
    counts = Counter(item.shape for item in scene.objects)
    shape = scene.objects[int(rng.integers(len(scene.objects)))].shape
    match str(rng.choice(("color", "count", "place", "relation", "describe"), p=shares)):
        case "color":
            colors = {item.color for item in scene.objects if item.shape == shape}
            if len(colors) == 1:
                return f"What color is the {shape}?", colors.pop()
        case "count":
            asked = shape if rng.random() < 0.8 else SHAPES[int(rng.integers(len(SHAPES)))]
            return f"How many {plural(asked)} are there?", COUNT_WORDS[counts[asked]]
        case "place":
            place = _quarter(scene, shape)
            if place:
                return f"Where is the {shape}?", place
        case "relation":
            pairs = related_pairs(scene)
            if pairs:
                one, relation, other = pairs[int(rng.integers(len(pairs)))]
                return f"Where is the {one} of the {other}?", relation.removesuffix(" of")
    ordered = sorted(scene.objects, key=lambda item: (item.cx, item.cy))
    return "Describe", " ".join(f"{item.color} {item.shape}" for item in ordered)


def _quarter(scene: Scene, shape: str) -> str:
    """Where the one object of a shape lies from the middle of the picture, as far as it is clearly off it."""
    found = [item for item in scene.objects if item.shape == shape]
    if len(found) != 1:
        return ""
    middle = IMAGE_SIZE / 2
    across, down = found[0].cx - middle, found[0].cy - middle
    words = [
        words[int(offset > 0)]
        for offset, words in ((across, ("left", "right")), (down, ("above", "below")))
        if abs(offset) > _OFF_THE_MIDDLE
    ]
    return " ".join(words)
