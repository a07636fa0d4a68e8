"""Prompts and noise in, images out: text encoding, guided sampling, decoding."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import torch
from PIL import Image
from torch import Tensor

from sana_kernels import Kernels
from sana_models.aspect_ratios import BASE_SIZES, bucket_size, resize_and_crop
from sana_models.checkpoints import (
    CheckpointError,
    check_pipeline_folder,
    load_autoencoder,
    load_flow_shift,
    load_text_encoder,
    load_transformer,
    part_variants,
)
from sana_models.compilation import (
    Compile,
    compile_autoencoder,
    compile_transformer,
    refuse_compilation,
)
from sana_models.config import SanaConfig
from sana_models.dc_ae import DCAE
from sana_models.guidance import Guidance, TextCondition, guided_velocity
from sana_models.hub import locate
from sana_models.lora import merge_lora
from sana_models.quantization import Quantization, quantize
from sana_models.single_files import SINGLE_FILES
from sana_models.solvers import SCM, SOLVERS
from sana_models.text import Conditioning, TextEncoder
from sana_models.text_cache import CachedTextEncoder
from sana_models.tf32 import refuse_tf32, using_tf32
from sana_models.tiling import Tiling, decode_tiled
from sana_models.transformer import SanaTransformer

__all__ = ["SanaPipeline", "load_pipeline"]


class _Settings(TypedDict, total=False):
    """What a call of a pipeline may say, beside what it returns."""

    seeds: Sequence[int] | None
    height: int | None
    width: int | None
    noise: Tensor | None
    steps: int | None
    guidance_scale: float
    guidance: Guidance | None
    negative_prompt: str
    shift: float | None
    sampler: str | None
    tiling: Tiling | None
    on_step: Callable[[int, int], None] | None


class SanaPipeline:
    """SANA's text-to-image pipeline.

    Its result for a prompt depends on that prompt's noise and the settings alone, up to float rounding, not
    on the batch.
    """

    def __init__(
        self,
        transformer: SanaTransformer,
        autoencoder: DCAE,
        text_encoder: TextEncoder,
        *,
        flow_shift: float | None,
        max_length: int = 300,
        instruction: str | None = None,
        conditioning: Conditioning = "diffusers",
        whole_text: bool = False,
        tf32: bool | None = None,
    ) -> None:
        """`flow_shift` is None for SANA-Sprint, whose sampler has none.

        `whole_text` keeps the positions of the text that no prompt fills, so that its length does not depend on the prompt.
        `tf32` is as in `sana_models.tf32.using_tf32`. Raises ValueError when the parts do not fit together.
        """
        latent, text = transformer.config.in_channels, transformer.config.caption_channels
        if latent != autoencoder.config.latent_channels:
            found = f"the autoencoder has {autoencoder.config.latent_channels}"
            raise ValueError(f"the transformer expects {latent} latent channels, {found}")
        if text != text_encoder.model.config.hidden_size:
            found = f"the encoder has {text_encoder.model.config.hidden_size}"
            raise ValueError(f"the transformer expects {text} text channels, {found}")
        if (flow_shift is None) != transformer.config.guidance_embeds:
            found = "one" if transformer.config.guidance_embeds else "no"
            raise ValueError(
                f"the transformer has {found} guidance embedding, the scheduler is of the other kind"
            )
        self.transformer = transformer
        self.autoencoder = autoencoder
        self.text_encoder = text_encoder
        self.flow_shift = flow_shift
        self.max_length = max_length
        self.instruction = instruction
        self.conditioning = conditioning
        self.whole_text = whole_text
        self.tf32 = tf32
        # Encoder, what it was given and what it gave.
        self._negative: tuple[Any, Any, tuple[Tensor, Tensor]] | None = None

    @property
    def default_steps(self) -> int:
        """Steps that a model of this kind is published with."""
        return 2 if self.transformer.config.guidance_embeds else 20

    @property
    def default_sampler(self) -> str:
        """The sampler that a model of this kind is published with."""
        return SCM if self.transformer.config.guidance_embeds else "flow_dpm_solver"

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape (C, h, w) of the noise for an image of height x width pixels; raises ValueError for sizes
        that do not fit.
        """
        unit = self.autoencoder.config.spatial_compression * self.transformer.config.patch_size
        if height < unit or width < unit or height % unit or width % unit:
            raise ValueError(f"image size {width}x{height} is not a multiple of {unit} pixels")
        factor = self.autoencoder.config.spatial_compression
        return self.transformer.config.in_channels, height // factor, width // factor

    def draw_noise(
        self, seeds: Sequence[int], height: int, width: int, *, draws: int | None = None
    ) -> Tensor:
        """Return standard normal fp32 noise (B, C, h, w), each entry drawn on the CPU from its own seed.

        With `draws` it is (B, draws, C, h, w), which sampler scm takes, one a step.
        """
        one = self.latent_shape(height, width)
        shape = one if draws is None else (draws, *one)
        return torch.stack(
            [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
        )

    @overload
    def __call__(
        self, prompts: Sequence[str], *, output: Literal["tensor"] = "tensor", **settings: Unpack[_Settings]
    ) -> Tensor: ...

    @overload
    def __call__(
        self, prompts: Sequence[str], *, output: Literal["pil"], **settings: Unpack[_Settings]
    ) -> list[Image.Image]: ...

    @torch.inference_mode()
    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        seeds: int | Sequence[int] | None = None,
        height: int | None = None,
        width: int | None = None,
        noise: Tensor | None = None,
        steps: int | None = None,
        guidance_scale: float = 4.5,
        guidance: Guidance | None = None,
        negative_prompt: str | Sequence[str] = "",
        shift: float | None = None,
        sampler: str | None = None,
        tiling: Tiling | None = None,
        on_step: Callable[[int, int], None] | None = None,
        output: Literal["tensor", "pil"] = "tensor",
    ) -> Tensor | list[Image.Image]:
        """Return uint8 images (B, height, width, 3) on the CPU, or with `output="pil"` one PIL image a prompt.

        One prompt as a text is drawn once for every seed or noise.

        Give `seeds`, one a prompt, or `noise`, standard normal fp32 (B, C, h, w) (see `latent_shape`), for sampler scm
        (B, steps, C, h, w), which then decides the size. With seeds the size defaults to the one the checkpoint was trained
        at; a checkpoint of a published size makes the bucket of the nearest aspect ratio, which is scaled to cover the
        request and cropped at the centre, and others make the size itself.

        `guidance_scale` 1 or less turns classifier-free guidance off; `guidance` replaces it and adds an interval and
        perturbed attention. `negative_prompt` is one for all prompts, or one a prompt.

        `steps` and `sampler` default to what the kind of model is published with: 20 of flow_dpm_solver, or for SANA-Sprint 2 of
        scm. SANA-Sprint is told the guidance scale, and takes no negative prompt. `shift` defaults to the checkpoint's own.
        `tiling` decodes in tiles. Raises ValueError on an unknown or unfit sampler or output, a size or noise that does not
        fit or absurd settings, and FloatingPointError when sampling or decoding produced values that are not finite.
        """
        sampler = sampler or self.default_sampler
        steps = self.default_steps if steps is None else steps
        embeds = self._check_sampler(sampler, negative_prompt)
        if output not in ("tensor", "pil"):
            raise ValueError(f"output is {output!r}; allowed: tensor, pil")
        seeds = [seeds] if isinstance(seeds, int) else seeds
        if isinstance(prompts, str):
            prompts = [prompts] * len(seeds if seeds is not None else noise if noise is not None else "1")
        levels, integrate = SOLVERS[sampler]
        sigmas = levels(steps, self.flow_shift if shift is None else shift)
        noise, crop_to = self._start(prompts, seeds, height, width, noise, steps if embeds else None)
        guidance = guidance or Guidance(scale=guidance_scale)
        negative = negative_prompt if guidance.uses_null and not embeds else None
        options: dict[str, Any] = {"on_step": on_step}
        if self.conditioning == "official" and not embeds:
            # The official network truncates its time input whichever sampler calls it.
            options["truncate_time"] = True
        with using_tf32(self.tf32):
            prompt, null = self._condition(prompts, negative)
            velocity = guided_velocity(self.transformer, prompt, null, guidance)
            latents = integrate(
                velocity, noise.to(self.transformer.proj_out.weight.device), sigmas, **options
            )
            if not torch.isfinite(latents).all():
                raise FloatingPointError("sampling produced values that are not finite")
            images = self.decode(latents, tiling=tiling, crop_to=crop_to)
        return images if output == "tensor" else [Image.fromarray(image) for image in images.numpy()]

    def _check_sampler(self, sampler: str, negative_prompt: str | Sequence[str]) -> bool:
        """Return whether the transformer embeds the guidance scale; raises ValueError for what such a model does not take."""
        embeds = self.transformer.config.guidance_embeds
        allowed = [name for name in SOLVERS if (name == SCM) == embeds]
        if sampler not in allowed:
            raise ValueError(f"sampler is {sampler!r}; allowed: {', '.join(allowed)}")
        if embeds and any([negative_prompt] if isinstance(negative_prompt, str) else negative_prompt):
            raise ValueError("this model is told its guidance scale; it takes no negative prompt")
        return embeds

    def _start(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int] | None,
        height: int | None,
        width: int | None,
        noise: Tensor | None,
        draws: int | None,
    ) -> tuple[Tensor, tuple[int, int] | None]:
        """Return the noise to start from and the size to bring the images to, if it is another."""
        crop_to = None
        if noise is None:
            if seeds is None or len(seeds) != len(prompts):
                found = "none" if seeds is None else f"{len(seeds)} seeds"
                raise ValueError(f"{len(prompts)} prompts need as many seeds, or noise; found {found}")
            side = self.transformer.config.sample_size * self.autoencoder.config.spatial_compression
            crop_to = (height or side, width or side)
            base = BASE_SIZES.get(self.transformer.config.sample_size)
            made = bucket_size(*crop_to, base) if base == side else crop_to
            noise = self.draw_noise(seeds, *made, draws=draws) if prompts else torch.empty(0)
        elif seeds is not None or height is not None or width is not None:
            raise ValueError("noise has a size of its own: leave out seeds, height and width")
        channels = self.transformer.config.in_channels
        each = (channels,) if draws is None else (draws, channels)
        if not prompts or noise.ndim != 3 + len(each) or noise.shape[:-2] != (len(prompts), *each):
            found = f"noise is {tuple(noise.shape)} for {len(prompts)} prompts"
            wanted = f"one {'(C, h, w)' if draws is None else '(steps, C, h, w)'} a prompt"
            raise ValueError(f"{found}; expected {wanted}, C being {channels}")
        return noise, crop_to

    def decode(
        self, latents: Tensor, *, tiling: Tiling | None = None, crop_to: tuple[int, int] | None = None
    ) -> Tensor:
        """Latents of the diffusion model (B, C, h, w) to uint8 images (B, H, W, 3) on the CPU.

        `tiling` keeps the memory of large images small; `crop_to` (height, width) scales and crops. Raises
        FloatingPointError for an image with a value that is not finite, which would be black as a picture.
        """
        dtype = next(self.autoencoder.decoder.parameters()).dtype
        raw = self.autoencoder.denormalise(latents).to(dtype)
        decoded = decode_tiled(self.autoencoder, raw, tiling) if tiling else self.autoencoder.decode(raw)
        pixels = decoded.float()
        bad = [row for row, image in enumerate(pixels) if not torch.isfinite(image).all()]
        if bad:
            which = "" if len(pixels) == 1 else f" in {len(bad)} of {len(pixels)} images"
            raise FloatingPointError(f"the decoder gave values that are not finite{which}")
        if crop_to is not None:
            pixels = resize_and_crop(pixels, *crop_to)
        scaled = ((pixels.clamp(-1, 1) + 1) * 127.5).round()
        return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()

    def cut_prompts(self, prompts: Sequence[str]) -> list[bool]:
        """Say of each prompt whether the text encoder is given it without its end."""
        return self.text_encoder.cut(
            prompts, max_length=self.max_length, instruction=self.instruction, conditioning=self.conditioning
        )

    def encode_text(self, prompts: Sequence[str]) -> None:
        """Encode prompts ahead of time; of use with a text encoder that remembers."""
        with using_tf32(self.tf32):
            for prompt in prompts:
                self._condition([prompt], None)

    def _condition(
        self, prompts: Sequence[str], negative_prompt: str | Sequence[str] | None
    ) -> tuple[TextCondition, TextCondition | None]:
        """Encode each distinct prompt once, and the negative ones when guidance needs them."""
        distinct = list(dict.fromkeys(prompts))
        embeddings, mask = self.text_encoder.encode(
            distinct,
            max_length=self.max_length,
            instruction=self.instruction,
            conditioning=self.conditioning,
            keep_padding=False,
        )
        rows = [distinct.index(prompt) for prompt in prompts]
        prompt = TextCondition(embeddings[rows], mask[rows])
        if negative_prompt is None:
            return (prompt if self.whole_text else prompt.shortened(prompt.used)), None
        negatives = (
            [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else list(negative_prompt)
        )
        if len(negatives) != len(prompts):
            raise ValueError(
                f"{len(prompts)} prompts need one negative prompt or as many; found {len(negatives)}"
            )
        distinct = list(dict.fromkeys(negatives))
        # The official sampler hands the prompt's mask to the null branch as well, which so reads padding.
        own_mask = self.conditioning == "diffusers"
        null, null_mask = self._encode_negative(distinct, keep_padding=not own_mask)
        rows = [distinct.index(negative) for negative in negatives]
        null_text = TextCondition(null[rows], null_mask[rows] if own_mask else prompt.mask)
        if self.whole_text:
            return prompt, null_text
        # A prompt fills a tenth of its positions: what no row of the batch reads need not be projected.
        used = max(prompt.used, null_text.used)
        return prompt.shortened(used), null_text.shortened(used)

    def _encode_negative(self, texts: list[str], *, keep_padding: bool) -> tuple[Tensor, Tensor]:
        """Encode the negative prompts, which are mostly those of the call before."""
        encoder, told = self.text_encoder, (tuple(texts), self.max_length, self.conditioning)
        if self._negative is None or self._negative[0] is not encoder or self._negative[1] != told:
            encoded = encoder.encode(
                texts, max_length=self.max_length, conditioning=self.conditioning, keep_padding=keep_padding
            )
            # An encoder in training gives others next time.
            if any(weight.requires_grad for weight in encoder.model.parameters()):
                return encoded
            self._negative = (encoder, told, encoded)
        return self._negative[2]


def load_pipeline(
    root: str | Path,
    *,
    transformer: str | Path | None = None,
    autoencoder: str | Path | None = None,
    config: SanaConfig | str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    text_encoder_dtype: torch.dtype | None = None,
    autoencoder_dtype: torch.dtype | None = None,
    tf32: bool | None = None,
    variant: str | None = None,
    quantization: Quantization = "none",
    kernels: Kernels = "auto",
    compile: Compile = "none",
    cuda_graphs: bool = False,
    instruction: str | None = None,
    conditioning: Conditioning = "diffusers",
    text_cache: str | Path | None = None,
    ema: bool = False,
    lora: str | Path | None = None,
    lora_scale: float = 1.0,
) -> SanaPipeline:
    """Load a pipeline in the diffusers layout, from a folder or a hub id `org/name[@revision]`.

    `transformer` replaces the folder's own: a single file with its `config` (see `load_transformer`, also for `ema`), which
    holds nothing else of a pipeline, or another folder or hub id. `autoencoder`, a folder or hub id, replaces the folder's too.

    `lora` is an adapter of diffusers or PEFT, a file, folder or hub id, that is merged into the transformer with `lora_scale`.

    `variant` picks weight files such as `*.fp16.safetensors`, and the plain ones of parts that have none of it;
    `quantization` makes the transformer's blocks INT8;
    `kernels` is what transformer and autoencoder run on (see `sana_kernels.resolve_backend`);
    `text_cache` is a folder for text embeddings, which all pipelines of one text encoder may share. The text length is the
    tokenizer's own when it is shorter than SANA's 300 tokens.

    `dtype` is the transformer's. Text encoder and autoencoder have the same if they are given none of their own, but fp32 beside
    fp16, where both overflow. `tf32` allows or forbids TF32 in fp32 products and convolutions, by torch's settings if left out.
    `compile` compiles the transformer's steps with torch, and on a CUDA device the decoder; `cuda_graphs` records the steps as
    CUDA graphs. Both keep the text at its whole length, so that every prompt has the same shapes.

    Raises CheckpointError, one line, for anything missing, truncated or foreign, and ValueError for an unknown `config`,
    `quantization` or `compile`, and for what the device cannot do.
    """
    refuse_compilation(compile, cuda_graphs, device)
    refuse_tf32(tf32, device)
    if str(root).endswith(SINGLE_FILES):
        raise CheckpointError(
            f"{root}: holds a transformer only; give the folder or hub id of a pipeline, and this file as transformer"
        )
    root = locate(root, variant=variant)
    check_pipeline_folder(root)
    wide = torch.float32 if dtype == torch.float16 else dtype
    variants = part_variants(root, variant)
    text_encoder = load_text_encoder(
        root, device=device, dtype=text_encoder_dtype or wide, variant=variants["text_encoder"]
    )
    if text_cache is not None:
        text_encoder = CachedTextEncoder(text_encoder, text_cache)
    source, chosen = (root, variants["transformer"]) if transformer is None else (transformer, variant)
    network = load_transformer(
        source, config=config, device=device, dtype=dtype, variant=chosen, kernels=kernels, ema=ema
    )
    if lora is not None:
        merge_lora(network, lora, lora_scale)
    try:
        return SanaPipeline(
            compile_transformer(quantize(network, quantization), compile, cuda_graphs=cuda_graphs),
            compile_autoencoder(
                load_autoencoder(
                    root if autoencoder is None else autoencoder,
                    device=device,
                    dtype=autoencoder_dtype or wide,
                    variant=variants["vae"] if autoencoder is None else None,
                    kernels=kernels,
                ),
                compile,
                device,
            ),
            text_encoder,
            flow_shift=load_flow_shift(root),
            max_length=min(300, int(text_encoder.tokenizer.model_max_length)),
            instruction=instruction,
            conditioning=conditioning,
            whole_text=compile != "none" or cuda_graphs,
            tf32=tf32,
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{root}: {error}") from error
