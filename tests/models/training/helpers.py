"""A small transformer with outputs of a spread near 1, and inputs for it."""

import math

import torch

from sana_models.config import QK_NORM, SanaConfig
from sana_models.transformer import SanaTransformer


def tiny_transformer(depth: int, *, seed: int = 0, qk_norm: str | None = QK_NORM) -> SanaTransformer:
    config = SanaConfig(
        num_layers=depth,
        num_attention_heads=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        caption_channels=12,
        in_channels=4,
        out_channels=4,
        sample_size=8,
        qk_norm=qk_norm,
    )
    model = SanaTransformer(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
            else:
                parameter.add_(0.2 * noise) if not name.endswith("bias") else parameter.copy_(0.2 * noise)
    return model.eval()


def inputs(batch: int = 2, *, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 4, 4, 4, generator=generator)
    return latents, torch.tensor([300.0] * batch), torch.randn(batch, 5, 12, generator=generator)
