"""SANA as a source of images: `sana_models.pipeline` behind the runner's interface."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sana_bench.core import atomic
from sana_bench.core.cut_texts import CutTexts
from sana_bench.core.errors import AssetError, SampleError, SuiteError
from sana_bench.core.precision import PrecisionSpec, torch_dtype
from sana_bench.generators.base import Request, Stage
from sana_bench.generators.noise import sample_noise
from sana_bench.generators.torch_device import memory_errors_told
from sana_bench.suites.cells import GeneratorSpec
from sana_bench.suites.schema import Variant

if TYPE_CHECKING:
    import numpy as np

    from sana_kernels import Kernels
    from sana_models.compilation import Compile
    from sana_models.quantization import Quantization
    from sana_models.text import Conditioning

__all__ = ["SanaGenerator", "forget_loaded", "guidance_of", "instruction_text", "load_sana", "tiling_of"]


class SanaGenerator:
    """Generates with a SANA pipeline directory; see `sana_bench.generators.Generator`."""

    def __init__(self, spec: GeneratorSpec, device: str) -> None:
        """Load the pipeline; raises `AssetError` for a checkpoint of another model or size."""
        self._spec = spec
        self._device = device
        variant = spec.variant
        self._pipeline = load_sana(
            spec.weights_path,
            variant,
            device,
            sha256=spec.weights_sha256 + spec.lora_sha256 + spec.autoencoder_sha256,
            text_cache=spec.text_cache,
            lora=spec.lora_path,
            autoencoder=spec.autoencoder_path,
        )
        self._tiling = tiling_of(variant)
        self._guidance = guidance_of(variant)
        try:
            shape = self._pipeline.latent_shape(*variant.model.size)
        except ValueError as error:
            raise SuiteError(f"variant {variant.name!r}: {error}") from None
        sampler = variant.sampler
        # SANA-Sprint's sampler draws again at every step.
        again = sampler is not None and sampler.name == "scm"
        self._noise_shape = (sampler.steps, *shape) if sampler is not None and again else shape
        depth = len(self._pipeline.transformer.transformer_blocks)
        outside = [block for block in self._guidance.pag_blocks if block >= depth]
        if outside:
            raise SuiteError(
                f"variant {variant.name!r}: sampler.perturbed_attention.blocks has {outside[0]}, "
                f"the model has blocks 0 to {depth - 1}"
            )

    def prepare(self, prompt: str) -> None:
        """Encode a prompt, unless the cache on disk has it."""
        if self._spec.text_cache is not None:
            self._pipeline.encode_text([prompt])

    def cut_texts(self, prompts: Sequence[str]) -> list[CutTexts]:
        """Prompts that Gemma is given without their end; an instruction before them does not count."""
        limit = self._pipeline.max_length
        return [CutTexts.count("the text encoder", limit, self._pipeline.cut_prompts(prompts))]

    def generate(self, requests: list[Request]) -> "np.ndarray":
        """Return uint8 images (batch, height, width, 3)."""
        import numpy as np
        import torch

        sampler = self._spec.variant.sampler
        if sampler is None:
            raise SuiteError(f"variant {self._spec.variant.name!r}: generator sana needs a sampler")
        noise = torch.stack([sample_noise(request.noise_seed, self._noise_shape) for request in requests])
        try:
            with torch.inference_mode(), memory_errors_told(self._device):
                images = self._pipeline(
                    [request.prompt for request in requests],
                    noise=noise,
                    steps=sampler.steps,
                    guidance=self._guidance,
                    shift=sampler.shift,
                    sampler=sampler.name,
                    tiling=self._tiling,
                )
        except FloatingPointError as error:
            raise SampleError(str(error)) from None
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise SuiteError(
                f"variant {self._spec.variant.name!r}: torch cannot compile its networks here: {reason}"
            ) from error
        return np.asarray(images.numpy(), dtype=np.uint8)

    @property
    def pipeline(self) -> Any:
        """The `sana_models.SanaPipeline` behind the generator."""
        return self._pipeline

    def stages(self) -> tuple[Stage, ...]:
        """Text encoder, projection of the text for all blocks, each transformer step, decoder."""
        pipeline = self._pipeline
        return (
            Stage("text encoder", pipeline.text_encoder, "encode"),
            Stage("text projection", pipeline.transformer, "text_context"),
            Stage("transformer step", pipeline.transformer, "forward"),
            Stage("decoder", pipeline, "decode"),
        )

    def forget(self) -> None:
        """Drop the prompts encoded so far."""
        self._pipeline.text_encoder.forget()


def guidance_of(variant: Variant) -> Any:
    """Return the variant's guidance as the pipeline takes it; without a sampler, none."""
    from sana_models import Guidance

    sampler = variant.sampler
    if sampler is None:
        return Guidance(scale=1.0)
    pag = sampler.perturbed_attention
    return Guidance(
        scale=sampler.guidance_scale,
        interval=sampler.guidance_interval,
        pag_scale=pag.scale if pag else 0.0,
        pag_blocks=pag.blocks if pag else (),
        pag_adaptive_scale=pag.adaptive_scale if pag else 0.0,
    )


