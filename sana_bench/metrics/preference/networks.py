"""Image and text features of the networks that were trained on people's choices; see `OpenClipFeatures`."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.fingerprint import file_sha256
from sana_bench.core.preprocess import clip_pixels, fitted_pixels
from sana_bench.metrics.clip.features import OpenClipFeatures, load_open_clip

if TYPE_CHECKING:
    from torch import nn

    from sana_bench.metrics.preference.pick_network import ClipTokens, PickNetwork

__all__ = ["HpsFeatures", "PickFeatures"]


class HpsFeatures(OpenClipFeatures):
    """HPS v2 and v2.1 (Wu et al. 2023, arXiv 2306.09341): open_clip's ViT-H/14, which sees the whole image on black."""

    def __init__(
        self, weights: Path, device: str = "cpu", *, antialias: bool, model: str = "ViT-H-14"
    ) -> None:
        super().__init__(weights, "png", device, model)
        self._antialias = antialias

    @property
    def key(self) -> str:
        return f"{self._model}/{self._resize}/{self.weights_sha256}"

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"resize": self._resize}

    @cached_property
    def network(self) -> "nn.Module":
        return load_open_clip(self._weights, self._model, quick_gelu=False).to(self._device)

    def pixels(self, image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        return fitted_pixels(image, side, antialias=self._antialias)

    @property
    def _resize(self) -> str:
        return f"longer side, {'antialiased' if self._antialias else 'aliased'}"


class PickFeatures(OpenClipFeatures):
    """PickScore's, from `model.safetensors`, `config.json` and the `tokenizer.json` of the CLIP that it was trained from."""

    def __init__(self, weights: Path, config: Path, tokenizer: Path, device: str = "cpu") -> None:
        super().__init__(weights, "png", device, "PickScore_v1")
        self._config, self._tokens = config, tokenizer

    def identity(self) -> dict[str, Any]:
        return super().identity() | {
            "config_sha256": file_sha256(self._config),
            "tokenizer_sha256": file_sha256(self._tokens),
        }

    @cached_property
    def network(self) -> "PickNetwork":
        from sana_bench.metrics.preference.pick_network import load_pick_network

        return load_pick_network(self._weights, self._config).to(self._device)

    @property
    def side(self) -> int:
        return self.network.side

    def pixels(self, image: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
        # transformers' processor of 2023 rounds the crop's corner down.
        return clip_pixels(image, side, math.floor)

    @property
    def logit_scale(self) -> float:
        """What the network multiplied cosines by where it was trained."""
        return float(self.network.clip.logit_scale.detach().exp())

    @cached_property
    def _tokenizer(self) -> "ClipTokens":
        from sana_bench.metrics.preference.pick_network import ClipTokens

        return ClipTokens(self._tokens, self.network.text_limit)

    def cut(self, texts: Sequence[str]) -> list[bool]:
        return self._tokenizer.cut(texts)
