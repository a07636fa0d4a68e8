"""The `data` section of a text-to-image training configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sana_models.training.caption_choice import CaptionRule
from sana_models.training.image_text import Stage

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
        _check(data, {"source", "cached_samples", "max_length", "cache"})
        length = data.get("max_length")
        return cls(
            cached_samples=int(data.get("cached_samples", 65536)),
            max_length=None if length is None else int(length),
            cache=_path(data.get("cache")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDataSettings:
    """`source: images`: folders of images or tar shards; `stages` without entries is one at `image_size` throughout."""

    paths: tuple[Path, ...]
    stages: tuple[Stage, ...]
    rule: CaptionRule
    caption_suffixes: tuple[str, ...] = ()
    minimum_score: float = 0.0
    use_buckets: bool = True
    max_bad_share: float = 0.01
    max_length: int | None = None
    instruction: str = "none"
    cache: Path | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], steps: int) -> Self:
        """`steps` is the length of the training; raises ValueError on unknown, missing or ill-fitting values."""
        keys = {"source", "paths", "image_size", "stages", "caption_suffixes", "caption_rule"}
        keys |= {"caption_temperature", "caption_threshold", "minimum_score", "buckets", "max_bad_share"}
        _check(data, keys | {"max_length", "instruction", "cache"})
        paths = data.get("paths")
        if not isinstance(paths, list) or not paths:
            raise ValueError("data.paths is missing: a list of folders")
        instruction = str(data.get("instruction", "none"))
        if instruction not in ("none", "sana"):
            raise ValueError(f"data.instruction is {instruction!r}; allowed: 'none', 'sana'")
        length = data.get("max_length")
        return cls(
            paths=tuple(Path(str(path)) for path in paths),
            stages=_stages(data, steps),
            rule=CaptionRule(
                rule=str(data.get("caption_rule", "softmax")),
                temperature=float(data.get("caption_temperature", 0.1)),
                threshold=float(data.get("caption_threshold", 25.0)),
            ),
            caption_suffixes=tuple(str(suffix) for suffix in data.get("caption_suffixes", ())),
            minimum_score=float(data.get("minimum_score", 0.0)),
            use_buckets=bool(data.get("buckets", True)),
            max_bad_share=float(data.get("max_bad_share", 0.01)),
            max_length=None if length is None else int(length),
            instruction=instruction,
            cache=_path(data.get("cache")),
        )


def _stages(data: Mapping[str, Any], steps: int) -> tuple[Stage, ...]:
    listed = data.get("stages")
    if listed is None:
        if "image_size" not in data:
            raise ValueError("data.image_size or data.stages is missing")
        return (Stage(until=steps, image_size=int(data["image_size"])),)
    if "image_size" in data:
        raise ValueError("data.image_size and data.stages cannot both be given")
    if not isinstance(listed, list) or not all(isinstance(entry, Mapping) for entry in listed):
        raise ValueError("data.stages is not a list of mappings")
    for entry in listed:
        _check(entry, _STAGE_KEYS, "data.stages.")
    return tuple(
        Stage(
            until=int(entry.get("until", steps)),
            image_size=int(entry["image_size"]),
            batch_size=None if entry.get("batch_size") is None else int(entry["batch_size"]),
        )
        for entry in listed
    )


def _check(data: Mapping[str, Any], allowed: set[str], prefix: str = "data.") -> None:
    unknown = sorted(set(data) - allowed)
    if unknown:
        raise ValueError(f"unknown key '{prefix}{unknown[0]}'; allowed: {', '.join(sorted(allowed))}")
    if prefix != "data." and "image_size" not in data:
        raise ValueError(f"{prefix}image_size is missing")


def _path(value: Any) -> Path | None:
    return None if value is None else Path(str(value))
