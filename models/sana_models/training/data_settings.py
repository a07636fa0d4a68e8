"""The `data` section of a text-to-image training configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sana_models.files import path_of
from sana_models.training.caption_choice import CaptionRule
from sana_models.training.image_text import Stage
from sana_models.training.reading import LARGEST_BATCH, LARGEST_SIDE, Section

__all__ = ["ImageDataSettings", "RenderedDataSettings"]

_STAGE_KEYS = {"until", "image_size", "batch_size"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedDataSettings:
    """`source` of any name but `images`: samples made by a function, encoded once, kept in memory.

    `cache` is a folder to keep them in for other runs; None removes them after training.
    """

    cached_samples: int = 65536
    max_length: int | None = None
    cache: Path | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises ValueError for an unknown key."""
        values = Section(data, "data", {"source", "cached_samples", "max_length", "cache"})
        return cls(
            cached_samples=values.integer("cached_samples", 65536),
            max_length=values.optional_integer("max_length"),
            cache=values.path("cache"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDataSettings:
    """`source: images`: folders, shards and tables of images; `stages` without entries is one at `image_size` throughout."""

    paths: tuple[Path, ...]
    stages: tuple[Stage, ...]
    rule: CaptionRule
    caption_suffixes: tuple[str, ...] = ()
    caption_keys: tuple[str, ...] = ()
    image_key: str | None = None
    minimum_score: float = 0.0
    use_buckets: bool = True
    max_bad_share: float = 0.01
    max_length: int | None = None
    instruction: str = "none"
    cache: Path | None = None
    workers: int | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], steps: int) -> Self:
        """`steps` is the length of the training; raises ValueError on unknown, missing or ill-fitting values."""
        keys = {"source", "paths", "image_size", "stages", "caption_suffixes", "caption_rule"}
        keys |= {"caption_temperature", "caption_threshold", "minimum_score", "buckets", "max_bad_share"}
        keys |= {
            "caption_keys",
            "caption_weights",
            "image_key",
            "max_length",
            "instruction",
            "cache",
            "workers",
        }
        values = Section(data, "data", keys)
        if not data.get("paths"):
            raise ValueError("data.paths is missing: a list of folders")
        paths = values.paths("paths")
        _refuse_twice(paths)
        return cls(
            paths=paths,
            stages=_stages(data, values, steps),
            rule=CaptionRule(
                rule=values.text("caption_rule", "softmax"),
                temperature=values.number("caption_temperature", 0.1, low=0),
                threshold=values.number("caption_threshold", 25.0),
                weights=_weights(data),
            ),
            caption_suffixes=_suffixes(values),
            caption_keys=values.texts("caption_keys"),
            image_key=None if data.get("image_key") is None else values.text("image_key"),
            minimum_score=values.number("minimum_score", 0.0),
            use_buckets=values.flag("buckets", True),
            max_bad_share=values.number("max_bad_share", 0.01, low=0, high=1),
            max_length=values.optional_integer("max_length"),
            instruction=values.text("instruction", "none", choices=("none", "sana")),
            cache=values.path("cache"),
            workers=None if data.get("workers") is None else values.integer("workers", low=0),
        )


def _refuse_twice(paths: Sequence[Path]) -> None:
    """Raise ValueError where the images of one path are those of another as well, and so would be seen twice as often."""
    real = [path_of(path) for path in paths]
    for number, path in enumerate(real):
        for other in range(len(real)):
            if other != number and path.is_relative_to(real[other]):
                raise ValueError(
                    f"data.paths: what is in {paths[number]} is named twice, by {paths[other]} too"
                )


def _suffixes(values: Section) -> tuple[str, ...]:
    suffixes = values.texts("caption_suffixes")
    for suffix in suffixes:
        # It stands between a name and its ending.
        if "/" in suffix or "\0" in suffix or len(suffix.encode()) > 100:
            raise ValueError(f"data.caption_suffixes: {suffix!r:.80} is no part of a file's name")
    return suffixes


def _stages(data: Mapping[str, Any], values: Section, steps: int) -> tuple[Stage, ...]:
    listed = data.get("stages")
    if listed is None:
        if "image_size" not in data:
            raise ValueError("data.image_size or data.stages is missing")
        return (Stage(until=steps, image_size=values.integer("image_size", high=LARGEST_SIDE)),)
    if "image_size" in data:
        raise ValueError("data.image_size and data.stages cannot both be given")
    if not isinstance(listed, list) or not listed or not all(isinstance(entry, Mapping) for entry in listed):
        raise ValueError("data.stages is not a list of mappings")
    stages: list[Stage] = []
    for number, entry in enumerate(listed):
        stage = Section(entry, f"data.stages[{number}]", _STAGE_KEYS)
        last = number + 1 == len(listed)
        until = (
            stage.integer("until", max(steps, stages[-1].until + 1 if stages else 1))
            if last
            else stage.integer("until")
        )
        if stages and until <= stages[-1].until:
            raise ValueError(f"data.stages[{number}].until is {until}; 'until' must be rising")
        stages.append(
            Stage(
                until=until,
                image_size=stage.integer("image_size", high=LARGEST_SIDE),
                batch_size=stage.optional_integer("batch_size", high=LARGEST_BATCH),
            )
        )
    return tuple(stages)


def _weights(data: Mapping[str, Any]) -> dict[str, float]:
    listed = data.get("caption_weights") or {}
    values = Section(listed, "data.caption_weights", {str(kind) for kind in listed})
    return {str(kind): values.number(kind, low=0) for kind in listed}
