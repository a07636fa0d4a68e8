"""The types that flow from images to summaries, shared by benchmarks, metrics and the runner."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sana_bench import metrics
from sana_bench.core.cut_texts import CutTexts
from sana_bench.core.errors import AssetError, IncompleteError
from sana_bench.core.fingerprint import HashCache, fingerprint
from sana_bench.core.samples import OVERALL, Sample
from sana_bench.judges.base import Judge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sana_bench.results.statistics.intervals import Interval

__all__ = [
    "AsksJudge",
    "MetricAssets",
    "interval_summary",
    "mean_summary",
    "metric_key",
    "missing_micro_weights",
    "tag_summaries",
    "with_task_counts",
    "word_share",
]


@dataclass(frozen=True)
class MetricAssets:
    """Folders for metrics: `weights_dir` has one per network, `cache_dir` appears when first written to.

    `device` is where the full tier's networks run; the micro tier's always run on the CPU. `hashes` remembers the hashes of
    files that have not changed. `judges` holds those that metrics share, by what they are made of.
    """

    weights_dir: Path
    cache_dir: Path
    device: str = "cpu"
    hashes: HashCache | None = None
    judges: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)


def missing_micro_weights(folder: Path, metric: str, config: str) -> AssetError:
    """The error to raise for a network of the micro tier that is not there: one line with the command that makes it."""
    return AssetError(
        f"metric {metric!r} on the micro tier: {folder} is missing, these weights are not shipped; "
        f"train them with `sana-bench train {config}` and ship them with `python scripts/ship_micro_judges.py`"
    )


@dataclass(frozen=True)
class ScoreRow:
    """One metric's verdict on one sample. `details` holds only what JSON can hold."""

    sample_id: str
    prompt_id: str
    tag: str
    value: float
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """One aggregate number as a metric gives it: with its interval, sample counts and protocol.

    `key` is `overall` or a task tag; `n_samples < n_expected` means the number covers too little.
    """

    metric: str
    protocol: str
    key: str
    value: float
    low: float
    high: float
    n_samples: int
    n_expected: int
    n_prompts: int
    unit: str
    higher_is_better: bool
    note: str = ""

    @property
    def complete(self) -> bool:
        return self.n_samples == self.n_expected


@runtime_checkable
class SummarisesRows(Protocol):
    """Rows to summaries. A `FeatureMetric` that has it is summarised from its stored rows, with no text encoded again."""

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """Aggregates of `rows`, the overall number first; deterministic in `rows` (any order) and `seed`."""
        ...


