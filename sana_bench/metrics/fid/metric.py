"""Distances between sets of the full tier, and measures beside them: features of images against those of MJHQ-30K."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sana_bench.assets.reference_set import is_statistics
from sana_bench.core.errors import IncompleteError, SuiteError
from sana_bench.core.samples import OVERALL, Sample
from sana_bench.metrics.base import FeatureChunk, MetricAssets, ScoreRow, Summary, check_ids
from sana_bench.metrics.fid import OWN
from sana_bench.metrics.fid.features import CHAINS, IMAGE_SIZES, InceptionFeatures
from sana_bench.metrics.fid.frechet import (
    BIASED_BELOW,
    FrechetTo,
    at_infinity,
    bootstrap_interval,
    grouped_moments,
)
from sana_bench.metrics.fid.kernel import jackknifed_kid, kernel_distance
from sana_bench.metrics.fid.measures import MEASURES
from sana_bench.metrics.fid.reference import InceptionReference
from sana_bench.results.statistics.intervals import Interval, jackknife_interval
from sana_bench.suites.schema import NAMED_REFERENCES, MetricSpec

if TYPE_CHECKING:
    from sana_bench.metrics.fid.own_reference import FolderReference, StatisticsReference

__all__ = [
    "AT_INFINITY",
    "DinoFrechet",
    "InceptionFid",
    "InceptionKid",
    "NoReference",
    "SetDistance",
    "SetMeasure",
    "build_inception_distance",
    "build_measure",
    "dealt_groups",
]


class _Identified(Protocol):
    def identity(self) -> Mapping[str, Any]: ...


class _Features(_Identified, Protocol):
    @property
    def key(self) -> str: ...

    def of_samples(self, samples: Sequence[Sample]) -> NDArray[np.float32]: ...


F = TypeVar("F", bound=_Features)


R = TypeVar("R", bound=_Identified)


class SetDistance(Generic[F, R]):
    """Features of the images, and the reference that they are held against; see `FeatureMetric`. Lower is better."""

    name: str
    higher_is_better = False

    def __init__(self, protocol: str, features: F, reference: R) -> None:
        self.protocol = protocol
        self._features = features
        self._reference = reference

    @property
    def feature_key(self) -> str:
        return self._features.key

    def identity(self) -> dict[str, Any]:
        return {
            "metric": self.name,
            "protocol": self.protocol,
            **self._features.identity(),
            "reference": self._reference.identity(),
        }

    def features(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        return self._features.of_samples(samples)

    def score_features(self, samples: Sequence[Sample], features: NDArray[np.float32]) -> list[ScoreRow]:
        """Always empty: a distance between sets has no per-image value."""
        return []


AT_INFINITY = "at_infinity"


_GROUPS = 20


_DRAWS, _CATEGORY_DRAWS = 50, 20


_SMALLEST_SUBSET = 5000


class _InceptionDistance(
    SetDistance[InceptionFeatures, "InceptionReference | StatisticsReference | NoReference"], ABC
):
    """What all share: the walk over all images and each category. `least` is how many images a set needs."""

    unit: str
    least = 2

    def summarise_features(
        self, samples: Sequence[Sample], feature_chunks: Iterable[FeatureChunk], n_expected: int, seed: int
    ) -> list[Summary]:
        """All images against the whole reference, then each category of it against its own part.

        A category's distance is of fewer images and so larger; the overall number is never made from them.

        Raises:
            IncompleteError: fewer than two images, or features that do not cover `samples` exactly once.
        """
        check_ids(self.name, [sample.id for sample in samples], n_expected)
        if len(samples) < self.least:
            raise IncompleteError(f"{self.name}: at least {self.least} images are needed, got {len(samples)}")
        ordered, rows = _in_order(self.name, samples, feature_chunks)
        summaries = self._overall(ordered, rows, n_expected, seed)
        n_missing = n_expected - len(ordered)
        for tag in sorted({sample.prompt.tag for sample in ordered} & self._reference.categories):
            chosen = [place for place, sample in enumerate(ordered) if sample.prompt.tag == tag]
            if len(chosen) >= self.least:
                part = [ordered[place] for place in chosen]
                summary = self._of_set(tag, part, rows[chosen], len(part) + n_missing, seed)
                summaries.append(summary)
        return summaries

    def _overall(
        self, samples: list[Sample], rows: NDArray[np.float32], n_expected: int, seed: int
    ) -> list[Summary]:
        return [self._of_set(OVERALL, samples, rows, n_expected, seed)]

    def _of_set(
        self, key: str, samples: list[Sample], rows: NDArray[np.float32], n_expected: int, seed: int
    ) -> Summary:
        groups = dealt_groups([sample.prompt.id for sample in samples])
        interval = self._interval(key, rows, groups, seed)
        return self._summary(
            key,
            interval,
            samples,
            n_expected,
            f"{len(rows)} against {self._reference.label(key)}{self._warning(rows)}",
        )

    @abstractmethod
    def _interval(
        self, key: str, rows: NDArray[np.float32], groups: list[NDArray[np.intp]], seed: int
    ) -> Interval:
        """The distance of a set with its interval."""

    @abstractmethod
    def _warning(self, rows: NDArray[np.float32]) -> str:
        """What a reader must know of the number, or nothing."""

    def _summary(
        self, key: str, interval: Interval, samples: list[Sample], n_expected: int, note: str
    ) -> Summary:
        return Summary(
            metric=self.name, protocol=self.protocol, key=key, value=interval.value, low=interval.low,
            high=interval.high, n_samples=len(samples), n_expected=n_expected,
            n_prompts=len({sample.prompt.id for sample in samples}), unit=self.unit,
            higher_is_better=self.higher_is_better, note=note,
        )  # fmt: skip


class InceptionFid(_InceptionDistance):
    """Fréchet distance; with 10,000 images or more also what it would be at infinitely many."""

    name = "fid"
    unit = ""

    def _overall(
        self, samples: list[Sample], rows: NDArray[np.float32], n_expected: int, seed: int
    ) -> list[Summary]:
        summaries = [self._of_set(OVERALL, samples, rows, n_expected, seed)]
        if len(rows) >= 2 * _SMALLEST_SUBSET:
            value = at_infinity(rows, self._reference.distance_to(), seed=seed, smallest=_SMALLEST_SUBSET)
            note = f"line in 1/n through {_SMALLEST_SUBSET} to {len(rows)} images; another number than FID"
            extrapolated = Interval(value, np.nan, np.nan)
            summaries.append(self._summary(AT_INFINITY, extrapolated, samples, n_expected, note))
        return summaries

    def _interval(
        self, key: str, rows: NDArray[np.float32], groups: list[NDArray[np.intp]], seed: int
    ) -> Interval:
        moments, distance = grouped_moments(
            [rows[group] for group in groups], self._reference.distance_to(key)
        )
        draws = _DRAWS if key == OVERALL else _CATEGORY_DRAWS
        return bootstrap_interval(moments, distance, seed=seed, n_draws=draws)

    def _warning(self, rows: NDArray[np.float32]) -> str:
        if len(rows) >= BIASED_BELOW:
            return ""
        return f"; biased upwards below {BIASED_BELOW:,} images: compare only with the same number of images"


class InceptionKid(_InceptionDistance):
    """Kernel distance, times 1,000; unbiased, so small sets and categories can be read."""

    name = "kid"
    unit = "x 1000"

    def _interval(
        self, key: str, rows: NDArray[np.float32], groups: list[NDArray[np.intp]], seed: int
    ) -> Interval:
        reference = self._reference.features(key)
        value = kernel_distance(rows, reference, seed=seed)
        interval = jackknifed_kid(value, [rows[group] for group in groups], reference)
        return Interval(1000 * value, 1000 * interval.low, 1000 * interval.high)

    def _warning(self, rows: NDArray[np.float32]) -> str:
        return ""


class DinoFrechet(InceptionFid):
    """Fréchet distance of DINOv2's features (Stein et al. 2023, arXiv 2306.04675)."""

    name = "fd_dinov2"


