"""OneIG-Bench's diversity: how far apart the images of one prompt lie, as the mean DreamSim distance of their pairs."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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
from sana_bench.metrics.clip.micro_features import ClipFeatures
from sana_bench.metrics.oneig.picture import NOTE
from sana_bench.metrics.oneig.rules import pairwise_distance
from sana_bench.suites.schema import MetricSpec

__all__ = ["PAIRWISE", "PROTOCOLS", "DiversityMetric", "build_diversity", "by_prompt"]

PROTOCOLS = {"micro": ("oneig_diversity/micro@1",), "full": ("oneig_diversity/official@1",)}
#: What identities call the distance, by which comparisons know it.
PAIRWISE = "mean of 1 - cosine over the pairs of a prompt"


class Embeddings(Protocol):
    """Vectors of images whose directions are compared."""

    @property
    def key(self) -> str: ...

    def identity(self) -> dict[str, Any]: ...

    def of_samples(self, samples: Sequence[Sample]) -> NDArray[np.float32]: ...


class DiversityMetric:
    """A number for each prompt, from the embeddings of its images; single images have none."""

    name = "oneig_diversity"
    higher_is_better = True

    def __init__(self, protocol: str, embeddings: Embeddings) -> None:
        self.protocol = protocol
        self._embeddings = embeddings

    @property
    def feature_key(self) -> str:
        return self._embeddings.key

    def identity(self) -> dict[str, Any]:
        return {
            "metric": self.name,
            "protocol": self.protocol,
            "distance": PAIRWISE,
            "features": self.feature_key,
            **self._embeddings.identity(),
        }

    def features(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        return self._embeddings.of_samples(samples)

    def score_features(self, samples: Sequence[Sample], features: NDArray[np.float32]) -> list[ScoreRow]:
        return []

    def summarise_features(
        self,
        samples: Sequence[Sample],
        feature_chunks: Iterable[FeatureChunk],
        n_expected: int,
        seed: int,
    ) -> list[Summary]:
        """The mean of all prompts and of each category's, with 95 % intervals.

        Raises:
            IncompleteError: a prompt has one image alone, features are not of these samples, or as `check_ids`.
        """
        check_ids(self.name, [sample.id for sample in samples], n_expected)
        found = {
            sample.id: (sample, vector)
            for chunk, features in feature_chunks
            for sample, vector in zip(chunk, features, strict=True)
        }
        if found.keys() != {sample.id for sample in samples}:
            raise IncompleteError(f"{self.name}: features cover {len(found)} of {len(samples)} samples")
        ordered = [found[name] for name in sorted(found)]
        distances = by_prompt(
            [sample.prompt.id for sample, _ in ordered], np.stack([vector for _, vector in ordered])
        )
        # A prompt's number stands for each of its images, so that images are counted and prompts weigh alike.
        rows = [
            ScoreRow(sample.id, sample.prompt.id, sample.prompt.tag, distances[sample.prompt.id])
            for sample, _ in ordered
        ]
        overall = mean_summary(self, rows, n_expected, seed, unit="1 - cosine", note=NOTE)
        return [overall, *tag_summaries(self, rows, n_expected, seed, unit="1 - cosine")]


def by_prompt(prompts: Sequence[str], vectors: NDArray[np.floating[Any]]) -> dict[str, float]:
    """The mean pairwise distance of each prompt's vectors (n, d), whose prompts are named beside them.

    Raises `IncompleteError` for a prompt with one vector alone.
    """
    places: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        places.setdefault(prompt, []).append(place)
    single = next((prompt for prompt, found in places.items() if len(found) < 2), None)
    if single is not None:
        raise IncompleteError(f"{DiversityMetric.name}: prompt {single} has one image, and a pair takes two")
    return {prompt: pairwise_distance(vectors[found]) for prompt, found in places.items()}


def build_diversity(tier: str, assets: MetricAssets, choice: MetricSpec | None = None) -> DiversityMetric:
    """OneIG-Bench's diversity: by DreamSim's ensemble on the full tier, by the micro world's CLIP on the micro tier.

    Raises:
        SuiteError: the tier has no such protocol, or a parameter is set: the metric has none.
        AssetError: weights are missing; the message says where from.
    """
    choice = choice or MetricSpec(name=DiversityMetric.name)
    choice.parameters_among({})
    protocol = choice.pick(PROTOCOLS[tier])
    if tier == "micro":
        return DiversityMetric(protocol, ClipFeatures(assets.weights_dir / "clip"))
    from sana_bench.metrics.oneig.dreamsim import DreamSim, find_dreamsim

    return DiversityMetric(protocol, DreamSim(find_dreamsim(), assets.device))
