"""Dense prompts of the micro world: two or three objects with colours, numbers and places, and their questions.

The stored set is DPG-Bench in small: each prompt has its graph of questions in the published form.
"""

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sana_bench.core.text import lines
from sana_bench.micro.captions import scene_for
from sana_bench.micro.claims import Claim, question_record
from sana_bench.micro.templates import NUMBER_WORDS, RELATIONS, article, plural
from sana_bench.micro.world import COLORS, SHAPES, Scene
from sana_models.files import parse_json

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "FORMS",
    "DensePrompt",
    "Group",
    "NoSceneError",
    "dense_prompts",
    "dense_scene",
    "generate_dense_prompts",
    "mistakes",
    "one_mistake",
    "sample_dense_prompt",
    "stored_dense_prompts",
]

N_PROMPTS = 100
_SEED = 47
#: Forms of prompts; each makes a quarter of the set.
FORMS = ("related pair", "group and one", "three", "related pair and one")
_ATTEMPTS = 2000


@dataclass(frozen=True)
class Group:
    """Objects of one shape and colour, or of any one colour where it is empty; a prompt's groups differ in shape."""

    count: int
    color: str
    shape: str

    @property
    def text(self) -> str:
        """`a red circle` or `two red circles`."""
        if self.count == 1:
            return article(f"{self.color} {self.shape}".strip())
        return " ".join(filter(None, (NUMBER_WORDS[self.count], self.color, plural(self.shape))))


@dataclass(frozen=True)
class DensePrompt:
    """Groups in the order of the text; `relation` is how the first lies to the second, or empty."""

    groups: tuple[Group, ...]
    relation: str = ""

    @property
    def text(self) -> str:
        """At most fourteen words, all from the captions' vocabulary."""
        parts = [group.text for group in self.groups]
        if self.relation:
            parts = [f"{parts[0]} {self.relation} {parts[1]}", *parts[2:]]
        return f"a photo of {' and '.join(parts)}"

    def claims(self) -> list[tuple[Claim, list[int]]]:
        """Claims, numbered from 1, with the numbers of those that each depends on."""
        found: list[tuple[Claim, list[int]]] = [(Claim("entity", g.shape), []) for g in self.groups]
        for number, group in enumerate(self.groups, start=1):
            if not group.color:
                continue
            found.append((Claim("color", group.shape, color=group.color, count=group.count), [number]))
        for number, group in enumerate(self.groups, start=1):
            if self.is_counted(number - 1):
                found.append((Claim("count", group.shape, count=group.count), [number]))
        if self.relation:
            first, second = self.groups[0].shape, self.groups[1].shape
            found.append((Claim("relation", first, relation=self.relation, other=second), [1, 2]))
        return found

    def is_counted(self, place: int) -> bool:
        """Whether a question asks for the number of the group at `place`."""
        # Pairs are counted whole; of three groups only the first, so that no prompt has many more questions.
        return place == 0 or len(self.groups) == 2

    def record(self, item_id: str) -> dict[str, Any]:
        """The prompt with its questions, as the stored set and the benchmark have it."""
        questions = [
            question_record(claim, number, parents)
            for number, (claim, parents) in enumerate(self.claims(), start=1)
        ]
        return {"item_id": item_id, "text": self.text, "questions": questions}


def sample_dense_prompt(form: str, rng: "np.random.Generator") -> DensePrompt:
    """Draw a prompt of one of `FORMS`."""
    shapes = [SHAPES[i] for i in rng.choice(len(SHAPES), size=3, replace=False)]
    colors = [tuple(COLORS)[i] for i in rng.choice(len(COLORS), size=3, replace=False)]
    singles = tuple(Group(1, color, shape) for color, shape in zip(colors, shapes, strict=True))
    relation = RELATIONS[int(rng.integers(len(RELATIONS)))]
    match form:
        case "related pair":
            return DensePrompt(singles[:2], relation)
        case "group and one":
            return DensePrompt((replace(singles[0], count=int(rng.integers(2, 4))), singles[1]))
        case "three":
            return DensePrompt(singles)
        case "related pair and one":
            return DensePrompt(singles, relation)
    raise ValueError(f"unknown form {form!r}; one of {', '.join(FORMS)}")


class NoSceneError(RuntimeError):
    """Chance did not find a place for every object."""


def dense_scene(prompt: DensePrompt, rng: "np.random.Generator") -> Scene:
    """Draw a scene with exactly the objects of `prompt`; its relation, if any, holds clearly.

    Raises `NoSceneError` when none of many attempts has room for that, as happens with groups that stand apart.
    """
    include = [{"class": g.shape, "count": g.count, "color": g.color} for g in prompt.groups]
    relation = next((claim for claim, _ in prompt.claims() if claim.kind == "relation"), None)
    for _ in range(_ATTEMPTS):
        scene = scene_for({"include": include}, rng)
        if relation is None or (relation.holds(scene) and relation.is_clear(scene)):
            return scene
    raise NoSceneError(f"no scene found for {prompt.text!r}")


def one_mistake(prompt: DensePrompt, rng: "np.random.Generator") -> DensePrompt:
    """Draw what to paint instead so that one thing is wrong: shape, colour, number, a missing group, or place."""
    options = list(mistakes(prompt, rng).values())
    return options[int(rng.integers(len(options)))]


def generate_dense_prompts() -> list[DensePrompt]:
    """Draw the stored set again: 25 different prompts of each form."""
    import numpy as np

    rng = np.random.default_rng(_SEED)
    found: dict[str, DensePrompt] = {}
    for index in range(N_PROMPTS):
        while True:
            prompt = sample_dense_prompt(FORMS[index % len(FORMS)], rng)
            if prompt.text not in found:
                break
        found[prompt.text] = prompt
    return list(found.values())


@cache
def _stored() -> str:
    return (files("sana_bench.micro") / "data" / "dense_prompts.jsonl").read_text(encoding="utf-8")


def dense_prompts() -> list[dict[str, Any]]:
    """The stored records: `item_id`, `text` and `questions` as DPG-Bench's files give them."""
    return [parse_json(line) for line in lines(_stored())]


@cache
def stored_dense_prompts() -> frozenset[str]:
    """Texts of the stored set, which the judge's training leaves out."""
    return frozenset(record["text"] for record in dense_prompts())


def mistakes(prompt: DensePrompt, rng: "np.random.Generator") -> dict[str, DensePrompt]:
    """What to paint instead, one draw for each kind of mistake that `prompt` allows."""
    groups, found = prompt.groups, {}
    place = int(rng.integers(len(groups)))
    group = groups[place]

    def changed(**values: Any) -> DensePrompt:
        return replace(prompt, groups=(*groups[:place], replace(group, **values), *groups[place + 1 :]))

    named = {g.shape for g in groups}
    others = [shape for shape in SHAPES if shape not in named]
    found["wrong shape"] = changed(shape=others[int(rng.integers(len(others)))])
    if group.color:
        others = [color for color in COLORS if color not in {g.color for g in groups}]
        found["wrong colour"] = changed(color=others[int(rng.integers(len(others)))])
    if prompt.is_counted(place):
        more = group.count == 1 or rng.random() < 0.5
        found["wrong number"] = changed(count=group.count + (1 if more else -1))
    if len(groups) > 1:
        rest = (*groups[:place], *groups[place + 1 :])
        found["missing object"] = replace(prompt, groups=rest, relation="")
    if prompt.relation:
        wrong = [relation for relation in RELATIONS if relation != prompt.relation]
        found["wrong place"] = replace(prompt, relation=wrong[int(rng.integers(len(wrong)))])
    return found