class SetMeasure(_InceptionDistance):
    """A measure by name; its interval is the jackknife of twenty groups of prompts, the reference held fixed."""

    def __init__(
        self,
        name: str,
        protocol: str,
        features: InceptionFeatures,
        reference: "InceptionReference | StatisticsReference | NoReference",
    ) -> None:
        super().__init__(protocol, features, reference)
        self.name = name
        self._measure = MEASURES[name]
        self.unit, self.higher_is_better = self._measure.unit, self._measure.higher_is_better
        self.least = self._measure.least

    def _interval(
        self, key: str, rows: NDArray[np.float32], groups: list[NDArray[np.intp]], seed: int
    ) -> Interval:
        value, left_out = self._measure.compute(
            [rows[group] for group in groups], self._reference.features(key)
        )
        interval = jackknife_interval(value, left_out)
        return Interval(value, max(interval.low, 0.0), interval.high)

    def _warning(self, rows: NDArray[np.float32]) -> str:
        return "; changes with the number of images: compare equal numbers"


class NoReference:
    """What a set is held against that is measured by itself."""

    categories: frozenset[str] = frozenset()

    def identity(self) -> dict[str, Any]:
        return {"data": "none"}

    def label(self, category: str = OVERALL) -> str:
        """How notes call it."""
        return "one another"

    def features(self, category: str = OVERALL) -> NDArray[np.float32]:
        """No rows."""
        return np.zeros((0, 0), np.float32)

    def distance_to(self, category: str = OVERALL) -> FrechetTo:
        """Raises `ValueError`: there is nothing to have a distance to."""
        raise ValueError("a set that is measured by itself has no distance")


