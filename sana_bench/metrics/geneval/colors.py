"""The colour of a detected object, asked of CLIP as GenEval does.

Reference: `evaluate_images.py` of djghosh13/geneval: the object alone on grey, cropped to its box, against three phrases
a colour. OpenAI's weights were trained with QuickGELU; open_clip 2.32 and later gives them another activation under the name
`ViT-L-14`, which changes colours silently, so the activation is checked when the network is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import file_sha256
from sana_bench.metrics.clip.features import MODEL, image_side, load_open_clip
from sana_bench.metrics.geneval.decision import PALETTE
from sana_models.libraries import without_torchao

__all__ = ["MODEL", "TEMPLATES", "ColorClassifier", "ObjectCrop", "check_quick_gelu", "crop_object"]

BACKGROUND = 153  # "#999"
TEMPLATES = (
    "a photo of a {color} {name}",
    "a photo of a {color}-colored {name}",
    "a photo of a {color} object",
)


@dataclass(frozen=True)
class ObjectCrop:
    """An object to name the colour of: its class and its pixels on grey, uint8 RGB (h, w, 3)."""

    name: str
    pixels: NDArray[np.uint8]


class ColorClassifier:
    """open_clip's ViT-L/14 with OpenAI's weights; on CUDA under fp16 autocast, as in the reference."""

    def __init__(self, weights: Path, device: str = "cpu", batch_size: int = 64, model: str = MODEL) -> None:
        self._weights, self._device, self._batch_size, self._model = weights, device, batch_size, model
        self._phrases: dict[str, Tensor] = {}

    @cached_property
    def _sha256(self) -> str:
        return file_sha256(self._weights)

    def identity(self) -> dict[str, Any]:
        """What decides the colours."""
        precision = "fp16 autocast" if self._device.startswith("cuda") else "fp32"
        return {"network": self._model, "weights_sha256": self._sha256, "precision": precision}

    @cached_property
    def _network(self) -> tuple[Any, Any, Any]:
        with without_torchao():
            import open_clip

        model = load_open_clip(self._weights, self._model)
        check_quick_gelu(model, self._weights)
        preprocess = open_clip.image_transform(image_side(model), is_train=False)
        return model.to(self._device), preprocess, open_clip.get_tokenizer(self._model)

    @torch.inference_mode()
    def classify(self, crops: Sequence[ObjectCrop]) -> list[str]:
        """The palette colour of each crop; among equals the first of the palette."""
        if not crops:
            return []
        model, preprocess, _ = self._network
        colors: list[str] = []
        for start in range(0, len(crops), self._batch_size):
            part = crops[start : start + self._batch_size]
            pixels = torch.stack([preprocess(Image.fromarray(crop.pixels)) for crop in part])
            with self._autocast():
                features = model.encode_image(pixels.to(self._device))
            features = torch.nn.functional.normalize(features.float(), dim=-1)
            for crop, feature in zip(part, features, strict=True):
                logits = 100.0 * feature @ self._phrases_of(crop.name)
                colors.append(PALETTE[int(logits.argmax())])
        return colors

    def _phrases_of(self, name: str) -> Tensor:
        """Unit vectors (d, colours) of a class: the mean over templates of unit vectors, made a unit again."""
        if name not in self._phrases:
            model, _, tokenizer = self._network
            texts = [template.format(color=color, name=name) for color in PALETTE for template in TEMPLATES]
            with self._autocast():
                vectors = model.encode_text(tokenizer(texts).to(self._device))
            unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
            mean = unit.reshape(len(PALETTE), len(TEMPLATES), -1).mean(dim=1)
            self._phrases[name] = torch.nn.functional.normalize(mean, dim=-1).T
        return self._phrases[name]

    def _autocast(self) -> Any:
        kind = self._device.partition(":")[0]
        return torch.autocast(kind, dtype=torch.float16, enabled=kind == "cuda")


def crop_object(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], box: Sequence[float], name: str
) -> ObjectCrop:
    """Cut the object out of an RGB image (H, W, 3): what is outside its mask becomes grey 153."""
    x1, y1, x2, y2 = (round(edge) for edge in box)
    window = np.s_[y1:y2, x1:x2]
    return ObjectCrop(name, np.where(mask[window][..., None], image[window], np.uint8(BACKGROUND)))


def check_quick_gelu(model: torch.nn.Module, weights: Path) -> None:
    """Raise `AssetError` unless every feed-forward layer of both towers uses QuickGELU."""
    with without_torchao():
        from open_clip.transformer import QuickGELU

    activations = [module for name, module in model.named_modules() if name.endswith("mlp.gelu")]
    wrong = [module for module in activations if not isinstance(module, QuickGELU)]
    if wrong or not activations:
        found = type(wrong[0]).__name__ if wrong else "no"
        raise AssetError(f"{weights}: loaded with {found} activation, OpenAI's weights need QuickGELU")
