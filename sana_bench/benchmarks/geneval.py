"""GenEval: six tasks of object-focused prompts, judged by a detector (Ghosh et al., 2023)."""

import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Any

from sana_bench.core.errors import AssetError
from sana_bench.core.samples import Prompt
from sana_bench.core.tiers import unknown_tier
from sana_bench.metrics.geneval.classes import CLASSES
from sana_bench.metrics.geneval.decision import PALETTE
from sana_models.files import parse_json

if TYPE_CHECKING:
    import numpy as np

__all__ = ["GenEval", "draw_metadata", "official_metadata"]

Record = dict[str, Any]

OFFICIAL_SEED = 43


OFFICIAL_DRAWS = 100


OFFICIAL_SHA256 = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"

_NUMBERS = ("zero", "one", "two", "three", "four")


_RELATIONS = ("left of", "right of", "above", "below")


@cache
def _official_lines() -> tuple[str, ...]:
    lines = tuple(json.dumps(record) for record in draw_metadata(OFFICIAL_SEED, OFFICIAL_DRAWS))
    digest = hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    if digest != OFFICIAL_SHA256:
        from numpy import __version__

        hashes = f"sha256 {digest} differs from the published {OFFICIAL_SHA256}"
        raise AssetError(f"GenEval's prompts cannot be drawn again with numpy {__version__}: {hashes}")
    return lines


def official_metadata() -> list[Record]:
    """The 553 official records in file order; raises `AssetError` when numpy's random stream has changed."""
    return [parse_json(line) for line in _official_lines()]


def draw_metadata(seed: int, n_draws: int) -> list[Record]:
    """A prompt set by GenEval's rules: each class once, `n_draws` of each other task, no duplicates."""
    import numpy as np

    rng = np.random.default_rng(seed)
    records = [
        _record("single_object", [_clause(CLASSES[index])], _with_article(CLASSES[index]))
        for index in rng.choice(len(CLASSES), size=len(CLASSES), replace=False)
    ]
    for draw in (_two_objects, _counting, _colors, _position, _color_attr):
        records += [draw(rng) for _ in range(n_draws)]
    # A dict keeps the place of the first of equal records.
    return list({json.dumps(record): record for record in records}.values())


def _two_objects(rng: "np.random.Generator") -> Record:
    first, second = (CLASSES[index] for index in rng.choice(len(CLASSES), size=2, replace=False))
    text = f"{_with_article(first)} and {_with_article(second)}"
    return _record("two_object", [_clause(first), _clause(second)], text)


def _counting(rng: "np.random.Generator") -> Record:
    name = CLASSES[rng.choice(len(CLASSES))]
    count = int(rng.integers(2, 4, endpoint=True))
    text = f"{_NUMBERS[count]} {name}{'es' if name.endswith('s') else 's'}"
    return _record("counting", [_clause(name, count)], text, exclude=[_clause(name, count + 1)])


def _colors(rng: "np.random.Generator") -> Record:
    name = _class_but_person(int(rng.choice(len(CLASSES) - 1)))
    color = PALETTE[rng.choice(len(PALETTE))]
    return _record("colors", [_clause(name, color=color)], _with_article(f"{color} {name}"))


def _position(rng: "np.random.Generator") -> Record:
    subject, anchor = (CLASSES[index] for index in rng.choice(len(CLASSES), size=2, replace=False))
    relation = _RELATIONS[rng.choice(len(_RELATIONS))]
    include = [_clause(anchor), _clause(subject) | {"position": [relation, 0]}]
    return _record("position", include, f"{_with_article(subject)} {relation} {_with_article(anchor)}")


def _color_attr(rng: "np.random.Generator") -> Record:
    names = [_class_but_person(int(draw)) for draw in rng.choice(len(CLASSES) - 1, size=2, replace=False)]
    colors = [PALETTE[index] for index in rng.choice(len(PALETTE), size=2, replace=False)]
    include = [_clause(name, color=color) for name, color in zip(names, colors, strict=True)]
    text = " and ".join(_with_article(f"{color} {name}") for name, color in zip(names, colors, strict=True))
    return _record("color_attr", include, text)


def _class_but_person(draw: int) -> str:
    """The class for a draw from the 79 others, counted onwards from `person`."""
    return CLASSES[(draw + 1 + CLASSES.index("person")) % len(CLASSES)]


def _clause(name: str, count: int = 1, color: str | None = None) -> Record:
    return {"class": name, "count": count} | ({} if color is None else {"color": color})


def _record(tag: str, include: list[Record], text: str, exclude: list[Record] | None = None) -> Record:
    excluded = {} if exclude is None else {"exclude": exclude}
    return {"tag": tag, "include": include} | excluded | {"prompt": f"a photo of {text}"}


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


class GenEval:
    """GenEval's prompt set: the official 553 prompts, or the micro world's own in the same format."""

    name = "geneval"
    default_images_per_prompt = 4
    metric_names: tuple[str, ...] = ("geneval", "clip_score", "fid")

    def prompts(self, tier: str) -> list[Prompt]:
        """Prompts in file order; the id is the five-digit line number, as in the official folder layout."""
        return [
            Prompt(id=f"{line:05d}", text=record["prompt"], tag=record["tag"], metadata=record)
            for line, record in enumerate(self._metadata(tier))
        ]

    def _metadata(self, tier: str) -> list[dict[str, Any]]:
        if tier == "micro":
            from sana_bench.micro.evaluation_set import geneval_prompts

            return geneval_prompts()
        if tier == "full":
            return official_metadata()
        raise unknown_tier("geneval", tier)
