"""Whole pipelines for `gpu.py`: ours and diffusers on the same weights, prompts and noise."""

from functools import cache, partial
from typing import Any

import torch
from gpu_cases import (
    GRAPHS,
    ITEMSIZE,
    MADE_LATE,
    TEXT_TOKENS,
    Case,
    Run,
    Scene,
    Staged,
    config_of,
    our_decoder,
    our_transformer,
)
from torch import Tensor

from sana_bench.generators.base import Stage
from sana_bench.profiling.flops import (
    Work,
    decoder_work,
    gemma_work,
    text_projection_work,
    transformer_work,
)
from sana_models.compilation import Compile, compile_transformer
from sana_models.libraries import without_torchao
from sana_models.pipeline import SanaPipeline
from sana_models.text import TextEncoder, complex_human_instruction, make_word_tokenizer

__all__ = ["STEPS", "pipeline_case"]

STEPS, SHIFT, GUIDANCE = 20, 3.0, 4.5
# Root mean square, of the spread: images after 20 guided steps, whose parts were held to bounds of their own. Each step adds its
# rounding, multiplied by the guidance; fp32 has the rounding to 256 levels. Images that have nothing in common are off by 1.4.
_IMAGES = {torch.bfloat16: 0.3, torch.float16: 0.1, torch.float32: 0.02}
# For trying the script where there is no GPU.
_TINY_GEMMA = {
    "vocab_size": 1000,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


def pipeline_case(scene: Scene, name: str, batch: int) -> Case:
    """`batch` images from prompts and noise: Gemma-2 behind the published instruction, 20 guided steps, and the decoder."""
    with without_torchao():
        from diffusers import AutoencoderDC, SanaTransformer2DModel

    config, shapes = config_of(name)
    side = config.sample_size
    theirs = scene.make(lambda: SanaTransformer2DModel.from_config(config.to_dict()))
    autoencoder = scene.make(lambda: AutoencoderDC.from_config(shapes.to_dict()), scene.wide)
    text = _text_encoder(scene, name == "tiny")
    network = our_transformer(config, theirs, scene.kernels)
    prompts = [f"a photo of {number} red apples" for number in range(batch)]
    noise = scene.draw(batch, config.in_channels, side, side).float()

    def ours(compile: Compile = "none", cuda_graphs: bool = False) -> Staged:
        runner = compile_transformer(network, compile, cuda_graphs=cuda_graphs)
        decoder = our_decoder(shapes, autoencoder, scene.kernels, compile)
        pipeline = SanaPipeline(
            runner, decoder, text, flow_shift=SHIFT, instruction=complex_human_instruction(),
            whole_text=runner is not network,
        )  # fmt: skip
        stages = (
            Stage("text encoder", text, "encode"), Stage("text projection", runner, "text_context"),
            Stage("transformer step", runner, "forward"), Stage("decoder", pipeline, "decode"),
        )  # fmt: skip
        return Staged(partial(pipeline, prompts, noise=noise, steps=STEPS, guidance_scale=GUIDANCE), stages)

    def diffusers_compiled() -> Staged:
        with torch.device("meta"):
            twin = AutoencoderDC.from_config(shapes.to_dict())
        twin.load_state_dict(autoencoder.state_dict(), assign=True)
        twin.eval().requires_grad_(False).decode = torch.compile(twin.decode)
        return _diffusers(torch.compile(theirs), twin, text, prompts, noise)

    contestants: dict[str, Run] = {
        "ours": ours(),
        "diffusers": _diffusers(theirs, autoencoder, text, prompts, noise),
    }
    case = Case(f"pipeline, {name}, batch {batch}", "diffusers", contestants)
    if scene.device.type == "cuda":
        case.late = {
            GRAPHS: partial(ours, cuda_graphs=True),
            "diffusers compiled": diffusers_compiled,
            **{made: partial(ours, *how) for made, how in MADE_LATE.items()},
        }
    case.bounds = dict.fromkeys((*contestants, *case.late), _IMAGES[scene.dtype])
    case.work = _pipeline_work(scene, name, batch, text)
    return case


def _pipeline_work(scene: Scene, name: str, batch: int, text: TextEncoder) -> Work:
    """Every prompt and the empty one encoded once, and projected once for all steps, at the text's whole length."""
    config, shapes = config_of(name)
    side, gemma = config.sample_size, text.model.config
    length = text.padded_length(max_length=TEXT_TOKENS, instruction=complex_human_instruction())
    step = transformer_work(config, height=side, width=side, text=TEXT_TOKENS, rows=2 * batch)
    parts = (
        gemma_work(gemma, tokens=length, rows=batch),
        gemma_work(gemma, tokens=TEXT_TOKENS),
        text_projection_work(config, text=TEXT_TOKENS, rows=2 * batch),
        step.times(STEPS),
        decoder_work(shapes, height=side, width=side, batch=batch),
    )
    return sum(parts, Work()).sized(ITEMSIZE[scene.dtype])


@cache
def _text_encoder(scene: Scene, tiny: bool) -> TextEncoder:
    """Gemma-2 2B, with a tokenizer of the words in use; both sides and all cases share it."""
    with without_torchao():
        from transformers import Gemma2Config, Gemma2Model

    words = f"{complex_human_instruction()} a photo of red apples".lower().split()
    tokenizer = make_word_tokenizer([*words, *map(str, range(64))], model_max_length=2048)
    gemma = Gemma2Config(
        pad_token_id=tokenizer.pad_token_id, attn_implementation="eager", **(_TINY_GEMMA if tiny else {})
    )
    return TextEncoder(tokenizer, scene.make(lambda: Gemma2Model(gemma), scene.wide))


def _diffusers(
    network: Any, autoencoder: Any, text: TextEncoder, prompts: list[str], noise: Tensor
) -> Staged:
    """Their pipeline, with its own defaults for what text and images become."""
    with without_torchao():
        import diffusers

    scheduler = diffusers.DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++",
        solver_order=2,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=SHIFT,
    )
    pipeline = diffusers.SanaPipeline(text.tokenizer, text.model, autoencoder, network, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    side = noise.shape[-1] * autoencoder.spatial_compression_ratio

    def run() -> Tensor:
        images = pipeline(
            prompts,
            latents=noise.clone(),
            height=side,
            width=side,
            use_resolution_binning=False,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            output_type="np",
        ).images
        # Levels, as their own pictures are made and as ours come.
        return torch.from_numpy((images * 255).round().astype("uint8"))

    stages = (
        Stage("text encoder", pipeline, "encode_prompt"), Stage("transformer step", network, "forward"),
        Stage("decoder", autoencoder, "decode"),
    )  # fmt: skip
    return Staged(run, stages)
