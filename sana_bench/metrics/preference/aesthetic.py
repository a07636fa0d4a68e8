"""LAION's aesthetic predictor: how much people would like an image whatever it shows, from CLIP's image features.

The published head has five linear layers and nothing between them, so that all of it is one product and a constant.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.assets.checks import DAMAGED
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import file_sha256
from sana_bench.core.samples import Sample
from sana_bench.metrics.base import MetricAssets
from sana_bench.metrics.clip.features import OpenClipFeatures
from sana_bench.metrics.clip.metric import FeatureScore
from sana_bench.suites.schema import MetricSpec
from sana_models.files import plain

__all__ = ["PROTOCOLS", "Aesthetic", "build_aesthetic", "read_head"]

PROTOCOLS = ("aesthetic/laion@1",)
_FILES = ("aesthetic_head", "clip_vit_l_14")
#: The places of the linear layers in the published sequence, whose other members do nothing when a model is used.
_LAYERS = (0, 2, 4, 6, 7)


class Aesthetic(FeatureScore[OpenClipFeatures]):
    """Points of about 1 to 10, the prompt unseen."""

    name = "aesthetic"
    unit = "points"

    def __init__(self, protocol: str, head: Path, features: OpenClipFeatures) -> None:
        super().__init__(protocol, features)
        self._head = head

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"head_sha256": file_sha256(self._head)}

    @cached_property
    def _product(self) -> tuple[NDArray[np.float64], float]:
        return read_head(self._head)

    def values(self, samples: Sequence[Sample], features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raises `AssetError` for a damaged head."""
        weight, constant = self._product
        # Row by row: a product of matrices rounds differently for different numbers of rows.
        points: NDArray[np.float64] = np.sum(features * weight, axis=1)
        return points + constant


def read_head(path: Path) -> tuple[NDArray[np.float64], float]:
    """The head as one weight (d,) and a constant, float64; raises `AssetError` unless the file holds its five layers."""
    import torch

    try:
        state = torch.load(plain(path), map_location="cpu", weights_only=True)
        layers = [(state[f"layers.{n}.weight"], state[f"layers.{n}.bias"]) for n in _LAYERS]
        if len(state) != 2 * len(_LAYERS):
            raise ValueError(f"{len(state)} tensors, expected {2 * len(_LAYERS)}")
        weight, constant = np.eye(layers[0][0].shape[1]), np.zeros(layers[0][0].shape[1])
        for matrix, bias in layers:
            weight = matrix.double().numpy() @ weight
            constant = matrix.double().numpy() @ constant + bias.double().numpy()
        (row,) = weight
        return row, float(constant[0])
    except DAMAGED as error:
        reason = str(error).strip().partition("\n")[0]
        raise AssetError(f"{path}: not the head of LAION's aesthetic predictor ({reason})") from None


def build_aesthetic(tier: str, assets: MetricAssets, choice: MetricSpec) -> Aesthetic:
    """The aesthetic predictor, which the full tier alone has.

    Raises:
        SuiteError: the micro tier, another protocol, or parameters, of which it has none.
        AssetError: a file is missing.
    """
    from sana_bench.assets.required import required

    choice.needs_full_tier(tier)
    choice.parameters_among({})
    protocol = choice.pick(PROTOCOLS)
    head, clip = required(choice.name, _FILES)
    return Aesthetic(protocol, head, OpenClipFeatures(clip, "png", assets.device))
