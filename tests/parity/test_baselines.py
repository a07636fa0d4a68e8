"""The models that SANA is compared with, as `generator: diffusers` runs them: each pipeline class, small and random.

Images are those of the pipeline called as its own documentation says. Tolerance as in `test_pipeline`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from sana_bench.generators import build, find
from sana_bench.generators.base import Request
from sana_bench.suites.cells import GeneratorSpec
from sana_bench.suites.find import variant_files
from sana_bench.suites.load import load_variant
from sana_bench.suites.schema import Variant
from tests import ROOT

REQUESTS = [Request("a photo of a red circle", 11), Request("two blue squares", 2**62, 1)]
CLIP = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "projection_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
}
GROUPS = {"norm_num_groups": 4, "layers_per_block": 1, "block_out_channels": (8, 8, 16, 16)}
EULER = diffusers.FlowMatchEulerDiscreteScheduler


def letters(length: int = 128) -> PreTrainedTokenizerFast:
    """A token a byte, so that templates have as many as a pipeline cuts away."""
    special = ["<pad>", "<s>", "</s>"]
    alphabet = {
        letter: i for i, letter in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=length,
    )
    found.chat_template = "{{ messages[0]['content'] }}"
    return found


def words() -> int:
    return len(letters())


def clip(kind: type = transformers.CLIPTextModel) -> Any:
    settings = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return kind(transformers.CLIPTextConfig(vocab_size=words(), **CLIP, **settings))


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=words(), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, tie_word_embeddings=False
    )
    return transformers.T5EncoderModel(config)


def kl(channels: int, **settings: Any) -> Any:
    return diffusers.AutoencoderKL(
        latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        **GROUPS,
        **settings,
    )


def flux(*, guidance_embeds: bool) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=guidance_embeds,
    )
    vae = kl(4, shift_factor=0.1, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False)
    return diffusers.FluxPipeline(
        scheduler=EULER(),
        vae=vae,
        text_encoder=clip(),
        tokenizer=letters(77),
        text_encoder_2=t5(),
        tokenizer_2=letters(),
        transformer=transformer,
    )


def stable_diffusion_xl(scheduler: Any) -> Any:
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
        norm_num_groups=4,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=kl(4),
        text_encoder=clip(),
        text_encoder_2=clip(transformers.CLIPTextModelWithProjection),
        tokenizer=letters(77),
        tokenizer_2=letters(77),
        unet=unet,
        scheduler=scheduler,
    )


def stable_diffusion_3() -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    first, second = (clip(transformers.CLIPTextModelWithProjection) for _ in range(2))
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=EULER(shift=3.0),
        vae=kl(4, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=first,
        tokenizer=letters(77),
        text_encoder_2=second,
        tokenizer_2=letters(77),
        text_encoder_3=t5(),
        tokenizer_3=letters(),
    )


def pixart(kind: type) -> Any:
    transformer = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=32,
        cross_attention_dim=24,
        use_additional_conditions=False,
    )
    return kind(
        tokenizer=letters(),
        text_encoder=t5(),
        vae=kl(4),
        transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def lumina_2() -> Any:
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(512, 64, 64),
        cap_feat_dim=32,
    )
    gemma = transformers.Gemma2Config(
        vocab_size=words(),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    return diffusers.Lumina2Pipeline(
        transformer=transformer,
        scheduler=EULER(),
        vae=kl(4, shift_factor=0.1),
        text_encoder=transformers.Gemma2Model(gemma),
        tokenizer=letters(),
    )


def hunyuan_dit() -> Any:
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=3,
        in_channels=4,
        cross_attention_dim=32,
        cross_attention_dim_t5=32,
        pooled_projection_dim=16,
        hidden_size=24,
    )
    bert = transformers.BertConfig(
        vocab_size=words(),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    return diffusers.HunyuanDiTPipeline(
        vae=kl(4),
        text_encoder=transformers.BertModel(bert),
        tokenizer=letters(77),
        transformer=transformer,
        scheduler=diffusers.DDPMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=t5(),
        tokenizer_2=letters(256),
    )


def qwen_image() -> Any:
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )
    vae = diffusers.AutoencoderKLQwenImage(
        base_dim=24,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
        "vocab_size": words(),
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 16,
    }
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return diffusers.QwenImagePipeline(
        scheduler=EULER(),
        vae=vae,
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=letters(1024),
        transformer=transformer,
    )


def z_image() -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[1024, 32, 32],
    )
    qwen = transformers.Qwen3Config(
        vocab_size=words(),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    return diffusers.ZImagePipeline(
        scheduler=EULER(),
        vae=kl(16, shift_factor=0.1),
        text_encoder=transformers.Qwen3Model(qwen),
        tokenizer=letters(),
        transformer=transformer,
    )


def xl() -> Any:
    return stable_diffusion_xl(diffusers.EulerDiscreteScheduler())


def playground() -> Any:
    return stable_diffusion_xl(diffusers.EDMDPMSolverMultistepScheduler())


def calls(scale: float, **more: Any) -> dict[str, Any]:
    return {"guidance_scale": scale, **more}


def pixart_calls(scale: float) -> dict[str, Any]:
    return calls(scale, use_resolution_binning=False, clean_caption=False)


#: By variant, its pipeline and how its documentation passes the guidance.
FAMILIES: dict[str, tuple[Callable[[], Any], Callable[[float], dict[str, Any]]]] = {
    "flux.1-dev-1024": (lambda: flux(guidance_embeds=True), calls),
    "flux.1-schnell-1024": (lambda: flux(guidance_embeds=False), calls),
    "sdxl-1024": (xl, calls),
    "playground-2.5-1024": (playground, calls),
    "sd3-medium-1024": (stable_diffusion_3, calls),
    "sd3.5-medium-1024": (stable_diffusion_3, calls),
    "sd3.5-large-1024": (stable_diffusion_3, calls),
    "pixart-alpha-512": (lambda: pixart(diffusers.PixArtAlphaPipeline), pixart_calls),
    "pixart-sigma-1024": (lambda: pixart(diffusers.PixArtSigmaPipeline), pixart_calls),
    "lumina-image-2-1024": (lumina_2, calls),
    "hunyuan-dit-1024": (hunyuan_dit, lambda scale: calls(scale, use_resolution_binning=False)),
    "qwen-image-1024": (qwen_image, lambda scale: {"true_cfg_scale": scale, "negative_prompt": [" "] * 2}),
    "z-image-1024": (z_image, calls),
    "z-image-turbo-1024": (z_image, calls),
}


def of_file(name: str) -> Variant:
    return load_variant(variant_files(ROOT / "suites" / "variants")[name])


def generate(folder: Path, variant: Variant, scale: float, requests: list[Request]) -> np.ndarray:
    """As the shipped variant says, but small, in fp32 and two steps."""
    model = variant.model.model_copy(
        update={"weights": str(folder), "weights_variant": None, "height": 64, "width": 64}
    )
    sampler = variant.sampler.model_copy(update={"steps": 2, "guidance_scale": scale})
    small = variant.model_copy(update={"model": model, "sampler": sampler, "precision": "fp32"})
    spec = GeneratorSpec(small, find(small, Path()), f"{folder}")
    return build(spec, "cpu").generate(requests)


def test_every_foreign_variant_is_run_here():
    shipped = variant_files(ROOT / "suites" / "variants")
    assert FAMILIES.keys() == {name for name in shipped if of_file(name).generator == "diffusers"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_baseline_makes_its_pipelines_images(name, tmp_path):
    make, arguments = FAMILIES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = make()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path)
    variant = of_file(name)
    scale = variant.sampler.guidance_scale
    expected = pipeline(
        prompt=[request.prompt for request in REQUESTS],
        height=64,
        width=64,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(request.noise_seed) for request in REQUESTS],
        output_type="np",
        **arguments(scale),
    ).images
    ours = generate(tmp_path, variant, scale, REQUESTS).astype(int)
    assert ours.shape == (2, 64, 64, 3)
    difference = np.abs(ours - np.round(expected * 255))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    other = generate(tmp_path, variant, scale, [Request(REQUESTS[0].prompt, 12)])
    assert not np.array_equal(other[0], ours[0])
    # Guidance acts in every family; FLUX.1 [schnell] and Z-Image-Turbo are distilled without it, and their variants ask for none.
    assert not np.array_equal(generate(tmp_path, variant, scale + 20, REQUESTS), ours)
