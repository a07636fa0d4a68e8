"""Prompts with pictures, graded by how much of a prompt each shows: the stream that trains the micro reward model.

Prompts come in families that differ in one thing or two, and every prompt of a family is set against every picture of it: the
picture that is right for one prompt is the near miss of the next.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sana_bench.micro.captions import VOCABULARY as WORDS
from sana_bench.micro.captions import is_held_out
from sana_bench.micro.claims import Claim, direction
from sana_bench.micro.dense_prompts import (
    FORMS,
    DensePrompt,
    Group,
    NoSceneError,
    dense_scene,
    mistakes,
    sample_dense_prompt,
    stored_dense_prompts,
)
from sana_bench.micro.renderer import render
from sana_bench.micro.templates import NUMBER_WORDS, RELATIONS, plural
from sana_bench.micro.truth import patch_labels
from sana_bench.micro.world import COLORS, SHAPES, Scene

__all__ = [
    "FAMILY",
    "VOCABULARY",
    "RewardBatch",
    "grade",
    "near_misses",
    "sample_reward_batch",
    "sample_wish",
    "word_claims",
]

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
#: Prompts, and pictures, of a family.
FAMILY = 4

_LARGEST_GROUP, _MOST_OBJECTS = max(NUMBER_WORDS), 5
_DENSE_SHARE = 0.35
_UNRELATED_SHARE = 0.25
_SINGULAR = {name: shape for shape in SHAPES for name in (shape, plural(shape))}
_PLACES = {relation.split()[0] for relation in RELATIONS}


@dataclass(frozen=True, eq=False)
class RewardBatch:
    """Families of `FAMILY` prompts and pictures.

    images: uint8 (F * FAMILY, 64, 64, 3). prompts: F * FAMILY texts. grades (F, prompt, picture): the share of a prompt's
    facts that a picture shows. words (F, prompt, picture, W): 1 or 0 for a word whose own fact is shown or not, NaN
    for words without one. places (F, prompt, picture, W, 3): row and column, in patches, of the only object that a noun
    can mean, and which of `RELATIONS` holds between the shapes at both sides of a relation; -1 where there is none.
    shapes, colors (F * FAMILY, patches): what each patch shows, 0 for background.
    """

    images: NDArray[np.uint8]
    prompts: list[str]
    grades: NDArray[np.float32]
    words: NDArray[np.float32]
    places: NDArray[np.int64]
    shapes: NDArray[np.int64]
    colors: NDArray[np.int64]


def sample_reward_batch(seed: int, step: int, n_families: int, patch: int) -> RewardBatch:
    """Return the batch of one step; a pure function of its arguments. No evaluation prompt is in it."""
    rng = np.random.default_rng([seed, step])
    families = [_family(rng) for _ in range(n_families)]
    pairs = [_shown(family, rng) for family in families]
    labels = [patch_labels(scene, patch) for _, group in pairs for scene in group]
    longest = max(len(wish.text.split()) for family, _ in pairs for wish in family)
    return RewardBatch(
        images=np.stack([render(scene) for _, group in pairs for scene in group]),
        prompts=[wish.text for family, _ in pairs for wish in family],
        grades=np.array(
            [[[grade(w, s) for s in group] for w in family] for family, group in pairs], np.float32
        ),
        words=np.array(
            [
                [[_word_labels(claims, s, longest) for s in group] for claims in map(word_claims, family)]
                for family, group in pairs
            ],
            np.float32,
        ),
        places=np.array(
            [
                [[_word_places(wish, s, longest, patch) for s in group] for wish in family]
                for family, group in pairs
            ]
        ),
        shapes=np.stack([shapes for shapes, _ in labels]),
        colors=np.stack([colors for _, colors in labels]),
    )


def sample_wish(rng: np.random.Generator) -> DensePrompt:
    """Draw a prompt of any form of the micro world: GenEval's six, the coloured relation, or a dense one."""
    if rng.random() < _DENSE_SHARE:
        return sample_dense_prompt(FORMS[int(rng.integers(len(FORMS)))], rng)
    shapes = rng.choice(len(SHAPES), size=2, replace=False)
    colors = rng.choice(len(COLORS), size=2, replace=False)
    coloured = rng.random() < 0.5
    first, second = (
        Group(1, tuple(COLORS)[color] if coloured else "", SHAPES[shape])
        for color, shape in zip(colors, shapes, strict=True)
    )
    form = rng.random()
    if form < 0.15:
        return DensePrompt((first,))
    if form < 0.4:
        return DensePrompt((Group(int(rng.integers(2, _LARGEST_GROUP + 1)), "", first.shape),))
    relation = RELATIONS[int(rng.integers(len(RELATIONS)))] if form < 0.7 else ""
    return DensePrompt((first, second), relation)