class Metric(SummarisesRows, Protocol):
    """Images and prompts to rows, rows to summaries. Rows are a pure function of image and prompt."""

    name: str
    protocol: str
    higher_is_better: bool

    def identity(self) -> dict[str, Any]:
        """Everything that can change a score: protocol, settings, weight hashes. JSON-able."""
        ...

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample, in order; raises `ImageError` for a missing or damaged image."""
        ...


@runtime_checkable
class AsksJudge(Protocol):
    """A metric that scores by what its `judge` says."""

    judge: Judge


@runtime_checkable
class CutsTexts(Protocol):
    """A metric whose text encoder takes a limited number of tokens."""

    def cut_texts(self, samples: Sequence[Sample]) -> list[CutTexts]:
        """How many of the distinct texts of these samples the network is given without their end."""
        ...


@runtime_checkable
class JoinsImages(Protocol):
    """A metric that joins `joins` images of a prompt; `score` is given them one after the other.

    Its identity says `joins` where that is more than 1. A prompt with one image has a file that is joined already.
    """

    joins: int


FeatureChunk = tuple[list[Sample], "NDArray[np.float32]"]


@runtime_checkable
class FeatureMetric(Protocol):
    """A metric computed from per-image feature vectors, which metrics of one `feature_key` share."""

    name: str
    protocol: str
    higher_is_better: bool

    @property
    def feature_key(self) -> str:
        """Name under which stored feature vectors may be reused; weight hashes included."""
        ...

    def identity(self) -> dict[str, Any]: ...

    def features(self, samples: Sequence[Sample]) -> "NDArray[np.float32]":
        """Feature vectors, shape (len(samples), d)."""
        ...

    def score_features(self, samples: Sequence[Sample], features: "NDArray[np.float32]") -> list[ScoreRow]:
        """Rows from stored features; empty for a metric that has no per-image value."""
        ...

    def summarise_features(
        self,
        samples: Sequence[Sample],
        feature_chunks: Iterable[FeatureChunk],
        n_expected: int,
        seed: int,
    ) -> list[Summary]:
        """Aggregates over chunks that together hold each of `samples` exactly once, in any order."""
        ...


def check_rows(metric: str, rows: Sequence[ScoreRow], n_expected: int) -> None:
    """Raise `IncompleteError` for no rows, a repeated or surplus sample, or a value that is not finite."""
    check_ids(metric, [row.sample_id for row in rows], n_expected)
    for row in rows:
        if not isfinite(row.value):
            raise IncompleteError(f"{metric}: sample {row.sample_id} has the value {row.value}")


def check_ids(metric: str, sample_ids: Sequence[str], n_expected: int) -> None:
    """Raise `IncompleteError` for no samples, a repeated one, or more than expected."""
    if not sample_ids:
        raise IncompleteError(f"{metric}: no scored samples to summarise")
    repeated = [sample_id for sample_id, count in Counter(sample_ids).items() if count > 1]
    if repeated:
        raise IncompleteError(
            f"{metric}: sample {repeated[0]} was scored {sample_ids.count(repeated[0])} times"
        )
    if len(sample_ids) > n_expected:
        raise IncompleteError(
            f"{metric}: {len(sample_ids)} samples were scored where {n_expected} were expected"
        )


class _Named(Protocol):
    name: str
    protocol: str
    higher_is_better: bool


def mean_summary(
    metric: _Named,
    rows: Sequence[ScoreRow],
    n_expected: int,
    seed: int,
    *,
    unit: str,
    key: str = OVERALL,
    note: str = "",
    share: bool = False,
    pass_rate: bool = False,
) -> Summary:
    """The mean of all rows with its 95 % interval, prompts being what varies: for most metrics all that they need.

    Of a `share`, whose values lie between 0 and 1, the interval has a width also where all are 0, or all 1. Of a `pass_rate`, a
    share whose values are 0 and 1, the number is the unweighted mean of the rates of the tasks (the tags of the rows).

    Raises:
        IncompleteError: as `check_rows`.
    """
    from sana_bench.results.statistics.intervals import clustered_bootstrap, clustered_proportion

    check_rows(metric.name, rows, n_expected)
    values, prompts = [row.value for row in rows], [row.prompt_id for row in rows]
    if pass_rate:
        interval = clustered_proportion(values, prompts, [row.tag for row in rows], seed=seed)
    elif share:
        interval = clustered_proportion(values, prompts, seed=seed)
    else:
        interval = clustered_bootstrap(values, prompts, seed=seed)
    return interval_summary(metric, interval, rows, n_expected, unit=unit, key=key, note=note)


def interval_summary(
    metric: _Named,
    interval: "Interval",
    rows: Sequence[ScoreRow],
    n_expected: int,
    *,
    unit: str,
    key: str = OVERALL,
    note: str = "",
) -> Summary:
    """A number that was computed from `rows`, with its interval."""
    return Summary(
        metric=metric.name,
        protocol=metric.protocol,
        key=key,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        n_samples=len(rows),
        n_expected=n_expected,
        n_prompts=len({row.prompt_id for row in rows}),
        unit=unit,
        higher_is_better=metric.higher_is_better,
        note=note,
    )


def word_share(
    metric: _Named,
    rows: Sequence[ScoreRow],
    n_expected: int,
    seed: int,
    *,
    key: str = OVERALL,
) -> Summary:
    """The share of all words asked for that were read, by the details `matched` and `words` of the rows.

    Each word is read or not, and those of a prompt go together.
    """
    from sana_bench.results.statistics.intervals import clustered_proportion

    outcomes: list[float] = []
    prompts: list[str] = []
    for row in rows:
        matched, words = row.details["matched"], row.details["words"]
        outcomes += [1.0] * matched + [0.0] * (words - matched)
        prompts += [row.prompt_id] * words
    interval = clustered_proportion(outcomes, prompts, seed=seed)
    note = f"{len(outcomes):,} words or characters"
    return interval_summary(metric, interval, rows, n_expected, unit="fraction", key=key, note=note)


def tag_summaries(
    metric: _Named, rows: Sequence[ScoreRow], n_expected: int, seed: int, *, unit: str, share: bool = False
) -> list[Summary]:
    """The mean of each task's rows, as `mean_summary`, tasks in the order of their samples.

    How the missing samples of an incomplete set spread over tasks is not known here: every task counts all of them as its own
    until the caller, who knows the prompts, puts in what was asked for (`with_task_counts`).
    """
    n_missing = n_expected - len(rows)
    groups: dict[str, list[ScoreRow]] = {}
    for row in sorted(rows, key=lambda row: row.sample_id):
        groups.setdefault(row.tag, []).append(row)
    return [
        mean_summary(metric, group, len(group) + n_missing, seed, unit=unit, key=tag, share=share)
        for tag, group in groups.items()
    ]


def metric_key(metric: Metric | FeatureMetric) -> str:
    """Return the identity of a metric's scores: everything that the metric declares as changing them."""
    return fingerprint(
        {"name": metric.name, "protocol": metric.protocol, "identity": metrics.identity(metric)}
    )


def with_task_counts(summaries: Iterable[Summary], expected: Mapping[str, int]) -> list[Summary]:
    """Summaries that say how many images were asked for of the task that they are about.

    `expected` counts images by prompt tag. A metric is told the sum alone, and cannot know which task lacks some. The
    overall number keeps that sum, and a key that is no tag what the metric made of it.
    """
    return [
        replace(summary, n_expected=expected[summary.key])
        if summary.key != OVERALL and summary.key in expected
        else summary
        for summary in summaries
    ]
