"""Scoring: every metric over verified images, doing only what the store does not have yet.

Images are given to metrics in fixed chunks, as they are to the generator in fixed batches: a chunk that
misses anything is computed whole, so that a number does not depend on where an earlier run stopped.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sana_bench import metrics
from sana_bench.core import atomic
from sana_bench.core.errors import BenchError
from sana_bench.core.fingerprint import fingerprint, sha256_bytes, short
from sana_bench.core.registry import METRICS, SET_METRICS
from sana_bench.core.samples import Prompt, Sample
from sana_bench.metrics.base import (
    FeatureMetric,
    JoinsImages,
    Metric,
    ScoreRow,
    SummarisesRows,
    Summary,
    metric_key,
    with_task_counts,
)
from sana_bench.results.reader import SampleResult, feature_rows, paired_scores, whole_groups
from sana_bench.results.schema import ScoreRecord
from sana_bench.results.store import Store
from sana_bench.runner.engines.base import Engine
from sana_bench.runner.workshop import ScoreChunk, Work
from sana_bench.suites.plan import CellPlan
from sana_models.files import read_bytes

__all__ = ["Scorer", "concerns"]

_CHUNK = 64


@dataclass(frozen=True)
class _Job:
    """A chunk for a metric: to score, unless `known`, or for the features of the rows in `wanted`, by the images' SHA-256."""

    metric: Metric | FeatureMetric
    key: str
    work: Work
    chunk: Sequence[SampleResult]
    known: Set[tuple[str, str]] = frozenset()
    wanted: Mapping[str, int] = field(default_factory=dict)