def near_misses(wish: DensePrompt, rng: np.random.Generator) -> dict[str, DensePrompt]:
    """One draw for each kind of single mistake that still makes a prompt; exchanged colours among them."""
    found = mistakes(wish, rng)
    if len(wish.groups) > 1 and wish.groups[0].color:
        first, second, *rest = wish.groups
        swapped = replace(first, color=second.color), replace(second, color=first.color)
        found["swapped colours"] = replace(wish, groups=(*swapped, *rest))
    return {kind: other for kind, other in found.items() if _can_be_said(other)}


def grade(wish: DensePrompt, scene: Scene) -> float:
    """The share of the prompt's facts (objects, colours, numbers, places) that hold in the scene."""
    claims = [claim for claim, _ in wish.claims()]
    return sum(claim.holds(scene) for claim in claims) / len(claims)


def word_claims(wish: DensePrompt) -> list[Claim | None]:
    """For each word of the prompt the fact that it states, if any."""
    claims = {(claim.kind, claim.shape): claim for claim, _ in wish.claims()}
    place = next((claim for claim, _ in wish.claims() if claim.kind == "relation"), None)
    found: list[Claim | None] = []
    shape = ""
    # From the end: what stands before a noun belongs to it.
    for word in reversed(wish.text.split()):
        shape = _SINGULAR.get(word, shape)
        if word in _PLACES:
            found.append(place)
        elif word in _SINGULAR:
            found.append(claims["entity", shape])
        elif word in COLORS:
            found.append(claims["color", shape])
        else:
            found.append(claims.get(("count", shape)) if word in NUMBER_WORDS.values() else None)
    return found[::-1]


def _family(rng: np.random.Generator) -> list[DensePrompt]:
    """A prompt, two that differ in one thing, and one that differs in two things or, sometimes, in all."""
    base = _drawn(rng)
    first, second = _neighbour(base, rng), _neighbour(base, rng)
    return [base, first, second, _drawn(rng) if rng.random() < _UNRELATED_SHARE else _neighbour(first, rng)]


def _shown(family: list[DensePrompt], rng: np.random.Generator) -> tuple[list[DensePrompt], list[Scene]]:
    """A family with its pictures; another family where a prompt cannot be drawn."""
    while True:
        try:
            return family, [dense_scene(wish, rng) for wish in family]
        except NoSceneError:
            family = _family(rng)


def _drawn(rng: np.random.Generator) -> DensePrompt:
    while True:
        wish = sample_wish(rng)
        if _may_be_shown(wish):
            return wish


def _neighbour(wish: DensePrompt, rng: np.random.Generator) -> DensePrompt:
    while True:
        options = list(near_misses(wish, rng).values())
        other = options[int(rng.integers(len(options)))]
        if _may_be_shown(other):
            return other


def _may_be_shown(wish: DensePrompt) -> bool:
    return not is_held_out(wish.text) and wish.text not in stored_dense_prompts()


def _can_be_said(wish: DensePrompt) -> bool:
    counts = [group.count for group in wish.groups]
    return max(counts) <= _LARGEST_GROUP and sum(counts) <= _MOST_OBJECTS


def _word_labels(claims: list[Claim | None], scene: Scene, length: int) -> list[float]:
    known = [
        float("nan") if claim is None or not claim.is_clear(scene) else float(claim.holds(scene))
        for claim in claims
    ]
    return known + [float("nan")] * (length - len(known))


def _word_places(wish: DensePrompt, scene: Scene, length: int, patch: int) -> list[tuple[int, int, int]]:
    found = [(-1, -1, -1)] * length
    for place, word in enumerate(wish.text.split()):
        shape = _SINGULAR.get(word)
        meant = [item for item in scene.objects if item.shape == shape]
        if len(meant) == 1:
            found[place] = (int(meant[0].cy) // patch, int(meant[0].cx) // patch, -1)
        if word in _PLACES:
            relation = direction(scene, wish.groups[0].shape, wish.groups[1].shape)
            found[place] = (-1, -1, RELATIONS.index(relation) if relation is not None else -1)
    return found
