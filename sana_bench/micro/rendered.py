"""Scenes for prompts of the micro world, half of them with one mistake: images whose truth is known.

A scene follows from the text of a prompt and a seed alone, so what an image shows can be found again from how it was made.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sana_bench.micro.dense_prompts import NoSceneError, dense_scene, one_mistake
from sana_bench.micro.prompt_claims import prompt_claims, read_prompt
from sana_bench.micro.reading_prompts import TextPrompt
from sana_bench.micro.renderer import render
from sana_bench.micro.text_world import LETTERS, TextScene, render_text, text_scene_for
from sana_bench.micro.world import COLORS, Scene

__all__ = ["Drawn", "draw", "read_text_prompt"]

_MOST_OBJECTS = 5
_ATTEMPTS = 20
_TEXT = re.compile(rf"a photo of the (?P<color>{'|'.join(COLORS)}) text (?P<words>[A-Z]+(?: [A-Z]+)*)")


@dataclass(frozen=True)
class Drawn:
    """A scene, and whether it was drawn as its prompt asks."""

    scene: Scene | TextScene
    as_asked: bool

    @property
    def image(self) -> NDArray[np.uint8]:
        """The picture, uint8 (64, 64, 3)."""
        return render_text(self.scene) if isinstance(self.scene, TextScene) else render(self.scene)


def draw(prompt: str, seed: int) -> Drawn:
    """Draw a scene for a prompt: as asked by an even seed, with one mistake by an odd one, so that one of the prompt's claims
    does not hold. The same again for the same arguments.

    Raises ValueError for a prompt of another world, and for one whose objects find no room.
    """
    rng = np.random.default_rng(seed)
    as_asked = seed % 2 == 0
    text = read_text_prompt(prompt)
    if text is not None:
        words = text.words if as_asked else _misspelled(text.words, rng)
        return Drawn(text_scene_for([(word, text.color) for word in words], rng), as_asked)
    asked, claims = read_prompt(prompt), prompt_claims(prompt)
    for _ in range(_ATTEMPTS):
        shown = asked if as_asked else one_mistake(asked, rng)
        if sum(group.count for group in shown.groups) > _MOST_OBJECTS:
            continue
        try:
            scene = dense_scene(shown, rng)
        except NoSceneError:
            continue
        # `a circle` does not ask for only one: a second one is no mistake.
        if as_asked == all(claim.holds(scene) for claim in claims):
            return Drawn(scene, as_asked)
    raise ValueError(f"no room for what {prompt!r} asks for")


def read_text_prompt(prompt: str) -> TextPrompt | None:
    """The words that a prompt asks for; None for one that asks for shapes."""
    found = _TEXT.fullmatch(prompt)
    return TextPrompt(tuple(found["words"].split(" ")), found["color"]) if found is not None else None


def _misspelled(words: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    """The words with another letter in one place."""
    which = int(rng.integers(len(words)))
    place = int(rng.integers(len(words[which])))
    others = [letter for letter in LETTERS if letter != words[which][place]]
    wrong = words[which][:place] + others[int(rng.integers(len(others)))] + words[which][place + 1 :]
    return (*words[:which], wrong, *words[which + 1 :])
