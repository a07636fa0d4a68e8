"""Reconstruction training of DC-AE."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sana_models.dc_ae import DCAE
from sana_models.training.distributed import local_rows
from sana_models.training.meter import Extra

__all__ = ["AutoencoderTask", "Source", "images_to_tensor", "latent_statistics"]

#: (seed, index, n) -> n uint8 images (n, H, W, 3) and their captions, the same for the same arguments.
Source = Callable[[int, int, int], tuple[np.ndarray, list[str]]]


def images_to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (n, H, W, 3) to channels-last fp32 (n, 3, H, W) in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return pixels.float().div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)


class AutoencoderTask:
    """L1 plus squared error.

    `latent_noise` (relative to each channel's spread) makes the decoder forgive a sampler's small errors. `detail_weight`
    raises the share of pixels that differ from their 5x5 surroundings: most of an image is flat, its meaning sits in the edges.
    """

    def __init__(
        self, model: DCAE, source: Source, *, seed: int, latent_noise: float = 0.0, detail_weight: float = 0.0
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.modules: dict[str, nn.Module] = {"autoencoder": self.model}
        self.source = source
        self.seed = seed
        self.latent_noise = latent_noise
        self.detail_weight = detail_weight

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        return [{"params": list(self.model.parameters()), "lr": learning_rate}]

    def loss(self, step: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Extra]:
        rows = local_rows(batch_size)
        device = next(self.model.parameters()).device
        images = images_to_tensor(self.source(self.seed, step, batch_size)[0][rows]).to(device)
        latents = self.model.encode(images)
        spread = latents.detach().float().std(dim=(0, 2, 3), keepdim=True)
        noise = torch.randn((batch_size, *latents.shape[1:]), generator=generator)[rows].to(device)
        decoded = self.model.decode(latents + self.latent_noise * spread * noise).float()
        error = (decoded - images).abs()
        psnr_db = float(10 * torch.log10(4.0 / error.detach().square().mean()))
        weighted = self._weight(images) * (error + error.square())
        return weighted.mean(), {"psnr_db": round(psnr_db, 3)}

    def _weight(self, images: Tensor) -> Tensor:
        surroundings = F.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
        contrast = (images - surroundings).abs().mean(1, keepdim=True)
        return 1 + self.detail_weight * contrast / contrast.mean().clamp_min(1e-6)


@torch.no_grad()
def latent_statistics(
    model: DCAE, source: Source, *, seed: int, count: int
) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of raw latents over `count` images, in float64."""
    total = torch.zeros(model.config.latent_channels, dtype=torch.float64)
    squares, positions = torch.zeros_like(total), 0
    for index in range(-(-count // 64)):
        images = images_to_tensor(source(seed, index, 64)[0]).to(next(model.parameters()).device)
        latents = model.encode(images).cpu().double()
        total += latents.sum(dim=(0, 2, 3))
        squares += latents.square().sum(dim=(0, 2, 3))
        positions += latents.numel() // latents.shape[1]
    mean = total / positions
    return mean.tolist(), (squares / positions - mean.square()).sqrt().tolist()