class Scorer:
    """Scores cells of one run; every chunk is durable before the next starts."""

    def __init__(
        self,
        store: Store,
        run_directory: Path,
        session_id: int,
        seed: int,
        advance: Callable[[int], None],
        engine: Engine,
    ) -> None:
        self._store = store
        self._engine = engine
        self._run_directory = run_directory
        self._session_id = session_id
        self._seed = seed
        self._advance = advance
        # Images that a metric saw of a cell whose rows were not asked for yet.
        self._told: Counter[tuple[str, str]] = Counter()

    def score(self, plan: CellPlan, metric: Metric | FeatureMetric) -> list[Summary]:
        """Score the images of a cell that concern a metric and return its summaries; an empty list when there are none.

        Of a metric that joins images, those whose group lacks one are left out.
        Raises `BenchError` when the metric does not give a row for an image.
        """
        rows = self.rows(plan, metric)
        asked = [sample for sample in plan.cell.samples if concerns(metric.name, sample.prompt)]
        items = _scorable(plan, metric)
        if not items:
            return []
        if isinstance(metric, FeatureMetric) and not (
            len(rows) == len(items) and isinstance(metric, SummarisesRows)
        ):
            samples = [item.sample for item in items]
            chunks = self._feature_chunks(metric, items)
            summaries = metric.summarise_features(samples, chunks, len(asked), self._seed)
        else:
            summaries = metric.summarise(rows, len(asked), self._seed)
        return with_task_counts(summaries, Counter(sample.prompt.tag for sample in asked))

    def rows(self, plan: CellPlan, metric: Metric | FeatureMetric) -> list[ScoreRow]:
        """Score the images of a plan and return a row for each that has a score; raises as `score` does."""
        self.look(plan, [metric])
        key, items = metric_key(metric), _scorable(plan, metric)
        if isinstance(metric, FeatureMetric):
            self._score_features(metric, key, items)
        self._advance(len(plan.done) - self._told.pop((plan.cell.label, key), 0))
        return self._rows(key, items)

    def look(self, plan: CellPlan, looking: Sequence[Metric | FeatureMetric]) -> None:
        """Give metrics the images of a plan that they lack, a chunk to all of them and then the next, so that each is read once.

        Where many workers share the work, one metric comes after the other: none of them sees all chunks of an image.
        Raises `BenchError` when a metric does not give a row, or features, for an image.
        """
        if self._engine.at_once and len(looking) > 1:
            for metric in looking:
                self.look(plan, [metric])
            return
        jobs, features = list[_Job](), set[str]()
        for metric in looking:
            key = metric_key(metric)
            self._store.put_metric(key, metric.name, metric.protocol, metrics.identity(metric))
            items = _scorable(plan, metric)
            if not isinstance(metric, FeatureMetric):
                jobs += self._lacking_rows(metric, key, items)
            elif metric.feature_key not in features:
                features.add(metric.feature_key)
                jobs += self._lacking_features(metric, key, items)
        jobs.sort(key=lambda job: job.chunk[0].sample.place)
        units = (_unit(job.key, job.work, job.chunk, number) for number, job in enumerate(jobs))
        share = max(map(_gpu_share, looking), default=1.0)
        for unit, found, worker in self._engine.scores(units, share):
            job = jobs[unit.number]
            if isinstance(job.metric, FeatureMetric):
                self._keep_features(job.metric, job, np.asarray(found))
            else:
                self._put_rows(job.metric.name, job.key, job.chunk, list(found), job.known, worker)
            self._advance(len(job.chunk))
            self._told[plan.cell.label, job.key] += len(job.chunk)

    def _rows(self, key: str, items: Sequence[SampleResult]) -> list[ScoreRow]:
        stored = paired_scores(self._store, key, items)
        return [
            ScoreRow(item.sample.id, item.prompt.id, item.prompt.tag, record.value, record.details)
            for item in items
            if (record := stored.get(item.sample.place)) is not None
        ]

    def _lacking_rows(self, metric: Metric, key: str, items: Sequence[SampleResult]) -> "list[_Job]":
        """Every chunk that lacks a score."""
        scored = self._scored(key, items)
        return [
            _Job(metric, key, "score", chunk, known=scored)
            for chunk in _chunks(items)
            if any(item.score_key not in scored for item in chunk)
        ]

    def _score_features(self, metric: FeatureMetric, key: str, items: Sequence[SampleResult]) -> None:
        """Compute and store the scores, from stored features, of every chunk that lacks one."""
        if metric.name in SET_METRICS:  # they have no score for an image
            return
        scored = self._scored(key, items)
        lacking = [chunk for chunk in _chunks(items) if any(item.score_key not in scored for item in chunk)]
        units = (
            _unit(key, "score_features", chunk, number, self._load_features(metric.feature_key, chunk))
            for number, chunk in enumerate(lacking)
        )
        for unit, found, worker in self._engine.scores(units, _gpu_share(metric)):
            # One of a plug-in may have none either.
            if rows := list(found):
                self._put_rows(metric.name, key, lacking[unit.number], rows, scored, worker)

    def _scored(self, key: str, items: Sequence[SampleResult]) -> set[tuple[str, str]]:
        return set(self._store.scores(key, (str(item.image.sha256) for item in items)))

    def _put_rows(
        self,
        name: str,
        key: str,
        chunk: Sequence[SampleResult],
        rows: Sequence[ScoreRow],
        scored: Set[tuple[str, str]],
        worker: str,
    ) -> None:
        if [row.sample_id for row in rows] != [item.sample.id for item in chunk]:
            raise BenchError(
                f"metric {name!r} gave {len(rows)} rows for {len(chunk)} images, or in another order"
            )
        records = [
            ScoreRecord(*item.score_key, float(row.value), _plain(row.details), worker)
            for item, row in zip(chunk, rows, strict=True)
            if item.score_key not in scored
        ]
        self._store.put_scores(key, records, self._session_id)

    def _lacking_features(
        self, metric: FeatureMetric, key: str, items: Sequence[SampleResult]
    ) -> "list[_Job]":
        """Every chunk with images whose feature vectors are missing, or were in a damaged file."""
        known = self._store.features(metric.feature_key, (str(item.image.sha256) for item in items))
        for path in sorted({row.path for row in known.values()}):
            if not self._chunk_is_intact(path):
                self._store.forget_chunk(path)
                known = {sha256: row for sha256, row in known.items() if row.path != path}
        # An image that is in two chunks counts for the first.
        jobs, have = list[_Job](), set(known)
        for chunk in _chunks(items):
            rows = {str(item.image.sha256): row for row, item in enumerate(chunk)}
            if wanted := {sha256: row for sha256, row in rows.items() if sha256 not in have}:
                jobs.append(_Job(metric, key, "features", chunk, wanted=wanted))
                have.update(wanted)
        return jobs

    def _keep_features(self, metric: FeatureMetric, job: "_Job", features: np.ndarray) -> None:
        if features.ndim != 2 or len(features) != len(job.chunk) or not np.isfinite(features).all():
            shown = f"features of shape {features.shape} for {len(job.chunk)} images"
            raise BenchError(f"metric {metric.name!r} gave {shown}, or values that are not finite")
        self._write_chunk(metric.feature_key, list(job.wanted), features[list(job.wanted.values())])

    def _write_chunk(self, feature_key: str, image_sha256s: list[str], features: np.ndarray) -> None:
        name = f"{short(fingerprint([feature_key, image_sha256s]))}.npz"
        path = self._run_directory / "features" / short(fingerprint(feature_key)) / name
        buffer = io.BytesIO()
        np.savez(buffer, features=features, image_sha256=np.array(image_sha256s))
        content = buffer.getvalue()
        atomic.write_bytes(path, content)
        relative = path.relative_to(self._store.output).as_posix()
        self._store.put_features(feature_key, relative, sha256_bytes(content), image_sha256s)

    def _chunk_is_intact(self, path: str) -> bool:
        try:
            content = read_bytes(self._store.output / path)
        except OSError:
            return False
        return sha256_bytes(content) == self._store.chunk_sha256(path)

    def _load_features(self, feature_key: str, items: Sequence[SampleResult]) -> np.ndarray:
        wanted = [str(item.image.sha256) for item in items]
        return feature_rows(self._store.output, self._store.features(feature_key, wanted), wanted)

    def _feature_chunks(
        self, metric: FeatureMetric, items: Sequence[SampleResult]
    ) -> Iterator[tuple[list[Sample], np.ndarray]]:
        for chunk in _chunks(items):
            yield [item.sample for item in chunk], self._load_features(metric.feature_key, chunk)


