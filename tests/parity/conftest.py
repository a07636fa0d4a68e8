"""Shared random weights: small SANA parts whose outputs have a spread near 1, so that an agreement says something."""

import pytest
import torch

from sana_models.config import QK_NORM, DCAEConfig, SanaConfig

pytest.importorskip("diffusers", reason="the parity oracle is not installed")


def small_sana(*, qk_norm: bool = True, position_scale: float | None = None, patch_size: int = 1) -> SanaConfig:
    """Two blocks whose self- and cross-attention head counts differ, as in every published size."""
    return SanaConfig(
        num_layers=2,
        num_attention_heads=2,
        num_cross_attention_heads=4,
        cross_attention_head_dim=16,
        caption_channels=24,
        in_channels=8,
        out_channels=8,
        sample_size=8,
        patch_size=patch_size,
        qk_norm=QK_NORM if qk_norm else None,
        interpolation_scale=position_scale,
    )


def small_dc_ae(*, first_stage: int = 1, upsample: str = "interpolate", downsample: str = "Conv") -> DCAEConfig:
    """Both block types; `first_stage` 0 drops the full-resolution stage."""
    kinds = ("ResBlock", "ResBlock", "EfficientViTBlock", "EfficientViTBlock")
    scales: tuple[tuple[int, ...], ...] = ((), (), (5,), (5,))
    return DCAEConfig(
        latent_channels=8,
        encoder_block_types=kinds,
        decoder_block_types=kinds,
        encoder_block_out_channels=(16, 32, 32, 64),
        decoder_block_out_channels=(16, 32, 32, 64),
        encoder_layers_per_block=(first_stage, 1, 2, 1),
        decoder_layers_per_block=(first_stage, 2, 1, 1),
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        upsample_block_type=upsample,
        downsample_block_type=downsample,
    )


def oracle_arguments(config: SanaConfig | DCAEConfig) -> dict[str, object]:
    return {key: value for key, value in config.to_dict().items() if not key.startswith("_")}


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Shake every parameter, gains and biases included, that starts at a constant which would hide an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim <= 1:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
