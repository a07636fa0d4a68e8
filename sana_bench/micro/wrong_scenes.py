"""Scenes that almost show what a record asks for: one colour, number, object, shape or relation is wrong."""

from typing import Any

import numpy as np

from sana_bench.micro.captions import scene_for
from sana_bench.micro.templates import RELATIONS
from sana_bench.micro.world import COLORS, SHAPES, Scene

__all__ = ["wrong_records", "wrong_scene_for"]

Record = dict[str, Any]

_LARGEST_WRONG_COUNT = 5


def wrong_scene_for(record: Record, rng: np.random.Generator, kind: str | None = None) -> Scene:
    """Draw a scene that violates a GenEval record in one way: `kind` of `wrong_records`, or a random one.

    Raises `KeyError` when the record cannot be violated that way.
    """
    kinds = wrong_records(record)
    options = kinds[kind or list(kinds)[int(rng.integers(len(kinds)))]]
    return scene_for(options[int(rng.integers(len(options)))], rng)


def wrong_records(record: Record) -> dict[str, list[Record]]:
    """Return, by kind of mistake, the records whose scenes violate `record` in that single way.

    Kinds: `wrong shape`, `missing object`, `wrong colour`, `swapped colours`, `wrong relation` and `wrong
    count`, of which only those that apply. The results say what to paint; their prompts stay as they were.
    """
    kinds = {
        "wrong shape": _wrong_shapes(record),
        "missing object": _missing_objects(record),
        "wrong colour": _wrong_colours(record),
        "swapped colours": _swapped_colours(record),
        "wrong relation": _wrong_relations(record),
        "wrong count": _wrong_counts(record),
    }
    return {kind: options for kind, options in kinds.items() if options}


def _wrong_shapes(record: Record) -> list[Record]:
    """One object has a shape that the record does not name."""
    named = {clause["class"] for clause in record["include"]}
    others = [shape for shape in SHAPES if shape not in named]
    return [
        _with_include(record, _with_one_reshaped(record["include"], index, shape))
        for index in range(len(record["include"]))
        for shape in others
    ]


def _with_one_reshaped(include: list[Record], index: int, shape: str) -> list[Record]:
    clause = include[index]
    changed = [clause | {"class": shape, "count": 1}]
    if clause["count"] > 1:
        changed.insert(0, clause | {"count": clause["count"] - 1})
    return [*include[:index], *changed, *include[index + 1 :]]


def _missing_objects(record: Record) -> list[Record]:
    include = record["include"]
    if len(include) < 2:
        return []
    return [_with_include(record, [_unplaced(clause)]) for clause in include]


def _wrong_colours(record: Record) -> list[Record]:
    named = {clause.get("color") for clause in record["include"]}
    return [
        _with_clause(record, index, color=color)
        for index, clause in enumerate(record["include"])
        if "color" in clause
        for color in COLORS
        if color not in named
    ]


def _swapped_colours(record: Record) -> list[Record]:
    colors = [clause.get("color") for clause in record["include"]]
    if len(colors) != 2 or None in colors or colors[0] == colors[1]:
        return []
    first, second = record["include"]
    return [_with_include(record, [first | {"color": colors[1]}, second | {"color": colors[0]}])]


def _wrong_relations(record: Record) -> list[Record]:
    return [
        _with_clause(record, index, position=[relation, clause["position"][1]])
        for index, clause in enumerate(record["include"])
        if "position" in clause
        for relation in RELATIONS
        if relation != clause["position"][0]
    ]


def _wrong_counts(record: Record) -> list[Record]:
    if "exclude" not in record:
        return []
    right = record["include"][0]["count"]
    return [
        _with_clause(record, 0, count=count)
        for count in (right - 1, right + 1)
        if 1 <= count <= _LARGEST_WRONG_COUNT
    ]


def _with_include(record: Record, include: list[Record]) -> Record:
    return record | {"include": include}


def _with_clause(record: Record, index: int, **changes: Any) -> Record:
    include = list(record["include"])
    include[index] = include[index] | changes
    return _with_include(record, include)


def _unplaced(clause: Record) -> Record:
    return {key: value for key, value in clause.items() if key != "position"}
