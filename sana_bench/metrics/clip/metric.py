"""CLIP score: 100 times the cosine between image and prompt, averaged over images.

The scale is SANA's (the logit scale of OpenAI's weights is 100); it is never clipped at 0 and never
multiplied by 2.5 (Hessel et al. 2021 do both).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.cut_texts import CutTexts
from sana_bench.core.errors import IncompleteError
from sana_bench.core.samples import Sample
from sana_bench.metrics.base import (
    FeatureChunk,
    MetricAssets,
    ScoreRow,
    Summary,
    check_ids,
    mean_summary,
    tag_summaries,
)
from sana_bench.metrics.clip.features import OpenClipFeatures, full_prompt
from sana_bench.metrics.clip.micro_features import ClipFeatures
from sana_bench.suites.schema import MetricSpec

F = TypeVar("F", bound=ClipFeatures | OpenClipFeatures)


class FeatureScore(ABC, Generic[F]):
    """A number for each image, from features that are stored and shared; see `FeatureMetric`. Higher is better."""

    name: str
    unit: str
    higher_is_better = True

    def __init__(self, protocol: str, features: F) -> None:
        self.protocol = protocol
        self._features = features

    @property
    def feature_key(self) -> str:
        return self._features.key

    def identity(self) -> dict[str, Any]:
        return {"metric": self.name, "protocol": self.protocol, **self._features.identity()}

    def features(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        return self._features.of_samples(samples)

    def score(self, samples: Sequence[Sample]) -> list[ScoreRow]:
        """One row per sample, straight from the images."""
        return self.score_features(samples, self.features(samples))

    def score_features(self, samples: Sequence[Sample], features: NDArray[np.float32]) -> list[ScoreRow]:
        """One row per sample; products are taken in float64."""
        if len(samples) != len(features):
            raise ValueError(f"{len(samples)} samples with {len(features)} feature vectors")
        values = self.values(samples, np.asarray(features, dtype=np.float64)) if samples else ()
        return [
            ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, float(value))
            for sample, value in zip(samples, values, strict=True)
        ]

    @abstractmethod
    def values(self, samples: Sequence[Sample], features: NDArray[np.float64]) -> NDArray[np.float64]:
        """The numbers (n,) of images with features (n, d), each a function of its own row alone."""

    def summarise(self, rows: Sequence[ScoreRow], n_expected: int, seed: int) -> list[Summary]:
        """Mean over all images and over each task's, with 95 % bootstrap intervals clustered by prompt."""
        overall = mean_summary(self, rows, n_expected, seed, unit=self.unit)
        return [overall, *tag_summaries(self, rows, n_expected, seed, unit=self.unit)]

    def summarise_features(
        self,
        samples: Sequence[Sample],
        feature_chunks: Iterable[FeatureChunk],
        n_expected: int,
        seed: int,
    ) -> list[Summary]:
        check_ids(self.name, [sample.id for sample in samples], n_expected)
        rows = [row for chunk, features in feature_chunks for row in self.score_features(chunk, features)]
        if {row.sample_id for row in rows} != {sample.id for sample in samples}:
            raise IncompleteError(f"{self.name}: features cover {len(rows)} of {len(samples)} samples")
        return self.summarise(rows, n_expected, seed)


class ClipScore(FeatureScore[ClipFeatures | OpenClipFeatures]):
    """Per-image alignment with the prompt."""

    name = "clip_score"
    unit = "100 x cosine"

    @property
    def factor(self) -> float:
        """What the cosine of image and prompt is multiplied by."""
        return 100.0

    def cut_texts(self, samples: Sequence[Sample]) -> list[CutTexts]:
        """Prompts that CLIP reads without their end."""
        texts = sorted({full_prompt(sample) for sample in samples})
        return [CutTexts.count("CLIP", self._features.text_limit, self._features.cut(texts))]

    def values(self, samples: Sequence[Sample], features: NDArray[np.float64]) -> NDArray[np.float64]:
        texts = self._features.of_texts([full_prompt(sample) for sample in samples]).astype(np.float64)
        cosines: NDArray[np.float64] = np.sum(features * texts, axis=1)
        return self.factor * cosines


def build_clip_score(tier: str, assets: MetricAssets, choice: MetricSpec) -> ClipScore:
    """The CLIP score of `tier`; raises `AssetError` where weights are missing."""
    choice.parameters_among({})
    if tier == "micro":
        protocol = choice.pick(("clip_score/micro@1",))
        return ClipScore(protocol, ClipFeatures(assets.weights_dir / "clip"))
    from sana_bench.assets.required import required

    protocol = choice.pick(("clip_score/sana@1",))
    (weights,) = required("clip_score", ("clip_vit_l_14",))
    return ClipScore(protocol, OpenClipFeatures(weights, "jpeg", assets.device))
