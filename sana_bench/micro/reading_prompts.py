"""Prompts of the micro world for the benchmarks whose judge reads: atoms to count, questions that depend on others, and text.

Each set is drawn from its own seed, always the same; a test holds its hash.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from sana_bench.micro.claims import COUNT_WORDS, Claim
from sana_bench.micro.dense_prompts import (
    FORMS,
    DensePrompt,
    Group,
    sample_dense_prompt,
    stored_dense_prompts,
)
from sana_bench.micro.reading_data import TEXT_WORDS, counted_question
from sana_bench.micro.templates import RELATIONS
from sana_bench.micro.text_world import MAX_WORDS
from sana_bench.micro.world import COLORS, SHAPES

__all__ = [
    "AtomPrompt",
    "AtomQuestion",
    "TextPrompt",
    "alignment_prompts",
    "atom_prompts",
    "text_prompts",
]

#: Prompts of each number of atoms, of each form of alignment prompts, and of each number of words.
PER_KIND = 12
_ATOMS_SEED, _ALIGNMENT_SEED, _TEXT_SEED = 53, 59, 61

# By number of atoms, forms of (counts of the groups, which of them have a colour, whether the first two are related).
_ATOM_FORMS: dict[int, tuple[tuple[tuple[int, ...], tuple[bool, ...], bool], ...]] = {
    3: (((2,), (True,), False), ((3,), (True,), False), ((1, 1), (True, False), False)),
    4: (((1, 1), (True, False), True), ((2, 1), (True, False), False), ((2, 3), (False, False), False)),
    5: (((1, 1), (True, True), True), ((2, 1), (True, True), False), ((3, 2), (True, False), False)),
    6: (((2, 2), (True, True), False), ((1, 1, 1), (True, True, True), False), ((3, 2), (True, True), False)),
    7: (((1, 1, 1), (True, True, True), True), ((2, 1, 1), (True, True, True), False)),
    8: (((1, 1, 2), (True, True, True), True), ((2, 2, 1), (True, True, True), False)),
}


@dataclass(frozen=True)
class AtomQuestion:
    """A question with its right answer (a number word, or `Yes`), the skill that it tests, and the claim that it makes."""

    text: str
    answer: str
    skill: str
    claim: Claim


@dataclass(frozen=True)
class AtomPrompt:
    """A prompt as GenEval 2 counts: every object, colour, number above one and place is an atom."""

    prompt: DensePrompt

    @property
    def atom_count(self) -> int:
        groups = self.prompt.groups
        atoms = (1 + bool(group.color) + (group.count > 1) for group in groups)
        return sum(atoms) + bool(self.prompt.relation)

    def questions(self) -> list[AtomQuestion]:
        """For each group how many there are, its colour if it has one, and whether there is any; then the place."""
        found = []
        for group in self.prompt.groups:
            count = Claim("count", group.shape, count=group.count)
            word = COUNT_WORDS[group.count]
            found.append(AtomQuestion(counted_question(group.shape), word, "count", count))
            if group.color:
                color = Claim("color", group.shape, color=group.color, count=group.count)
                found.append(_yes("attribute", color))
            found.append(_yes("object", Claim("entity", group.shape)))
        if self.prompt.relation:
            first, second = (group.shape for group in self.prompt.groups[:2])
            place = Claim("relation", first, relation=self.prompt.relation, other=second)
            found.append(_yes("position", place))
        return found


@dataclass(frozen=True)
class TextPrompt:
    """One to three words that the image should show, all in one colour."""

    words: tuple[str, ...]
    color: str

    @property
    def text(self) -> str:
        """What should stand in the image."""
        return " ".join(self.words)

    @property
    def prompt(self) -> str:
        """The sentence, within the number of words that the micro text encoder reads."""
        return f"a photo of the {self.color} text {self.text}"


@cache
def atom_prompts() -> tuple[AtomPrompt, ...]:
    """72 different prompts of three to eight atoms, 12 each, fewest first."""
    rng = np.random.default_rng(_ATOMS_SEED)
    found: dict[str, AtomPrompt] = {}
    for forms in _ATOM_FORMS.values():
        for index in range(PER_KIND):
            form = forms[index % len(forms)]
            while True:
                prompt = _drawn(*form, rng)
                if prompt.text not in found:
                    break
            found[prompt.text] = AtomPrompt(prompt)
    return tuple(found.values())


@cache
def alignment_prompts() -> tuple[DensePrompt, ...]:
    """48 different prompts, 12 of each dense form, none of which is in the stored set."""
    rng = np.random.default_rng(_ALIGNMENT_SEED)
    found: dict[str, DensePrompt] = {}
    while len(found) < PER_KIND * len(FORMS):
        prompt = sample_dense_prompt(FORMS[len(found) % len(FORMS)], rng)
        if prompt.text not in stored_dense_prompts():
            found.setdefault(prompt.text, prompt)
    return tuple(found.values())


@cache
def text_prompts() -> tuple[TextPrompt, ...]:
    """36 different prompts, 12 each of one, two and three words that training never shows, fewest first."""
    rng = np.random.default_rng(_TEXT_SEED)
    found: dict[str, TextPrompt] = {}
    while len(found) < PER_KIND * MAX_WORDS:
        words = _chosen(TEXT_WORDS, len(found) // PER_KIND + 1, rng)
        prompt = TextPrompt(words, _chosen(tuple(COLORS), 1, rng)[0])
        found.setdefault(prompt.prompt, prompt)
    return tuple(found.values())


def _drawn(
    counts: Sequence[int], colored: Sequence[bool], related: bool, rng: np.random.Generator
) -> DensePrompt:
    shapes = _chosen(SHAPES, len(counts), rng)
    colors = _chosen(tuple(COLORS), len(counts), rng)
    groups = tuple(
        Group(count, color if has_color else "", shape)
        for count, has_color, color, shape in zip(counts, colored, colors, shapes, strict=True)
    )
    return DensePrompt(groups, _chosen(RELATIONS, 1, rng)[0] if related else "")


def _yes(skill: str, claim: Claim) -> AtomQuestion:
    return AtomQuestion(claim.question, "Yes", skill, claim)


def _chosen(items: Sequence[str], count: int, rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(items[index] for index in rng.choice(len(items), size=count, replace=False))