def tiling_of(variant: Variant) -> Any:
    """Return how the variant's images are decoded: None for whole."""
    from sana_models import Tiling

    tiling = variant.model.tiling
    return Tiling(tile=tiling.tile, stride=tiling.stride) if tiling else None


def instruction_text(instruction: str, conditioning: "Conditioning") -> str | None:
    """Return the text before every prompt: none, or SANA's, which the installed diffusers has."""
    from sana_models.text import complex_human_instruction

    return None if instruction == "none" else complex_human_instruction(conditioning)


def load_sana(
    folder: Path,
    variant: Variant,
    device: str,
    *,
    sha256: str = "",
    text_cache: Path | None = None,
    lora: Path | None = None,
    autoencoder: Path | None = None,
) -> Any:
    """Return the pipeline in `folder`, set up as the variant says; the last two loaded are kept.

    `lora` and `autoencoder` are the variant's, where it has them. `sha256` tells apart what these held at different times.
    Prompts are encoded one by one, so that an image does not depend on which others were asked for with it; `text_cache` keeps
    them on disk. Raises `AssetError` for a checkpoint or LoRA of another model and for a package that the variant needs.
    """
    model = variant.model
    return _load(
        _Loaded(
            folder=folder,
            sha256=sha256,
            device=device,
            precision=variant.precisions,
            tf32=variant.tf32,
            quantization=variant.quantization,
            kernels=variant.kernels,
            compile=variant.compile,
            cuda_graphs=variant.cuda_graphs,
            instruction=model.instruction,
            conditioning=model.conditioning,
            weights_variant=model.weights_variant,
            autoencoder=autoencoder,
            lora=lora,
            lora_scale=variant.lora.scale if variant.lora is not None else 1.0,
            text_cache=text_cache,
        )
    )


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """What decides what is loaded, and nothing else of a variant: those that agree in it share a pipeline."""

    folder: Path
    sha256: str
    device: str
    precision: PrecisionSpec
    tf32: bool | None
    quantization: "Quantization"
    kernels: "Kernels"
    compile: "Compile"
    cuda_graphs: bool
    instruction: str
    conditioning: "Conditioning"
    weights_variant: str | None
    autoencoder: Path | None
    lora: Path | None
    lora_scale: float
    text_cache: Path | None


# Variants that differ only in their sampler share one loaded pipeline; two are kept so that a pass over
# alternating variants does not reload.
@lru_cache(maxsize=2)
def _load(asked: _Loaded) -> Any:
    import sana_models

    prefix = instruction_text(asked.instruction, asked.conditioning)
    try:
        pipeline = sana_models.load_pipeline(
            asked.folder,
            device=asked.device,
            dtype=torch_dtype(asked.precision.transformer),
            text_encoder_dtype=torch_dtype(asked.precision.text_encoder),
            autoencoder_dtype=torch_dtype(asked.precision.autoencoder),
            tf32=asked.tf32,
            variant=asked.weights_variant,
            quantization=asked.quantization,
            kernels=asked.kernels,
            compile=asked.compile,
            cuda_graphs=asked.cuda_graphs,
            instruction=prefix,
            conditioning=asked.conditioning,
            autoencoder=asked.autoencoder,
            lora=asked.lora,
            lora_scale=asked.lora_scale,
        )
    except ImportError:
        raise AssetError(
            f"quantization {asked.quantization!r} needs the package torchao: pip install 'sana-bench[quantization]'"
        ) from None
    except ValueError as error:
        raise AssetError(" ".join(str(error).split())) from None
    pipeline.text_encoder = sana_models.CachedTextEncoder(
        pipeline.text_encoder, asked.text_cache, atomic.write_with
    )
    return pipeline


def forget_loaded() -> None:
    """Let go of the pipelines kept for the next variant, so that loading one can be timed."""
    _load.cache_clear()
