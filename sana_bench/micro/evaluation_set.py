"""The fixed evaluation prompts of the micro tier and the training captions they forbid."""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from sana_bench.core.text import lines
from sana_bench.micro import templates
from sana_bench.micro.world import COLORS, SHAPES
from sana_models.files import parse_json

if TYPE_CHECKING:
    import numpy as np

__all__ = ["PROMPTS_PER_TASK", "generate_prompts", "geneval_prompts", "held_out_captions"]

PROMPTS_PER_TASK = 24
_SEED = 43
_MIRRORED = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def generate_prompts() -> list[dict[str, Any]]:
    """Draw the evaluation set: 24 records a task, six tasks, in GenEval's order.

    Eight shapes give only eight single-object prompts; each stands three times, and its noise differs by
    prompt id. The counting prompts are all 24 there are. The others are distinct strings, drawn without
    replacement.
    """
    import numpy as np

    rng = np.random.default_rng(_SEED)
    ordered = [(a, b) for a in SHAPES for b in SHAPES if a != b]
    palette = [(color, shape) for color in COLORS for shape in SHAPES]
    records = [templates.single_object_record(shape) for _ in range(3) for shape in SHAPES]
    records += [templates.two_object_record(*ordered[i]) for i in _draw(rng, len(ordered))]
    records += [templates.counting_record(shape, n) for n in templates.NUMBER_WORDS for shape in SHAPES]
    records += [templates.colors_record(*palette[i]) for i in _draw(rng, len(palette))]
    placed = [(a, relation, b) for a, b in ordered for relation in templates.RELATIONS]
    records += [templates.position_record(*placed[i]) for i in _draw(rng, len(placed))]
    colours = [(a, b) for a in COLORS for b in COLORS if a != b]
    bound = [((c, a), (d, b)) for a, b in ordered for c, d in colours]
    return records + [templates.color_attr_record(*bound[i]) for i in _draw(rng, len(bound))]


def _draw(rng: "np.random.Generator", population: int) -> list[int]:
    return [int(i) for i in rng.choice(population, size=PROMPTS_PER_TASK, replace=False)]


@cache
def _stored() -> str:
    return (files("sana_bench.micro") / "data" / "geneval_prompts.jsonl").read_text(encoding="utf-8")


def geneval_prompts() -> list[dict[str, Any]]:
    """Return the stored evaluation records; the line number is the prompt index."""
    return [parse_json(line) for line in lines(_stored())]


@cache
def held_out_captions() -> frozenset[str]:
    """Captions that training must never show.

    The two-object, position and colour-attribution prompts, and for the last two also the sentence with the
    same meaning the other way round. The swapped two-object sentence stays allowed: there are only 28
    unordered pairs of shapes to learn from.
    """
    captions: set[str] = set()
    for record in geneval_prompts():
        include = record["include"]
        if record["tag"] == "two_object":
            captions.add(record["prompt"])
        elif record["tag"] == "position":
            anchor, subject = include[0]["class"], include[1]["class"]
            relation = include[1]["position"][0]
            mirrored = templates.position_record(anchor, _MIRRORED[relation], subject)
            captions |= {record["prompt"], mirrored["prompt"]}
        elif record["tag"] == "color_attr":
            first, second = ((clause["color"], clause["class"]) for clause in include)
            captions |= {record["prompt"], templates.color_attr_record(second, first)["prompt"]}
    return frozenset(captions)
