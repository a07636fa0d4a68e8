"""`generator: diffusers` on pipelines of two families: the requests, and they alone, decide the images.

Tolerance as in `test_pipeline`: one of 256 levels, and fewer than 1 in 100 pixels differ.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.fingerprint import FileHashes
from sana_bench.generators import build, find
from sana_bench.generators.base import Request
from sana_bench.profiling.subject import Subject
from sana_bench.profiling.timers import timer_for
from sana_bench.runner.resolve import resolve_suite
from sana_bench.suites.cells import GeneratorSpec
from sana_bench.suites.load import load_suite
from sana_bench.suites.plan import plan_cell
from sana_bench.suites.schema import Variant
from sana_bench.suites.tiers import choose_tier
from tests.suite_files import write_suite, write_variant

REQUESTS = [Request("a photo of a red circle", 11), Request("two blue square", 2**62, 1)]


def variant(folder: Path, generator: str, **sampler: object) -> Variant:
    name = "pipeline" if generator == "diffusers" else "flow_dpm_solver"
    return Variant.model_validate(
        {
            "name": "tiny",
            "tier": "micro",
            "generator": generator,
            "model": {"weights": str(folder), "height": 64, "width": 96},
            "sampler": {"name": name, "steps": 3, "guidance_scale": 4.5, **sampler},
        }
    )


def generate(folder: Path, generator: str, requests: list[Request]) -> np.ndarray:
    asked = variant(folder, generator)
    return build(GeneratorSpec(asked, find(asked, Path()), generator), "cpu").generate(requests)


@pytest.fixture(scope="module")
def stable_diffusion_dir(tmp_path_factory) -> Path:
    """A complete Stable Diffusion pipeline, small and random: another family than SANA."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("stable")
    letters = [*"abcdefghijklmnopqrstuvwxyz", "<|startoftext|>", "<|endoftext|>"]
    words = [letter + end for end in ("", "</w>") for letter in letters[:26]] + letters[26:]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=16)
    torch.manual_seed(3)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=words.index("<|startoftext|>"),
            eos_token_id=words.index("<|endoftext|>"),
            pad_token_id=words.index("<|endoftext|>"),
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


@pytest.mark.parametrize("family", ["stable_diffusion_dir", "random_pipeline_dir"])
def test_images_belong_to_the_request(family, request):
    folder = request.getfixturevalue(family)
    images = generate(folder, "diffusers", REQUESTS)
    assert images.shape == (2, 64, 96, 3)
    assert images.dtype == np.uint8
    alone = generate(folder, "diffusers", REQUESTS[1:])
    assert np.abs(alone[0].astype(int) - images[1]).max() <= 1
    other = generate(folder, "diffusers", [Request(REQUESTS[0].prompt, 12)])
    assert not np.array_equal(other[0], images[0])


def test_images_are_those_of_the_pipeline(stable_diffusion_dir):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(stable_diffusion_dir, local_files_only=True)
    reference = pipeline(
        [request.prompt for request in REQUESTS],
        height=64,
        width=96,
        num_inference_steps=3,
        guidance_scale=4.5,
        generator=[torch.Generator().manual_seed(request.noise_seed) for request in REQUESTS],
        output_type="pil",
    ).images
    expected = np.stack([np.asarray(image) for image in reference]).astype(int)
    ours = generate(stable_diffusion_dir, "diffusers", REQUESTS)
    assert np.abs(ours - expected).max() <= 1
    assert (ours != expected).mean() < 0.01


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"name": "flow_euler"}, "write sampler.name: pipeline"),
        ({"shift": 2.0}, "and no shift"),
        ({"guidance_interval": (0.1, 0.5)}, "supports only guidance_scale"),
    ],
)
def test_settings_that_it_cannot_follow_are_refused(random_pipeline_dir, sampler, message):
    with pytest.raises(SuiteError, match=message):
        find(variant(random_pipeline_dir, "diffusers", **sampler), Path())


def test_sana_refuses_the_scheduler_of_a_pipeline(random_pipeline_dir):
    with pytest.raises(SuiteError, match="needs a sampler"):
        find(variant(random_pipeline_dir, "sana", name="pipeline"), Path())


def test_folders_that_are_no_pipeline(tmp_path):
    with pytest.raises(AssetError, match=r"missing model_index\.json"):
        find(variant(tmp_path, "diffusers"), Path())
    (tmp_path / "model_index.json").write_text('{"_class_name": "X", "unet": ["diffusers", "U"]}')
    with pytest.raises(AssetError, match="missing unet"):
        find(variant(tmp_path, "diffusers"), Path())
    (tmp_path / "unet").mkdir()
    torch.manual_seed(0)
    asked = variant(tmp_path, "diffusers")
    with pytest.raises(AssetError, match="diffusers cannot load it"):
        build(GeneratorSpec(asked, find(asked, Path()), "x"), "cpu")


@pytest.mark.parametrize(("generator", "sampler"), [("sana", "flow_euler"), ("diffusers", "pipeline")])
def test_every_timed_batch_goes_through_every_stage(random_pipeline_dir, tmp_path, generator, sampler):
    """Three equal batches do equal work: no text, step or image is answered from what an earlier one left."""
    settings = f"sampler: {{name: {sampler}, steps: 3, guidance_scale: 4.5}}"
    write_variant(
        tmp_path, "timed", f"generator: {generator}", settings, tier="micro", weights=random_pipeline_dir
    )
    suite = write_suite(tmp_path, "{name: latency, images_per_prompt: 2}", ["timed"], tier="micro")
    (cell,) = resolve_suite(load_suite(suite, "micro"), choose_tier("micro"), FileHashes()).cells()
    subject = Subject(plan_cell(cell, None, tmp_path, tmp_path / "run", None), "cpu", timer_for("cpu"))
    calls = []
    for _ in range(3):
        with subject._clock.watching():
            subject.batch(2)
        calls.append({stage: len(times) for stage, times in subject._clock.milliseconds().items()})
    assert calls[0]["transformer step"] == 3
    assert calls[0].keys() >= {"text encoder", "transformer step", "decoder"}
    assert calls == calls[:1] * 3
