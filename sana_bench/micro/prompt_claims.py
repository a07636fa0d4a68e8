"""What a prompt of the micro world claims, read from its text: the way back from a sentence to yes-or-no questions."""

import re

from sana_bench.micro.claims import Claim
from sana_bench.micro.dense_prompts import DensePrompt, Group
from sana_bench.micro.templates import NUMBER_WORDS, RELATIONS, plural
from sana_bench.micro.world import COLORS, SHAPES

__all__ = ["prompt_claims", "read_prompt"]

_START = "a photo of "
_COUNTS = {"a": 1, "an": 1, **{word: number for number, word in NUMBER_WORDS.items()}}
_SINGULAR = {shape: shape for shape in SHAPES}
_PLURAL = {plural(shape): shape for shape in SHAPES}
_GROUP = re.compile(
    rf"(?P<count>{'|'.join(_COUNTS)}) (?:(?P<color>{'|'.join(COLORS)}) )?(?P<noun>[a-z]+)",
)
_RELATED = re.compile(rf"(?P<first>.+) (?P<relation>{'|'.join(RELATIONS)}) (?P<second>.+)")


def read_prompt(text: str) -> DensePrompt:
    """Return what `a photo of GROUP [RELATION GROUP] [and GROUP ..]` asks for.

    A group is an article or a number, perhaps a colour, and a shape. Raises ValueError for any other text, and for a shape named
    twice: a claim about a shape is about all objects of it.
    """
    if not text.startswith(_START):
        raise ValueError(f"{text!r} does not begin with {_START!r}")
    first, *rest = text.removeprefix(_START).split(" and ")
    related = _RELATED.fullmatch(first)
    parts = [related["first"], related["second"], *rest] if related is not None else [first, *rest]
    groups = tuple(_group(part) for part in parts)
    if len({group.shape for group in groups}) != len(groups):
        raise ValueError(f"{text!r} names a shape twice")
    return DensePrompt(groups, related["relation"] if related is not None else "")


def prompt_claims(text: str) -> list[Claim]:
    """Return the claims of a text that `read_prompt` reads: shapes, colours, numbers, then the relation.

    `a` and `an` claim that there is one, not that there is only one, as GenEval counts. Raises ValueError as `read_prompt`.
    """
    prompt = read_prompt(text)
    claims = [Claim("entity", group.shape) for group in prompt.groups]
    claims += [Claim("color", g.shape, color=g.color, count=g.count) for g in prompt.groups if g.color]
    claims += [Claim("count", group.shape, count=group.count) for group in prompt.groups if group.count > 1]
    if prompt.relation:
        first, second = (group.shape for group in prompt.groups[:2])
        claims.append(Claim("relation", first, relation=prompt.relation, other=second))
    return claims


def _group(part: str) -> Group:
    found = _GROUP.fullmatch(part)
    if found is not None:
        count = _COUNTS[found["count"]]
        shape = (_SINGULAR if count == 1 else _PLURAL).get(found["noun"])
        if shape is not None:
            return Group(count, found["color"] or "", shape)
    raise ValueError(f"{part!r} names no shapes of the micro world")
