"""Captions of a training image: from its own text and JSON files, a line or row of a table, and further files of captions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sana_models.files import parse_json, read_text
from sana_models.training.caption_choice import DEFAULT_CAPTION

__all__ = ["MOST_TEXT_BYTES", "CaptionReader", "Captions"]

#: A caption file of more is taken for something else.
MOST_TEXT_BYTES = 1 << 20
#: Where a caption stands when no keys are given: the first of these that is there.
_KEYS = ("prompt", "caption", "captions", "text")


@dataclass(frozen=True, slots=True)
class Captions:
    """Texts, CLIP scores and weights of one image by caption type; the latter two may be of fewer types."""

    texts: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def __or__(self, other: "Captions") -> "Captions":
        """Both together; of a type that both have, the other's."""
        return Captions(
            {**self.texts, **other.texts},
            {**self.scores, **other.scores},
            {**self.weights, **other.weights},
        )


@dataclass(frozen=True, slots=True)
class CaptionReader:
    """Finds captions: `suffixes` name further files beside images and shards, `keys` the places in JSON and tables.

    With `keys` each of them that is there is a type of its own; without, the first usual one is the image's prompt.
    """

    suffixes: Sequence[str] = ()
    keys: Sequence[str] = ()

    def of_text(self, text: str) -> Captions:
        """The whole text as the image's prompt."""
        return Captions({DEFAULT_CAPTION: text})

    def of_facts(self, facts: Any) -> Captions:
        """Captions in a JSON object or a table's row.

        Each is a text, a list of texts or of `{"text": ..., "weight": ...}`, or texts by type. Several without weights weigh
        the same. Raises ValueError for anything else.
        """
        if not isinstance(facts, Mapping):
            raise ValueError("its captions are not in a JSON object")
        usual = [key for key in _KEYS if facts.get(key) is not None][:1]
        places = [(key, key) for key in self.keys] or [(key, DEFAULT_CAPTION) for key in usual]
        texts: dict[str, str] = {}
        weights: dict[str, float] = {}
        for key, kind in places:
            for name, text, weight in _entries(kind, facts.get(key)):
                texts[name] = text
                if weight is not None:
                    weights[name] = weight
        if len(texts) > 1:
            weights = {name: weights.get(name, 1.0) for name in texts}
        return Captions(texts, {}, weights)

    def beside(self, stem: Path, key: str) -> Captions:
        """Captions and scores of one image in its further files, `STEM<SUFFIX>.json` and `STEM<SUFFIX>_clip_score.json`."""
        found = self.of_shard(stem)
        texts, scores = found[0].get(key, {}), found[1].get(key, {})
        return Captions({str(kind): str(text) for kind, text in texts.items()}, scores)

    def of_shard(self, stem: Path) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, float]]]:
        """Captions and scores by key and type in the further files of a shard."""
        captions: dict[str, dict[str, str]] = {}
        scores: dict[str, dict[str, float]] = {}
        for suffix in dict.fromkeys([*self.suffixes, "_prompt"]):
            for key, texts in _optional(stem.with_name(f"{stem.name}{suffix}.json")).items():
                captions.setdefault(key, {}).update(texts)
            for key, numbers in _optional(stem.with_name(f"{stem.name}{suffix}_clip_score.json")).items():
                told = {str(kind): float(number) for kind, number in numbers.items()}
                # A caption whose score is not finite has none.
                known = {kind: number for kind, number in told.items() if math.isfinite(number)}
                scores.setdefault(key, {}).update(known)
        return captions, scores


def _entries(kind: str, value: Any) -> list[tuple[str, str, float | None]]:
    """Type, text and weight of each caption that a value holds."""
    if value is None:
        return []
    if isinstance(value, str):
        return [(kind, value, None)]
    if isinstance(value, Mapping) and "text" not in value:
        return [(str(name), *_weighed(item)) for name, item in value.items()]
    items = value if isinstance(value, list | tuple) else [value]
    return [(f"{kind}.{n}" if n else kind, *_weighed(item)) for n, item in enumerate(items)]


def _weighed(item: Any) -> tuple[str, float | None]:
    text, weight = (item.get("text"), item.get("weight")) if isinstance(item, Mapping) else (item, None)
    if not isinstance(text, str):
        raise ValueError(f"caption {text!r} is no text")
    if weight is None:
        return text, None
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise ValueError(f"caption weight {weight!r} is no number from 0 on")
    return text, float(weight)


def _optional(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    data = parse_json(read_text(path))
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} is not an object")
    return data
