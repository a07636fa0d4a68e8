"""Perturbed-attention guidance and whole requests by seed and size against diffusers' pipelines.

Tolerance as in `test_pipeline`: one of 256 levels, and fewer than 1 in 100 pixels differ.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import SanaPAGPipeline, SanaPipeline

from sana_models import DCAE, Guidance, load_pipeline, save_pretrained
from sana_models.config import DCAEConfig
from sana_models.transformer import SanaTransformer
from tests.parity.test_pipeline import MAX_LENGTH, PROMPTS, assert_equal_images, draw_noise
from tests.small_parts import randomise, small_sana


@pytest.fixture(scope="module")
def without_norms(random_pipeline_dir, tmp_path_factory):
    """diffusers' perturbed attention knows no query-key norm."""
    ours = load_pipeline(random_pipeline_dir)
    transformer = SanaTransformer(small_sana(qk_norm=False))
    randomise(transformer, seed=71)
    folder = tmp_path_factory.mktemp("plain") / "pipeline"
    save_pretrained(
        folder,
        transformer=transformer,
        autoencoder=ours.autoencoder,
        text_encoder=ours.text_encoder,
        flow_shift=3.0,
    )
    return folder


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    pipeline.text_encoder.set_attn_implementation("eager")
    return pipeline


@pytest.mark.parametrize(
    ("scale", "pag_scale", "adaptive"), [(4.5, 2.0, 0.0), (1.0, 3.0, 0.0), (3.0, 2.0, 0.003)]
)
def test_perturbed_attention_equals_diffusers(without_norms, scale, pag_scale, adaptive):
    theirs = quiet(
        SanaPAGPipeline.from_pretrained(
            without_norms, local_files_only=True, pag_applied_layers="transformer_blocks.1"
        )
    )
    noise = draw_noise(len(PROMPTS), 64, 64)
    reference = theirs(
        PROMPTS,
        negative_prompt="",
        latents=noise.clone(),
        height=64,
        width=64,
        use_resolution_binning=False,
        max_sequence_length=MAX_LENGTH,
        complex_human_instruction=None,
        num_inference_steps=4,
        guidance_scale=scale,
        pag_scale=pag_scale,
        pag_adaptive_scale=adaptive,
        output_type="np",
    ).images
    guidance = Guidance(scale=scale, pag_scale=pag_scale, pag_blocks=(1,), pag_adaptive_scale=adaptive)
    ours = load_pipeline(without_norms)
    images = ours(PROMPTS, noise=noise, steps=4, guidance=guidance)
    assert_equal_images(images, np.round(reference * 255).astype(int))
    plain = ours(PROMPTS, noise=noise, steps=4, guidance_scale=scale)
    assert (plain != images).float().mean() > 0.3


def request(pipeline, **options) -> np.ndarray:
    images = pipeline(
        PROMPTS,
        negative_prompt="",
        generator=[torch.Generator().manual_seed(seed) for seed in (3, 4, 5)],
        max_sequence_length=MAX_LENGTH,
        complex_human_instruction=None,
        num_inference_steps=2,
        guidance_scale=4.5,
        output_type="np",
        **options,
    ).images
    return np.round(images * 255).astype(int)


def test_seeds_equal_diffusers(random_pipeline_dir):
    theirs = quiet(SanaPipeline.from_pretrained(random_pipeline_dir, local_files_only=True))
    reference = request(theirs, height=64, width=96, use_resolution_binning=False)
    ours = load_pipeline(random_pipeline_dir)
    assert_equal_images(ours(PROMPTS, seeds=[3, 4, 5], height=64, width=96, steps=2), reference)


@pytest.mark.parametrize("size", [(288, 480), (512, 512)])
def test_bucketed_sizes_equal_diffusers(random_pipeline_dir, tmp_path, size):
    """A checkpoint of 512 pixels in small: 16 latents a side of an autoencoder with factor 32."""
    kinds = ("ResBlock",) * 4 + ("EfficientViTBlock",) * 2
    widths, depths = (8, 8, 16, 16, 32, 32), (1,) * 6
    scales: tuple[tuple[int, ...], ...] = ((), (), (), (), (5,), (5,))
    autoencoder = DCAE(
        DCAEConfig(
            latent_channels=8,
            attention_head_dim=16,
            encoder_block_types=kinds,
            decoder_block_types=kinds,
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            encoder_layers_per_block=depths,
            decoder_layers_per_block=depths,
            encoder_qkv_multiscales=scales,
            decoder_qkv_multiscales=scales,
        )
    )
    transformer = SanaTransformer(replace(small_sana(), sample_size=16))
    randomise(autoencoder, seed=81)
    randomise(transformer, seed=82)
    save_pretrained(
        tmp_path / "small512",
        transformer=transformer,
        autoencoder=autoencoder,
        text_encoder=load_pipeline(random_pipeline_dir).text_encoder,
        flow_shift=3.0,
    )
    theirs = quiet(SanaPipeline.from_pretrained(tmp_path / "small512", local_files_only=True))
    reference = request(theirs, height=size[0], width=size[1])
    ours = load_pipeline(tmp_path / "small512")
    assert_equal_images(ours(PROMPTS, seeds=[3, 4, 5], height=size[0], width=size[1], steps=2), reference)
