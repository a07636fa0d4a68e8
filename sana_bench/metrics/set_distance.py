"""What every distance between sets of images has in common."""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from sana_bench.metrics.base import Sample, ScoreRow

__all__ = ["SetDistance"]


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
