"""Yes-or-no questions about scenes of the micro world, with their truth.

A colour or a relation is true of a shape when every object of that shape has it, and there is one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

import numpy as np

from sana_bench.micro.renderer import object_box
from sana_bench.micro.templates import RELATIONS, article, plural
from sana_bench.micro.truth import relation_holds
from sana_bench.micro.world import COLORS, SHAPES, Scene, SceneObject

__all__ = ["COUNT_WORDS", "KINDS", "Claim", "direction", "question_record", "sample_claim"]

COUNT_WORDS = ("zero", "one", "two", "three", "four", "five")
#: Kinds of claims with DPG-Bench's names for their categories.
KINDS = {
    "entity": "entity - whole",
    "color": "attribute - color",
    "count": "other - count",
    "relation": "relation - spatial",
}

_CLEAR, _UNCLEAR = 0.8, 0.3
_AXES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}


@dataclass(frozen=True)
class Claim:
    """A statement about a shape: that it is there, its colour, its number, or its place beside another one."""

    kind: str
    shape: str
    color: str = ""
    count: int = 1
    relation: str = ""
    other: str = ""

    @property
    def question(self) -> str:
        """The claim as a question."""
        many = plural(self.shape)
        match self.kind:
            case "entity":
                return f"Is there {article(self.shape)}?"
            case "color" if self.count > 1:
                return f"Are the {many} {self.color}?"
            case "color":
                return f"Is the {self.shape} {self.color}?"
            case "count" if self.count == 1:
                return f"Is there exactly one {self.shape}?"
            case "count":
                return f"Are there exactly {COUNT_WORDS[self.count]} {many}?"
        return f"Is the {self.shape} {self.relation} the {self.other}?"

    @property
    def arguments(self) -> str:
        """What stands in brackets in DPG-Bench's tuples."""
        match self.kind:
            case "entity":
                return self.shape
            case "color":
                return f"{self.shape}, {self.color}"
            case "count":
                return f"{self.shape}, =={self.count}"
        return f"{self.shape}, {self.other}, {self.relation}"

    def holds(self, scene: Scene) -> bool:
        """Whether the claim is true of `scene`."""
        found = _of_shape(scene, self.shape)
        match self.kind:
            case "entity":
                return bool(found)
            case "color":
                return bool(found) and all(item.color == self.color for item in found)
            case "count":
                return len(found) == self.count
        anchors = _of_shape(scene, self.other)
        return (
            bool(found)
            and bool(anchors)
            and all(
                relation_holds(object_box(item), self.relation, object_box(anchor))
                for item in found
                for anchor in anchors
            )
        )

    def is_clear(self, scene: Scene) -> bool:
        """Whether nobody could argue: places are unclear between about 37 and 73 degrees from their axis."""
        if self.kind != "relation":
            return True
        shares = [
            _share(item, anchor, self.relation)
            for item in _of_shape(scene, self.shape)
            for anchor in _of_shape(scene, self.other)
        ]
        return not any(_UNCLEAR < share < _CLEAR for share in shares)


def question_record(claim: Claim, proposition_id: int, dependency: Sequence[int]) -> dict[str, Any]:
    """The claim as a question of a DPG-Bench item."""
    return {
        "proposition_id": proposition_id,
        "dependency": list(dependency) or [0],
        "tuple": f"{KINDS[claim.kind]} ({claim.arguments})",
        "question": claim.question,
    }


def direction(scene: Scene, shape: str, other: str) -> str | None:
    """The one relation that clearly holds between two shapes of which there is one each, or None."""
    if len(_of_shape(scene, shape)) != 1 or len(_of_shape(scene, other)) != 1:
        return None
    (item,), (anchor,) = _of_shape(scene, shape), _of_shape(scene, other)
    return next((r for r in RELATIONS if _share(item, anchor, r) >= _CLEAR), None)


def sample_claim(scene: Scene, rng: np.random.Generator, *, truth: bool) -> Claim:
    """Draw a clear claim about `scene`, of the asked truth if sixteen draws give one, and never far from it."""
    claim = None
    for _ in range(16):
        draw = _draw(scene, rng)
        if draw.is_clear(scene):
            claim = draw
            if draw.holds(scene) == truth:
                return draw
    return claim or Claim("entity", _pick(rng, SHAPES))


def _draw(scene: Scene, rng: np.random.Generator) -> Claim:
    shapes = tuple(item.shape for item in scene.objects)
    colors = tuple(item.color for item in scene.objects)
    shape = _pick(rng, shapes if rng.random() < 0.8 else SHAPES)
    kind = _pick(rng, tuple(KINDS), p=(0.2, 0.3, 0.25, 0.25))
    if kind == "color":
        color = _pick(rng, colors if rng.random() < 0.6 else tuple(COLORS))
        return Claim("color", shape, color=color, count=int(rng.integers(1, 3)))
    if kind == "count":
        near = Counter(shapes)[shape] + int(rng.integers(-1, 2))
        return Claim("count", shape, count=min(max(near, 1), 5))
    if kind == "relation":
        others = tuple(name for name in (shapes if rng.random() < 0.9 else SHAPES) if name != shape)
        if others:
            return Claim("relation", shape, relation=_pick(rng, RELATIONS), other=_pick(rng, others))
    return Claim("entity", shape if rng.random() < 0.6 else _pick(rng, SHAPES))


def _of_shape(scene: Scene, shape: str) -> list[SceneObject]:
    return [item for item in scene.objects if item.shape == shape]


def _share(item: SceneObject, anchor: SceneObject, relation: str) -> float:
    """Cosine between the offset of two objects and the relation's direction."""
    axis, sign = _AXES[relation]
    offset = (item.cx - anchor.cx, item.cy - anchor.cy)
    return sign * offset[axis] / max(hypot(*offset), 1e-9)


def _pick(rng: np.random.Generator, items: Sequence[str], p: Sequence[float] | None = None) -> str:
    return items[int(rng.choice(len(items), p=p))]
