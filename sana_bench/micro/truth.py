"""What is really in a scene: exact detections, what each patch shows, and whether a GenEval record holds."""

from math import hypot
from typing import TYPE_CHECKING, Any

from sana_bench.micro.renderer import coverage, object_box
from sana_bench.micro.world import COLORS, IMAGE_SIZE, SHAPES, Scene, SceneObject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["detections_of", "patch_labels", "relation_holds", "satisfies"]

Box = tuple[int, int, int, int]

_SHORTENING = 0.1
_MIN_DIRECTION = 0.5
_TOWARDS = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def detections_of(scene: Scene) -> list[dict[str, Any]]:
    """Return what a perfect detector reports, in the order of the scene's objects.

    Each is `label`, `score` 1.0, `box` [x1, y1, x2, y2] in pixels with exclusive ends, and `color`.
    """
    return [
        {"label": item.shape, "score": 1.0, "box": list(object_box(item)), "color": item.color}
        for item in scene.objects
    ]


def patch_labels(scene: Scene, patch: int) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """Shape and colour that each patch of `patch` x `patch` pixels shows, row by row, counted from 1; 0 is background.

    An object that covers less than a quarter of a patch is not what it shows.
    """
    import numpy as np

    owner = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.int64)
    for number, item in enumerate(scene.objects, start=1):
        shares, rows, columns = coverage(item)
        owner[rows, columns][shares >= 0.5] = number
    side = IMAGE_SIZE // patch
    cells = owner.reshape(side, patch, side, patch).swapaxes(1, 2).reshape(side * side, patch * patch)
    counts = (cells[:, :, None] == np.arange(1, len(scene.objects) + 1)).sum(axis=1)
    shown = np.where(4 * counts.max(axis=1) >= patch * patch, counts.argmax(axis=1) + 1, 0)
    shapes = np.array([0, *(SHAPES.index(item.shape) + 1 for item in scene.objects)])
    colors = np.array([0, *(tuple(COLORS).index(item.color) + 1 for item in scene.objects)])
    return shapes[shown], colors[shown]


def satisfies(scene: Scene, record: dict[str, Any]) -> bool:
    """Whether the scene shows what a GenEval record asks for.

    Every `include` clause needs `count` objects of its class, in its colour if it names one, and each of them
    in the relation it names to every object of the clause it points at; no `exclude` clause may reach its
    count. Other objects do not matter. For scenes without a second object of a named class this is GenEval's
    rule.
    """
    matched = [_matching(scene, clause) for clause in record["include"]]
    for clause, found in zip(record["include"], matched, strict=True):
        if len(found) < clause["count"]:
            return False
        if "position" in clause:
            relation, anchor_index = clause["position"]
            boxes = [object_box(anchor) for anchor in matched[anchor_index]]
            if not all(relation_holds(object_box(item), relation, box) for item in found for box in boxes):
                return False
    return all(len(_matching(scene, clause)) < clause["count"] for clause in record.get("exclude", ()))


def relation_holds(subject: Box, relation: str, anchor: Box) -> bool:
    """Whether `subject` is `relation` of `anchor` by GenEval's rule on boxes.

    The offset of the centres along the relation's axis, shortened by a tenth of both sizes, must be more than
    half the length of the whole offset.
    """
    axis, sign = _TOWARDS[relation]
    offset = [(subject[k] + subject[k + 2] - anchor[k] - anchor[k + 2]) / 2 for k in (0, 1)]
    sizes = subject[axis + 2] - subject[axis] + anchor[axis + 2] - anchor[axis]
    return sign * offset[axis] - _SHORTENING * sizes > _MIN_DIRECTION * hypot(*offset)


def _matching(scene: Scene, clause: dict[str, Any]) -> list[SceneObject]:
    color = clause.get("color")
    return [item for item in scene.objects if item.shape == clause["class"] and color in (None, item.color)]
