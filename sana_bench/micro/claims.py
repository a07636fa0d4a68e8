"""Yes-or-no questions about scenes of the micro world, with their truth.

A colour or a relation is true of a shape when every object of that shape has it, and there is one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import TYPE_CHECKING, Any

from sana_bench.micro.renderer import object_box
from sana_bench.micro.templates import RELATIONS, article, plural
from sana_bench.micro.truth import relation_holds
from sana_bench.micro.world import COLORS, SHAPES, Scene, SceneObject

if TYPE_CHECKING:
    import numpy as np

__all__ = ["COUNT_WORDS", "KINDS", "Claim", "direction", "question_record", "related_pairs", "sample_claim"]

COUNT_WORDS = ("zero", "one", "two", "three", "four", "five")
#: Kinds of claims with DPG-Bench's names for their categories.
KINDS = {
    "entity": "entity - whole",
    "color": "attribute - color",
    "count": "other - count",
    "relation": "relation - spatial",
}

# Places need the most practice, and little more than half of the scenes have any to ask for.
_KIND_SHARES = (0.15, 0.2, 0.25, 0.4)
_ATTEMPTS = 16
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
    """The relation that clearly holds between all objects of two shapes, or None."""
    for relation in RELATIONS:
        claim = Claim("relation", shape, relation=relation, other=other)
        if claim.holds(scene) and claim.is_clear(scene):
            return relation
    return None


def related_pairs(scene: Scene) -> list[tuple[str, str, str]]:
    """Every (shape, relation, other shape) that clearly holds."""
    shapes = [name for name in SHAPES if _of_shape(scene, name)]
    found = ((one, direction(scene, one, other), other) for one in shapes for other in shapes if one != other)
    return [(one, relation, other) for one, relation, other in found if relation is not None]


def sample_claim(scene: Scene, rng: "np.random.Generator", *, truth: bool) -> Claim:
    """Draw a clear claim about `scene` with the asked truth.

    Its kind is drawn first and only given up where the scene has no claim of it with either truth, so that the kind of a
    question does not tell its answer.
    """
    kind = _pick(rng, tuple(KINDS), p=_KIND_SHARES)
    for _ in range(_ATTEMPTS):
        claim = _draw(kind, scene, rng, truth=truth)
        if claim.is_clear(scene) and claim.holds(scene) == truth:
            return claim
    shown = {item.shape for item in scene.objects}
    return Claim("entity", _pick(rng, [name for name in SHAPES if (name in shown) == truth]))


def _draw(kind: str, scene: Scene, rng: "np.random.Generator", *, truth: bool) -> Claim:
    shapes = tuple(item.shape for item in scene.objects)
    colors = tuple(item.color for item in scene.objects)
    shape = _pick(rng, shapes if rng.random() < 0.8 else SHAPES)
    if kind == "color":
        color = _pick(rng, colors if rng.random() < 0.6 else tuple(COLORS))
        return Claim("color", shape, color=color, count=int(rng.integers(1, 3)))
    if kind == "count":
        near = Counter(shapes)[shape] + int(rng.integers(-1, 2))
        return Claim("count", shape, count=min(max(near, 1), 5))
    pairs = related_pairs(scene) if kind == "relation" else []
    if pairs:
        return _draw_relation(pairs, shapes, rng, truth=truth)
    return Claim("entity", shape if rng.random() < 0.6 else _pick(rng, SHAPES))


def _draw_relation(
    pairs: Sequence[tuple[str, str, str]], shapes: Sequence[str], rng: "np.random.Generator", *, truth: bool
) -> Claim:
    """What holds, or something else about the same pair, about any pair shown, or about a shape that is not there."""
    shape, relation, other = pairs[int(rng.integers(len(pairs)))]
    if not truth:
        relation = _pick(rng, [name for name in RELATIONS if name != relation])
        chance = rng.random()
        if chance < 0.1:
            other = _pick(rng, [name for name in SHAPES if name not in shapes])
        elif chance < 0.25:
            shape, other = (_pick(rng, sorted({*shapes})) for _ in range(2))
            if shape == other:
                shape, _, other = pairs[0]
    return Claim("relation", shape, relation=relation, other=other)


def _of_shape(scene: Scene, shape: str) -> list[SceneObject]:
    return [item for item in scene.objects if item.shape == shape]


def _share(item: SceneObject, anchor: SceneObject, relation: str) -> float:
    """Cosine between the offset of two objects and the relation's direction."""
    axis, sign = _AXES[relation]
    offset = (item.cx - anchor.cx, item.cy - anchor.cy)
    return sign * offset[axis] / max(hypot(*offset), 1e-9)


def _pick(rng: "np.random.Generator", items: Sequence[str], p: Sequence[float] | None = None) -> str:
    return items[int(rng.choice(len(items), p=p))]
