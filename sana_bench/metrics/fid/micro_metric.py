"""Fréchet distance over CLIP image features, against scenes that show the benchmark's prompts exactly."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sana_bench.assets.reference_set import is_statistics
from sana_bench.core.errors import IncompleteError, SuiteError
from sana_bench.core.samples import OVERALL, Sample
from sana_bench.metrics.base import FeatureChunk, MetricAssets, Summary, check_ids
from sana_bench.metrics.clip.micro_features import ClipFeatures
from sana_bench.metrics.fid import OWN
from sana_bench.metrics.fid.frechet import Moments, distance_between, merge_moments
from sana_bench.metrics.fid.metric import SetDistance
from sana_bench.metrics.fid.micro_reference import Reference
from sana_bench.results.statistics.intervals import Interval, delete_one_group, jackknife_interval
from sana_bench.suites.schema import NAMED_REFERENCES, MetricSpec

if TYPE_CHECKING:
    from sana_bench.metrics.fid.metric import InceptionFid
    from sana_bench.metrics.fid.own_reference import FolderMoments, StatisticsReference

# Twenty groups keep the t quantile within 7 % of the normal one and the cost at twenty small eigenproblems.
_JACKKNIFE_GROUPS = 20


class FrechetClip(SetDistance[ClipFeatures, "Reference | FolderMoments | StatisticsReference"]):
    """Distance between the Gaussian fitted to generated images and that of the reference. Lower is better."""

    name = "fid"

    def summarise_features(
        self,
        samples: Sequence[Sample],
        feature_chunks: Iterable[FeatureChunk],
        n_expected: int,
        seed: int,
    ) -> list[Summary]:
        """One summary. The interval is a delete-a-group jackknife over prompts, reference held fixed; `seed`
        is unused.

        Raises:
            IncompleteError: fewer than two images, or features that do not cover `samples` exactly once.
        """
        check_ids(self.name, [sample.id for sample in samples], n_expected)
        if len(samples) < 2:
            raise IncompleteError(f"{self.name}: a covariance needs at least 2 images, got {len(samples)}")
        interval, n_prompts = self._interval(_by_prompt(self.name, samples, feature_chunks))
        return [
            Summary(
                metric=self.name,
                protocol=self.protocol,
                key=OVERALL,
                value=interval.value,
                low=interval.low,
                high=interval.high,
                n_samples=len(samples),
                n_expected=n_expected,
                n_prompts=n_prompts,
                unit="",
                higher_is_better=self.higher_is_better,
                note=f"against {self._reference.label()}; falls as n grows, so compare equal n",
            )
        ]

    def _interval(self, by_prompt: list[Moments]) -> tuple[Interval, int]:
        reference = self._reference.moments()
        n_groups = min(_JACKKNIFE_GROUPS, len(by_prompt))
        groups = [merge_moments(by_prompt[first::n_groups]) for first in range(n_groups)]
        value = distance_between(merge_moments(groups), reference)

        def without(kept: list[int]) -> float:
            return distance_between(merge_moments(groups[index] for index in kept), reference)

        if n_groups < 2 or sum(group.n for group in groups) - max(group.n for group in groups) < 2:
            return jackknife_interval(value, []), len(by_prompt)
        interval = jackknife_interval(value, delete_one_group(n_groups, without))
        return Interval(value, max(interval.low, 0.0), interval.high), len(by_prompt)


def _by_prompt(
    metric: str, samples: Sequence[Sample], feature_chunks: Iterable[FeatureChunk]
) -> list[Moments]:
    """Moments of each prompt's images, ordered by task and prompt so that groups dealt from them are
    balanced.

    Images of a prompt are put in order first: the result does not depend on how features were chunked.
    """
    rows: dict[tuple[str, str], list[tuple[int, NDArray[np.float32]]]] = {}
    seen: set[str] = set()
    for chunk, features in feature_chunks:
        for sample, feature in zip(chunk, features, strict=True):
            rows.setdefault((sample.prompt.tag, sample.prompt.id), []).append((sample.index, feature))
            if sample.id in seen:
                raise IncompleteError(f"{metric}: sample {sample.id} has features twice")
            seen.add(sample.id)
    if seen != {sample.id for sample in samples}:
        raise IncompleteError(f"{metric}: features cover {len(seen)} of {len(samples)} samples")
    return [
        Moments.of(np.stack([feature for _, feature in sorted(images, key=lambda image: image[0])]))
        for _, images in sorted(rows.items())
    ]


def _own_reference(
    features: ClipFeatures, choice: MetricSpec, assets: MetricAssets
) -> "FolderMoments | StatisticsReference":
    from sana_bench.metrics.fid.own_reference import FolderMoments, StatisticsReference

    if choice.reference in NAMED_REFERENCES:
        raise SuiteError(f"metric 'fid': {choice.reference} is a reference of the full tier; use --tier full")
    path = Path(str(choice.reference))
    if is_statistics(path):
        return StatisticsReference(features, path, features.dimensions, assets.cache_dir)
    return FolderMoments(features, path, assets.cache_dir, assets.hashes)


def build_fid(tier: str, assets: MetricAssets, choice: MetricSpec) -> "FrechetClip | InceptionFid":
    """The Fréchet distance of `tier`; raises `AssetError` where weights or reference data are missing."""
    if tier == "micro":
        choice.parameters_among({})
        protocol = choice.pick(("fid/clip-micro@1",))
        features = ClipFeatures(assets.weights_dir / "clip")
        if choice.reference is not None:
            return FrechetClip(f"{protocol}{OWN}", features, _own_reference(features, choice, assets))
        return FrechetClip(protocol, features, Reference(features, assets.cache_dir))
    from sana_bench.metrics.fid.metric import InceptionFid, build_inception_distance

    fid = build_inception_distance(assets, choice)
    assert isinstance(fid, InceptionFid)
    return fid
