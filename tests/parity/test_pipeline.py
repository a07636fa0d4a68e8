"""The whole road against diffusers' SanaPipeline: one folder with random weights, loaded by both sides.

Tolerance: one of 256 levels. Both sides agree to about 1e-5 before rounding, so only a pixel on the edge
between two levels may differ; hence also fewer than 1 in 100 pixels differ.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers import SanaPipeline as OraclePipeline

from sana_models import DCAE, load_pipeline
from sana_models.checkpoints import save_pretrained

MAX_LENGTH = 12
INSTRUCTION = ["a photo of", "two red circle and the blue square", "left of the "]
PROMPTS = ["a photo of a red circle", "The BLUE square above Three green circle", ""]


@pytest.fixture(scope="module")
def theirs(random_pipeline_dir: Path) -> OraclePipeline:
    pipeline = OraclePipeline.from_pretrained(random_pipeline_dir, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.text_encoder.set_attn_implementation("eager")
    return pipeline


def draw_noise(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(count, 8, height // 8, width // 8, generator=torch.Generator().manual_seed(41))


def reference_images(pipeline, prompts, noise, *, instruction=None, **options) -> np.ndarray:
    images = pipeline(
        prompts,
        negative_prompt="",
        latents=noise.clone(),
        height=noise.shape[-2] * 8,
        width=noise.shape[-1] * 8,
        use_resolution_binning=False,
        max_sequence_length=MAX_LENGTH,
        complex_human_instruction=instruction,
        output_type="np",
        **options,
    ).images
    return np.round(images * 255).astype(int)


def assert_equal_images(ours: torch.Tensor, reference: np.ndarray) -> None:
    assert ours.dtype == torch.uint8
    assert ours.shape == reference.shape
    assert reference.std() > 25  # in levels: a flat reference would prove nothing
    difference = np.abs(ours.numpy().astype(int) - reference)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("size", [(64, 64), (32, 96)], ids=["square", "wide"])
@pytest.mark.parametrize(("steps", "guidance_scale"), [(1, 4.5), (4, 4.5), (7, 1.0), (20, 2.0)])
def test_images_equal_diffusers(random_pipeline_dir, theirs, size, steps, guidance_scale):
    ours = load_pipeline(random_pipeline_dir)
    noise = draw_noise(len(PROMPTS), *size)
    images = ours(PROMPTS, noise=noise, steps=steps, guidance_scale=guidance_scale)
    reference = reference_images(
        theirs, PROMPTS, noise, num_inference_steps=steps, guidance_scale=guidance_scale
    )
    assert_equal_images(images, reference)


@pytest.mark.parametrize("steps", [2, 9])
def test_flow_euler_images_equal_diffusers(random_pipeline_dir, theirs, steps):
    """Its first step is at noise level 1 exactly, and guided as all others."""
    ours = load_pipeline(random_pipeline_dir)
    noise = draw_noise(len(PROMPTS), 64, 64)
    images = ours(PROMPTS, noise=noise, steps=steps, guidance_scale=4.5, sampler="flow_euler")
    solver, theirs.scheduler = (
        theirs.scheduler,
        FlowMatchEulerDiscreteScheduler(shift=ours.flow_shift),
    )
    try:
        reference = reference_images(theirs, PROMPTS, noise, num_inference_steps=steps, guidance_scale=4.5)
    finally:
        theirs.scheduler = solver
    assert_equal_images(images, reference)


def test_images_equal_diffusers_with_instruction_and_long_prompts(random_pipeline_dir, theirs):
    prompts = ["two green circle", " ".join(["red blue green"] * 9)]
    noise = draw_noise(2, 64, 64)
    ours = load_pipeline(random_pipeline_dir, instruction="\n".join(INSTRUCTION))
    images = ours(prompts, noise=noise, steps=5, guidance_scale=4.5)
    reference = reference_images(
        theirs, prompts, noise, instruction=INSTRUCTION, num_inference_steps=5, guidance_scale=4.5
    )
    assert_equal_images(images, reference)
    plain = load_pipeline(random_pipeline_dir)(prompts, noise=noise, steps=5, guidance_scale=4.5)
    assert (plain != images).float().mean() > 0.3


def test_text_embeddings_equal_diffusers(random_pipeline_dir, theirs):
    ours = load_pipeline(random_pipeline_dir).text_encoder
    for instruction in (None, INSTRUCTION):
        embeddings, mask = ours.encode(
            PROMPTS, max_length=MAX_LENGTH, instruction="\n".join(instruction) if instruction else None
        )
        expected, expected_mask, _, _ = theirs.encode_prompt(
            PROMPTS, False, max_sequence_length=MAX_LENGTH, complex_human_instruction=instruction
        )
        assert torch.equal(mask, expected_mask)
        assert float(expected.std()) > 0.3
        # Both sides run the same Gemma-2 code on the same ids; the bound allows for another summation order.
        assert float((embeddings - expected).abs().max()) <= 1e-5


def test_official_conditioning_hands_the_prompts_mask_to_the_null_branch(random_pipeline_dir, theirs):
    """The same as diffusers given lower-case prompts and, for the null branch, the prompts' own masks."""
    prompts = ["a photo of a red circle", "two blue square"]
    noise = draw_noise(2, 64, 64)
    ours = load_pipeline(random_pipeline_dir, conditioning="official")
    images = ours(prompts, noise=noise, steps=4, guidance_scale=4.5)
    embeddings, mask, null, _ = theirs.encode_prompt(
        prompts, True, negative_prompt="", max_sequence_length=MAX_LENGTH
    )
    reference = theirs(
        prompt=None,
        negative_prompt=None,
        prompt_embeds=embeddings,
        prompt_attention_mask=mask,
        negative_prompt_embeds=null,
        negative_prompt_attention_mask=mask,
        latents=noise.clone(),
        height=64,
        width=64,
        use_resolution_binning=False,
        num_inference_steps=4,
        guidance_scale=4.5,
        output_type="np",
    ).images
    assert_equal_images(images, np.round(reference * 255).astype(int))


def test_official_conditioning_keeps_capitals(random_pipeline_dir):
    """The tokenizer here folds case itself, so compare what it is handed."""
    pipeline = load_pipeline(random_pipeline_dir)
    handed: list[list[str]] = []
    tokenizer = pipeline.text_encoder.tokenizer

    class Recorder:
        padding_side = "right"

        def __call__(self, texts, **options):
            handed.append(texts)
            return tokenizer(texts, **options)

    pipeline.text_encoder.tokenizer = Recorder()
    for conditioning in ("official", "diffusers"):
        pipeline.text_encoder.encode([" Red CIRCLE "], max_length=8, conditioning=conditioning)
    assert handed == [["Red CIRCLE"], ["red circle"]]


def test_a_folder_with_latent_statistics_is_refused_by_diffusers(random_pipeline_dir, tmp_path):
    """diffusers would ignore the statistics and draw wrong images without a word."""
    ours = load_pipeline(random_pipeline_dir)
    config = replace(ours.autoencoder.config, latents_mean=(0.5,) * 8, latents_std=(2.0,) * 8)
    autoencoder = DCAE(config)
    autoencoder.load_state_dict(ours.autoencoder.state_dict())
    save_pretrained(
        tmp_path / "own",
        transformer=ours.transformer,
        autoencoder=autoencoder,
        text_encoder=ours.text_encoder,
        flow_shift=3.0,
    )
    assert load_pipeline(tmp_path / "own").autoencoder.config == config
    with pytest.raises((ValueError, AttributeError, ImportError)):
        OraclePipeline.from_pretrained(tmp_path / "own", local_files_only=True)
