"""GenEval's verdict on one image: detected objects against one line of prompt metadata.

Reference: `evaluate_images.py` of djghosh13/geneval (Ghosh et al., 2023), defaults included. Detections come
in unfiltered; thresholds, the per-class cap and the ranking by confidence are part of the decision.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

PALETTE = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
# The reference prints a set of relations, whose order follows Python's hash seed; this is the order of its
# stored decisions, so that reasons compare as text.
RELATIONS = ("below", "left of", "right of", "above")

# An offset that shrinks to less than this many pixels on both axes is no relation at all.
_MIN_OFFSET_PX = 1e-3
# A relation needs more than this share of the offset's length: cos 60 degrees.
_MIN_DIRECTION = 0.5

Detection = Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """Whether the image shows what was asked, and if not, why: one line per violated clause."""

    correct: bool
    reasons: tuple[str, ...]


def decide(
    metadata: Mapping[str, Any],
    detections: Iterable[Detection],
    *,
    threshold: float = 0.3,
    counting_threshold: float = 0.9,
    max_objects: int = 16,
    position_threshold: float = 0.1,
) -> Decision:
    """Judge one image by GenEval's official rules.

    Args:
        metadata: `tag`, `include` clauses (all must hold) and optional `exclude` clauses (none may hold).
        detections: mappings with `label`, `score`, `box` = [x1, y1, x2, y2] in pixels and, where a clause
            asks for a colour, `color`. Unfiltered and in any order.
        threshold: detections must score strictly above this; `counting_threshold` replaces it for `counting`.
        max_objects: most confident detections kept per class.
        position_threshold: share of the two objects' sizes by which an offset is shortened before it counts.
    """
    minimum = counting_threshold if metadata["tag"] == "counting" else threshold
    kept = confident_by_class(detections, minimum, max_objects)
    reasons: list[str] = []
    groups: list[list[Detection] | None] = []
    for clause in metadata.get("include", ()):
        found = kept.get(clause["class"], [])[: clause["count"]]
        reason = _violation(clause, found, groups, position_threshold)
        if reason is not None:
            reasons.append(reason)
        groups.append(found if reason is None else None)
    for clause in metadata.get("exclude", ()):
        n_found = len(kept.get(clause["class"], []))
        if n_found >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {n_found}")
    return Decision(correct=not reasons, reasons=tuple(reasons))


def confident_by_class(
    detections: Iterable[Detection], minimum: float, max_objects: int
) -> dict[str, list[Detection]]:
    """Detections with scores above `minimum` by class, the `max_objects` most confident, best first."""
    by_class: dict[str, list[Detection]] = {}
    for detection in detections:
        if detection["score"] > minimum:
            by_class.setdefault(detection["label"], []).append(detection)
    # Reversed ascending sort, as in the reference: among equal scores the later detection ranks first.
    return {
        label: sorted(found, key=lambda detection: detection["score"])[::-1][:max_objects]
        for label, found in by_class.items()
    }


def relations(
    box_a: Sequence[float], box_b: Sequence[float], position_threshold: float = 0.1
) -> tuple[str, ...]:
    """Relations that A holds to B (none, one or two), in the order of `RELATIONS`.

    The centre offset is shortened on each axis by `position_threshold` times the summed sizes, then measured
    against the length of the full offset. Image y points down.
    """
    offset: list[float] = []
    shortened: list[float] = []
    for axis in (0, 1):
        delta = (box_a[axis] + box_a[axis + 2]) / 2 - (box_b[axis] + box_b[axis + 2]) / 2
        sizes = abs(box_a[axis + 2] - box_a[axis]) + abs(box_b[axis + 2] - box_b[axis])
        excess = max(abs(delta) - position_threshold * sizes, 0.0)
        offset.append(delta)
        shortened.append(excess if delta >= 0 else -excess)
    if max(abs(shortened[0]), abs(shortened[1])) < _MIN_OFFSET_PX:
        return ()
    length = hypot(*offset)
    dx, dy = shortened[0] / length, shortened[1] / length
    holds = (dy > _MIN_DIRECTION, dx < -_MIN_DIRECTION, dx > _MIN_DIRECTION, dy < -_MIN_DIRECTION)
    return tuple(name for name, true in zip(RELATIONS, holds, strict=True) if true)


def _violation(
    clause: Mapping[str, Any],
    found: list[Detection],
    groups: list[list[Detection] | None],
    position_threshold: float,
) -> str | None:
    name, count = clause["class"], clause["count"]
    if len(found) < count:
        return f"expected {name}>={count}, found {len(found)}"
    if "color" in clause:
        wanted = clause["color"]
        colors = [detection["color"] for detection in found]
        if colors.count(wanted) < count:
            seen = ", ".join(f"{colors.count(color)} {color}" for color in PALETTE if color in colors)
            return f"expected {wanted} {name}>={count}, found {colors.count(wanted)} {wanted}; and {seen}"
    if "position" in clause:
        relation, target_index = clause["position"]
        target = groups[target_index]
        if target is None:
            return f"no target for {name} to be {relation}"
        for subject in found:
            for anchor in target:
                held = relations(subject["box"], anchor["box"], position_threshold)
                if relation not in held:
                    return f"expected {name} {relation} target, found {' and '.join(held)} target"
    return None