def concerns(metric: str, prompt: Prompt) -> bool:
    """Whether images of a prompt are scored by a metric; a function of one's own scores all."""
    return metric not in METRICS or METRICS.entry(metric).concerns(prompt.metadata)


def _scorable(plan: CellPlan, metric: Metric | FeatureMetric) -> list[SampleResult]:
    """The images of a plan that concern a metric, by place; of one that joins images, those whose group is whole."""
    items = sorted(
        (one for one in plan.done if concerns(metric.name, one.prompt)), key=lambda one: one.sample.place
    )
    if isinstance(metric, JoinsImages) and metric.joins > 1 and plan.cell.benchmark.images_per_prompt > 1:
        return whole_groups(items, metric.joins)
    return items


def _gpu_share(metric: Metric | FeatureMetric) -> float:
    return METRICS.entry(metric.name).gpu_share if metric.name in METRICS else 1.0


def _unit(
    key: str,
    work: Work,
    chunk: Sequence[SampleResult],
    number: int,
    features: np.ndarray | None = None,
) -> ScoreChunk:
    return ScoreChunk(key, work, tuple(item.sample for item in chunk), number, features)


def _chunks(items: Sequence[SampleResult]) -> Iterator[Sequence[SampleResult]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


def _plain(details: dict[str, Any]) -> dict[str, Any]:
    """Return `details` with NumPy scalars and arrays as plain numbers and lists."""
    return {name: _plain_value(value) for name, value in details.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return _plain(value)
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return value
