"""SANA-Sprint's whole road against diffusers' SanaSprintPipeline: one folder with random weights, loaded by both sides.

Latents: 1e-5 absolute at a spread near 1, as for the parts (fp32 rounding; measured 3e-6). Images: as in `test_pipeline`.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import SanaSprintPipeline

from sana_models import Guidance, SanaPipeline, load_pipeline
from tests.parity.test_pipeline import INSTRUCTION, MAX_LENGTH, PROMPTS, assert_equal_images

SEEDS = [3, 5, 2**40]


@pytest.fixture(scope="module")
def ours(random_sprint_dir: Path) -> SanaPipeline:
    return load_pipeline(random_sprint_dir)


@pytest.fixture(scope="module")
def theirs(random_sprint_dir: Path) -> SanaSprintPipeline:
    pipeline = SanaSprintPipeline.from_pretrained(random_sprint_dir, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.text_encoder.set_attn_implementation("eager")
    return pipeline


def reference(pipeline, *, steps: int, scale: float, output: str, instruction=None, size=(64, 64)):
    """Each image from a generator of its own, which diffusers draws the noise of every step from."""
    return pipeline(
        PROMPTS,
        num_inference_steps=steps,
        intermediate_timesteps=1.3 if steps == 2 else None,
        guidance_scale=scale,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
        height=size[0],
        width=size[1],
        use_resolution_binning=False,
        max_sequence_length=MAX_LENGTH,
        complex_human_instruction=instruction,
        output_type=output,
    ).images


@pytest.mark.parametrize("scale", [1.0, 4.5])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_latents_equal_diffusers(ours, theirs, monkeypatch, steps, scale):
    expected = reference(theirs, steps=steps, scale=scale, output="latent")
    found = []
    monkeypatch.setattr(
        ours,
        "decode",
        lambda latents, **_: found.append(latents) or torch.zeros(3, 8, 8, 3, dtype=torch.uint8),
    )
    ours(PROMPTS, seeds=SEEDS, height=64, width=64, steps=steps, guidance_scale=scale)
    assert 0.3 < float(expected.std()) < 10
    assert float((found[0] - expected).abs().max()) <= 1e-5


@pytest.mark.parametrize("size", [(64, 64), (32, 96)], ids=["square", "wide"])
def test_images_equal_diffusers(ours, theirs, size):
    """Two steps and the guidance of 4.5 are the defaults of both."""
    images = ours(PROMPTS, seeds=SEEDS, height=size[0], width=size[1])
    expected = reference(theirs, steps=2, scale=4.5, output="np", size=size)
    assert_equal_images(images, np.round(expected * 255).astype(int))


def test_images_equal_diffusers_with_instruction(random_sprint_dir, theirs):
    ours = load_pipeline(random_sprint_dir, instruction="\n".join(INSTRUCTION))
    expected = reference(theirs, steps=2, scale=4.5, output="np", instruction=INSTRUCTION)
    images = ours(PROMPTS, seeds=SEEDS, height=64, width=64)
    assert_equal_images(images, np.round(expected * 255).astype(int))


def test_an_image_depends_on_its_own_seed_alone(ours):
    together = ours(PROMPTS, seeds=SEEDS, height=64, width=64, steps=3)
    alone = ours(PROMPTS[1:2], seeds=SEEDS[1:2], height=64, width=64, steps=3)
    assert (together[1:2].int() - alone.int()).abs().max() <= 1


def test_the_scale_is_told_in_one_call_a_step(ours, monkeypatch):
    told = []
    forward = ours.transformer.forward

    def record(latents, timestep, *arguments, guidance, **options):
        told.append((len(latents), round(float(timestep), 4), float(guidance)))
        return forward(latents, timestep, *arguments, guidance=guidance, **options)

    monkeypatch.setattr(ours.transformer, "forward", record)
    ours(PROMPTS, seeds=SEEDS, height=64, width=64, guidance_scale=6.0)
    # sin 1.3 / (sin 1.3 + cos 1.3) = 0.7827.
    assert told == [(3, 1.0, 6.0), (3, 0.7827, 6.0)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "flow_euler"}, "sampler is 'flow_euler'; allowed: scm"),
        ({"shift": 3.0}, "the levels of sampler scm have none"),
        ({"negative_prompt": "red"}, "takes no negative prompt"),
        ({"guidance": Guidance(interval=(0.1, 0.9))}, "takes no interval"),
        ({"guidance": Guidance(pag_scale=1.0, pag_blocks=(0,))}, "no perturbed attention"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_settings_of_other_models_are_refused(ours, settings, message):
    with pytest.raises(ValueError, match=message):
        ours(["red"], seeds=[0], height=64, width=64, **settings)


def test_other_models_refuse_scm(random_pipeline_dir):
    with pytest.raises(ValueError, match="sampler is 'scm'; allowed: flow_dpm_solver, flow_euler"):
        load_pipeline(random_pipeline_dir)(["red"], seeds=[0], height=64, width=64, sampler="scm")


def test_noise_must_hold_a_draw_for_every_step(ours):
    noise = ours.draw_noise([0], 64, 64, draws=3)
    with pytest.raises(ValueError, match=r"noise is \(1, 3, 8, 8, 8\).*one \(steps, C, h, w\) a prompt"):
        ours(["red"], noise=noise, steps=2)
    assert torch.equal(
        ours(["red"], noise=noise, steps=3), ours(["red"], seeds=[0], height=64, width=64, steps=3)
    )
