"""The rows of the result store; its tables are made in `sana_bench.results.migrations`."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["SCHEMA_VERSION", "Chunk", "FeatureRow", "ImageRow", "Look", "ScoreRecord", "SummaryRecord"]

SCHEMA_VERSION = 6


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image as the store holds it, finished or failed; `path` is relative to the output folder, `seconds` are per image.

    `search` is the cost of the search that the image and its followers were chosen in; None where there was none. `worker` is the
    key of who made it, None where that is not known. The store fills in `made_by`, the run that made the image, and `created`
    when it is read.
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
    worker: str | None = field(default=None, compare=False)
    made_by: str = field(default="", compare=False)
    created: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ScoreRecord:
    """One score as the store holds it: by the content of the image and of the prompt, whatever run asked for them.

    `worker` is as that of an image.
    """

    image_sha256: str
    prompt_sha256: str
    value: float
    details: dict[str, Any]
    worker: str | None = field(default=None, compare=False)


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
    """One number as the store holds it: a metric's `Summary` with the cell of the run that it belongs to."""

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


@dataclass(frozen=True)
class Look:
    """What one look of a sequence found; see `sana_bench.results.statistics.sequential`.

    The sequence of a pair is of `variant` minus `against`; without `against` it is of the variant's own score, until the
    interval is at most `width` wide. `n_images` are of each variant, out of `n_expected`. `low` and `high` hold the truth at all
    looks together with a chance of 1 - `error`. `tasks` has for each task its `prompts`, its `value` and, of a pair, `p_value`,
    corrected over the tasks and valid at any look.
    """

    sequence_key: str
    look: int
    benchmark: str
    metric: str
    metric_key: str
    variant: str
    against: str | None
    effect: float | None
    width: float | None
    error: float
    n_prompts: int
    n_images: int
    n_expected: int
    value: float
    low: float
    high: float
    verdict: str
    tasks: dict[str, dict[str, Any]]