def build_measure(tier: str, assets: MetricAssets, choice: MetricSpec) -> _InceptionDistance:
    """A distance or measure that the full tier alone has; raises as `build_inception_distance` does."""
    choice.needs_full_tier(tier)
    return build_inception_distance(assets, choice)


def build_inception_distance(assets: MetricAssets, choice: MetricSpec) -> _InceptionDistance:
    """A distance or measure of the full tier, by name.

    Raises:
        SuiteError: an unknown protocol or parameter, or one out of range.
        AssetError: weights or MJHQ-30K are missing or damaged, or the stored reference statistics are of something else.
    """
    from sana_bench.assets.required import required

    protocol = choice.pick([name for name in CHAINS if name.startswith(f"{choice.name}/")])
    parameters = choice.parameters_among(CHAINS[protocol].parameters, {"image_size": IMAGE_SIZES})
    own = None if choice.reference in (None, *NAMED_REFERENCES) else Path(str(choice.reference))
    measure = MEASURES.get(choice.name)
    referenced = measure is None or measure.referenced
    if own is not None and not referenced:
        raise SuiteError(f"metric {choice.name!r} holds images against no others; leave reference out")
    if (measure is not None or choice.name == "kid") and own is not None and is_statistics(own):
        raise SuiteError(f"{own}: a mean and a covariance; {choice.name} needs a folder of reference images")
    needed = (CHAINS[protocol].weights, *(("mjhq30k_images",) if own is None and referenced else ()))
    weights, *data = required(choice.name, needed)
    features = InceptionFeatures(protocol, weights, parameters, assets.device)
    kind = partial(SetMeasure, choice.name) if measure is not None else _KINDS[choice.name]
    if not referenced:
        return kind(protocol, features, NoReference())
    if own is None:
        published = InceptionReference(features, data[0], assets.cache_dir, assets.hashes)
        published.check()
        return kind(protocol, features, published)
    return kind(f"{protocol}{OWN}", features, _own_reference(features, own, assets))


_KINDS: Mapping[str, Callable[..., _InceptionDistance]] = {
    "fid": InceptionFid, "kid": InceptionKid, "fd_dinov2": DinoFrechet,
}  # fmt: skip


def _own_reference(
    features: InceptionFeatures, path: Path, assets: MetricAssets
) -> "FolderReference | StatisticsReference":
    from sana_bench.metrics.fid.own_reference import FolderReference, StatisticsReference

    if not is_statistics(path):
        reference = FolderReference(features, path, assets.cache_dir, assets.hashes)
        reference.check()
        return reference
    return StatisticsReference(features, path, features.chain.width, assets.cache_dir)


def dealt_groups(prompts: Sequence[str]) -> list[NDArray[np.intp]]:
    """Places of up to 20 groups; prompts, in order, are dealt to them in turn and stay whole."""
    turn = {prompt: place % _GROUPS for place, prompt in enumerate(dict.fromkeys(prompts))}
    groups = np.array([turn[prompt] for prompt in prompts])
    return [np.flatnonzero(groups == group) for group in range(min(_GROUPS, len(turn)))]


def _in_order(
    metric: str, samples: Sequence[Sample], feature_chunks: Iterable[FeatureChunk]
) -> tuple[list[Sample], NDArray[np.float32]]:
    """Samples by task, prompt and index with their features: however these were chunked, the sums are the same."""
    ordered = sorted(samples, key=lambda sample: (sample.prompt.tag, sample.prompt.id, sample.index))
    place = {sample.id: position for position, sample in enumerate(ordered)}
    rows: NDArray[np.float32] | None = None
    seen: set[str] = set()
    for chunk, features in feature_chunks:
        if rows is None:
            rows = np.empty((len(ordered), features.shape[1]), np.float32)
        for sample, feature in zip(chunk, features, strict=True):
            if sample.id in seen or sample.id not in place:
                raise IncompleteError(f"{metric}: sample {sample.id} has features twice or was not asked for")
            rows[place[sample.id]] = feature
            seen.add(sample.id)
    if rows is None or len(seen) != len(ordered):
        raise IncompleteError(f"{metric}: features cover {len(seen)} of {len(samples)} samples")
    return ordered, rows
