"""Small parts of SANA with random weights whose outputs have a spread near 1, so that an agreement says something."""

import math

import torch
from transformers import Gemma2Config, Gemma2Model

from sana_models.config import QK_NORM, DCAEConfig, SanaConfig
from sana_models.dc_ae import DCAE
from sana_models.text import TextEncoder, make_word_tokenizer
from sana_models.transformer import SanaTransformer

WORDS = [
    "a",
    "photo",
    "of",
    "the",
    "red",
    "green",
    "blue",
    "circle",
    "square",
    "left",
    "right",
    "above",
    "two",
    "and",
    "three",
]
TEXT_WIDTH = 24


def small_sana(
    *,
    qk_norm: bool = True,
    position_scale: float | None = None,
    patch_size: int = 1,
    guidance_embeds: bool = False,
) -> SanaConfig:
    """Blocks whose self- and cross-attention head counts differ, as in every published size."""
    return SanaConfig(
        num_layers=2,
        num_attention_heads=2,
        num_cross_attention_heads=4,
        cross_attention_head_dim=16,
        caption_channels=TEXT_WIDTH,
        in_channels=8,
        out_channels=8,
        sample_size=8,
        patch_size=patch_size,
        qk_norm=QK_NORM if qk_norm else None,
        interpolation_scale=position_scale,
        guidance_embeds=guidance_embeds,
    )


def small_dc_ae(
    *, first_stage: int = 1, upsample: str = "interpolate", downsample: str = "Conv"
) -> DCAEConfig:
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


def randomise(module: torch.nn.Module, seed: int, gain: float = 1.0) -> None:
    """Draw every parameter anew, gains and biases included: default starts are constant or shrink the output.

    Matrices and kernels keep the spread of what they are fed, times `gain`; norm gains lie around the
    constant they start at. Nothing is left of the start that torch drew from its global generator.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(gain * noise / math.sqrt(parameter[0].numel()))
            elif name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            else:
                parameter.add_(0.2 * noise)


def small_text_encoder(max_length: int = 12, seed: int = 21):
    """A two-layer Gemma-2 with random weights and a word tokenizer; embeddings have a spread near 1."""
    tokenizer = make_word_tokenizer(WORDS, model_max_length=max_length)
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=12,
        query_pre_attn_scalar=12,
        max_position_embeddings=64,
        # Shorter than the prompts with instruction, so that the alternating local layers are exercised.
        sliding_window=8,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation="eager",
    )
    model = Gemma2Model(config).eval()
    randomise(model, seed)
    return TextEncoder(tokenizer, model)


def tiny_transformer(depth: int, *, seed: int = 0, qk_norm: str | None = QK_NORM) -> SanaTransformer:
    """One narrow head, for tests of depth."""
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
    randomise(model, seed)
    return model.eval()


def tiny_inputs(batch: int = 2, *, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, times and text for `tiny_transformer`."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 4, 4, 4, generator=generator)
    return latents, torch.tensor([300.0] * batch), torch.randn(batch, 5, 12, generator=generator)


def tiny_dc_ae() -> DCAE:
    """Two stages of residual blocks: 4 channels of latents at half the size, as torch starts it from seed 0."""
    blocks, scales = ("ResBlock", "ResBlock"), ((), ())
    config = DCAEConfig(
        latent_channels=4,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 16),
        decoder_block_out_channels=(8, 16),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DCAE(config).eval()
