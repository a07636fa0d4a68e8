"""Prompts and noise in, images out: text encoding, guided sampling, decoding."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sana_models.checkpoints import (
    CheckpointError,
    check_pipeline_folder,
    load_autoencoder,
    load_flow_shift,
    load_text_encoder,
    load_transformer,
)
from sana_models.dc_ae import DCAE
from sana_models.guidance import TextCondition, guided_velocity, uses_guidance
from sana_models.solvers import SOLVERS
from sana_models.text import Conditioning, TextEncoder
from sana_models.transformer import SanaTransformer

__all__ = ["SanaPipeline", "load_pipeline"]


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
        flow_shift: float,
        max_length: int = 300,
        instruction: str | None = None,
        conditioning: Conditioning = "diffusers",
    ) -> None:
        """Raises ValueError when the parts do not fit together."""
        latent, text = transformer.config.in_channels, transformer.config.caption_channels
        if latent != autoencoder.config.latent_channels:
            found = f"the autoencoder has {autoencoder.config.latent_channels}"
            raise ValueError(f"the transformer expects {latent} latent channels, {found}")
        if text != text_encoder.model.config.hidden_size:
            found = f"the encoder has {text_encoder.model.config.hidden_size}"
            raise ValueError(f"the transformer expects {text} text channels, {found}")
        self.transformer = transformer
        self.autoencoder = autoencoder
        self.text_encoder = text_encoder
        self.flow_shift = flow_shift
        self.max_length = max_length
        self.instruction = instruction
        self.conditioning = conditioning

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape (C, h, w) of the noise for an image of height x width pixels; raises ValueError for sizes
        that do not fit.
        """
        unit = self.autoencoder.config.spatial_compression * self.transformer.config.patch_size
        if height < unit or width < unit or height % unit or width % unit:
            raise ValueError(f"image size {width}x{height} is not a multiple of {unit} pixels")
        factor = self.autoencoder.config.spatial_compression
        return self.transformer.config.in_channels, height // factor, width // factor

    @torch.inference_mode()
    def __call__(
        self,
        prompts: Sequence[str],
        *,
        noise: Tensor,
        steps: int = 20,
        guidance_scale: float = 4.5,
        shift: float | None = None,
        sampler: str = "flow_dpm_solver",
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Return uint8 images (B, H, W, 3) on the CPU.

        `noise` is standard normal fp32 (B, C, h, w), one entry a prompt (see `latent_shape`).
        `guidance_scale` 1 or less turns classifier-free guidance off. `shift` defaults to the checkpoint's
        own. Raises ValueError on an unknown sampler or wrong noise shape and FloatingPointError when sampling
        produced values that are not finite.
        """
        if sampler not in SOLVERS:
            raise ValueError(f"sampler is {sampler!r}; allowed: {', '.join(SOLVERS)}")
        channels = self.transformer.config.in_channels
        if not prompts or noise.ndim != 4 or noise.shape[:2] != (len(prompts), channels):
            found = f"noise is {tuple(noise.shape)} for {len(prompts)} prompts"
            raise ValueError(f"{found}; expected one (C, h, w) a prompt, C being {channels}")
        levels, integrate = SOLVERS[sampler]
        sigmas = levels(steps, self.flow_shift if shift is None else shift)
        prompt, null = self._condition(prompts, uses_guidance(guidance_scale))
        velocity = guided_velocity(self.transformer, prompt, null, guidance_scale)
        options: dict[str, Any] = {"on_step": on_step}
        if self.conditioning == "official":
            # The official network truncates its time input whichever sampler calls it.
            options["truncate_time"] = True
        device = self.transformer.proj_out.weight.device
        latents = integrate(velocity, noise.to(device), sigmas, **options)
        if not torch.isfinite(latents).all():
            raise FloatingPointError("sampling produced values that are not finite")
        return self.decode(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents of the diffusion model (B, C, h, w) to uint8 images (B, H, W, 3) on the CPU."""
        dtype = self.autoencoder.decoder.conv_in.weight.dtype
        pixels = self.autoencoder.decode(self.autoencoder.denormalise(latents).to(dtype)).float()
        scaled = ((pixels.clamp(-1, 1) + 1) * 127.5).round()
        return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()

    def _condition(self, prompts: Sequence[str], guided: bool) -> tuple[TextCondition, TextCondition | None]:
        """Encode each distinct prompt once, and the empty one when guidance needs it."""
        distinct = list(dict.fromkeys(prompts))
        embeddings, mask = self.text_encoder.encode(
            distinct, max_length=self.max_length, instruction=self.instruction, conditioning=self.conditioning
        )
        rows = [distinct.index(prompt) for prompt in prompts]
        prompt = TextCondition(embeddings[rows], mask[rows])
        if not guided:
            return prompt, None
        null, null_mask = self.text_encoder.encode(
            [""], max_length=self.max_length, conditioning=self.conditioning
        )
        # The official sampler hands the prompt's mask to the null branch as well.
        own_mask = self.conditioning == "diffusers"
        null_mask = null_mask.expand(len(prompts), -1) if own_mask else prompt.mask
        return prompt, TextCondition(null.expand(len(prompts), -1, -1), null_mask)


def load_pipeline(
    root: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    instruction: str | None = None,
    conditioning: Conditioning = "diffusers",
) -> SanaPipeline:
    """Load a pipeline folder in the diffusers layout; `variant` picks weight files such as
    `*.fp16.safetensors`.

    The text length is the tokenizer's own when it is shorter than SANA's 300 tokens. In fp16, text encoder
    and autoencoder stay in fp32: both overflow there. Raises CheckpointError, one line, for anything missing,
    truncated or foreign.
    """
    root = Path(root)
    check_pipeline_folder(root)
    wide = torch.float32 if dtype == torch.float16 else dtype
    text_encoder = load_text_encoder(root, device=device, dtype=wide, variant=variant)
    try:
        return SanaPipeline(
            load_transformer(root / "transformer", device=device, dtype=dtype, variant=variant),
            load_autoencoder(root / "vae", device=device, dtype=wide, variant=variant),
            text_encoder,
            flow_shift=load_flow_shift(root),
            max_length=min(300, int(text_encoder.tokenizer.model_max_length)),
            instruction=instruction,
            conditioning=conditioning,
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{root}: {error}") from error
