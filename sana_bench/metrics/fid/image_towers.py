"""DINOv2 and CLIP's image tower for distances between sets: one vector an image."""

from pathlib import Path

import torch
from torch import Tensor, nn

from sana_bench.assets.checks import DAMAGED, check_fit
from sana_bench.core.errors import AssetError
from sana_bench.metrics.clip.features import load_open_clip
from sana_models.layers import with_our_products
from sana_models.libraries import without_torchao

with without_torchao():
    from transformers import Dinov2Model

__all__ = ["ClipTower", "Dinov2Tower", "load_clip_tower", "load_dinov2"]

CLIP_MODEL = "ViT-L-14-336-quickgelu"


class Dinov2Tower(nn.Module):
    """DINOv2's class token after the last normalisation."""

    def __init__(self, network: Dinov2Model) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, d) of pixels (n, 3, side, side)."""
        found: Tensor = self.network(pixels).pooler_output
        return found


class ClipTower(nn.Module):
    """CLIP's projected image feature, not of unit length."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.visual = network.get_submodule("visual")

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, d) of pixels (n, 3, side, side)."""
        found: Tensor = self.visual(pixels)
        return found


def load_clip_tower(weights: Path, model: str = CLIP_MODEL) -> ClipTower:
    """The image tower of open_clip's network in float32; raises `AssetError` as `load_open_clip` does."""
    return ClipTower(load_open_clip(weights, model))


def load_dinov2(weights: Path) -> Dinov2Tower:
    """DINOv2 of `model.safetensors` and the `config.json` beside it, in float32, evaluation mode.

    Raises `AssetError` where one is missing or they do not fit.
    """
    try:
        # The library gives the published names those that its classes have today.
        network, info = Dinov2Model.from_pretrained(
            weights.parent,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except DAMAGED as error:
        reason = str(error).strip().partition("\n")[0]
        raise AssetError(f"{weights}: not the weights and configuration of DINOv2 ({reason})") from None
    check_fit(weights, "DINOv2", info)
    return Dinov2Tower(with_our_products(network.eval()))
