"""Shared random weights: small SANA parts whose outputs have a spread near 1, so that an agreement says
something.
"""

import math
from pathlib import Path

import pytest
import torch

from sana_models.config import QK_NORM, DCAEConfig, SanaConfig

pytest.importorskip("diffusers", reason="the parity oracle is not installed")

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


def oracle_arguments(config: SanaConfig | DCAEConfig) -> dict[str, object]:
    return {key: value for key, value in config.to_dict().items() if not key.startswith("_")}


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
    from transformers import Gemma2Config, Gemma2Model

    from sana_models.text import TextEncoder, make_word_tokenizer

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


@pytest.fixture(scope="session")
def random_pipeline_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete pipeline folder with random weights that diffusers can load too; tests must not change it."""
    from sana_models import DCAE, SanaTransformer, save_pretrained

    transformer, autoencoder = SanaTransformer(small_sana()), DCAE(small_dc_ae())
    randomise(transformer, seed=31)
    randomise(autoencoder, seed=32)
    with torch.no_grad():
        # Keeps most pixels inside [-1, 1], where a difference shows.
        autoencoder.decoder.conv_out.weight.mul_(0.8)
        autoencoder.decoder.conv_out.bias.mul_(0.8)
    folder = tmp_path_factory.mktemp("random") / "pipeline"
    save_pretrained(
        folder,
        transformer=transformer,
        autoencoder=autoencoder,
        text_encoder=small_text_encoder(),
        flow_shift=3.0,
    )
    return folder
