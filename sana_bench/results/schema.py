"""The rows of the result store; its tables are made in `sana_bench.results.migrations`."""

from dataclasses import dataclass
from typing import Any

__all__ = ["SCHEMA_VERSION", "Chunk", "FeatureRow", "ImageRow", "ScoreRecord", "SummaryRecord"]

SCHEMA_VERSION = 4


@dataclass(frozen=True)
class ImageRow:
    """One image of an image key; `path` is relative to the output folder, `seconds` are per image.

    `search` is the cost of the search that the image and its followers were chosen in; None where there was none.
    """

    prompt_id: str
    index: int
    prompt_sha256: str
    status: str
    path: str | None
    sha256: str | None
    length: int | None
    seconds: float | None
    batch_size: int | None
    device: str | None
    error: str | None = None
    search: dict[str, float] | None = None


@dataclass(frozen=True)
class ScoreRecord:
    """One score of one image under one prompt."""

    image_sha256: str
    prompt_sha256: str
    value: float
    details: dict[str, Any]


@dataclass(frozen=True)
class FeatureRow:
    """Where a feature vector is: row `row` of the chunk file at `path`, relative to the output folder."""

    path: str
    row: int


@dataclass(frozen=True)
class Chunk:
    """A file of feature vectors, and in which row the vector of an image (by SHA-256) is."""

    path: str
    sha256: str
    feature_key: str
    rows: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class SummaryRecord:
    """One number of one variant in a run, with its interval and its counts."""

    variant: str
    benchmark: str
    metric: str
    key: str
    metric_key: str
    image_key: str
    protocol: str
    value: float
    low: float | None
    high: float | None
    n_samples: int
    n_expected: int
    n_prompts: int
    unit: str
    higher_is_better: bool
    note: str
    complete: bool
