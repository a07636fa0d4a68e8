"""What a prompt of the micro world claims, read from its text: the way back from a sentence to yes-or-no questions."""

import re

from sana_bench.micro.claims import Claim
from sana_bench.micro.templates import NUMBER_WORDS, RELATIONS, plural
from sana_bench.micro.world import COLORS, SHAPES

__all__ = ["prompt_claims"]

_START = "a photo of "
_COUNTS = {"a": 1, "an": 1, **{word: number for number, word in NUMBER_WORDS.items()}}
_SINGULAR = {shape: shape for shape in SHAPES}
_PLURAL = {plural(shape): shape for shape in SHAPES}
_GROUP = re.compile(
    rf"(?P<count>{'|'.join(_COUNTS)}) (?:(?P<color>{'|'.join(COLORS)}) )?(?P<noun>[a-z]+)",
)
_RELATED = re.compile(rf"(?P<first>.+) (?P<relation>{'|'.join(RELATIONS)}) (?P<second>.+)")


def prompt_claims(text: str) -> list[Claim]:
    """Return the claims of `a photo of GROUP [RELATION GROUP] [and GROUP ..]`: shapes, colours, numbers, then the relation.

    A group is an article or a number, perhaps a colour, and a shape. `a` and `an` claim that there is one, not that there is
    only one, as GenEval counts. Raises ValueError for any other text, and for a shape named twice: a claim about a shape
    is about all objects of it.
    """
    if not text.startswith(_START):
        raise ValueError(f"{text!r} does not begin with {_START!r}")
    first, *rest = text.removeprefix(_START).split(" and ")
    related = _RELATED.fullmatch(first)
    parts = [related["first"], related["second"], *rest] if related is not None else [first, *rest]
    groups = [_group(part) for part in parts]
    shapes = [shape for _, _, shape in groups]
    if len(set(shapes)) != len(shapes):
        raise ValueError(f"{text!r} names a shape twice")
    claims = [Claim("entity", shape) for shape in shapes]
    claims += [Claim("color", shape, color=color, count=count) for count, color, shape in groups if color]
    claims += [Claim("count", shape, count=count) for count, _, shape in groups if count > 1]
    if related is not None:
        claims.append(Claim("relation", shapes[0], relation=related["relation"], other=shapes[1]))
    return claims


def _group(part: str) -> tuple[int, str, str]:
    found = _GROUP.fullmatch(part)
    if found is not None:
        count = _COUNTS[found["count"]]
        shape = (_SINGULAR if count == 1 else _PLURAL).get(found["noun"])
        if shape is not None:
            return count, found["color"] or "", shape
    raise ValueError(f"{part!r} names no shapes of the micro world")
