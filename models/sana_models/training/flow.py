"""Flow matching as SANA trains it: x_s = (1 - s) x0 + s noise, target velocity noise - x0 (SANA section 2.4)."""

import torch
from torch import Tensor

__all__ = ["flow_matching_pair", "sample_noise_levels", "shift_noise_levels"]


def shift_noise_levels(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels towards 1: s -> shift*s / (1 + (shift-1)*s)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sample_noise_levels(count: int, *, shift: float, generator: torch.Generator) -> Tensor:
    """Draw fp32 (count,) noise levels: logit-normal(0, 1) on the 1000-step grid, then shifted."""
    uniform = torch.sigmoid(torch.randn(count, generator=generator))
    return shift_noise_levels((1000 * uniform).floor() / 1000, shift)


def flow_matching_pair(latents: Tensor, sigma: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return the noisy latents (B, C, h, w) at levels `sigma` (B,) and the velocity target."""
    level = sigma[:, None, None, None]
    return (1 - level) * latents + level * noise, noise - latents
