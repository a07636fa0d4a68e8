"""SANA as a source of images: `sana_models.pipeline` behind the runner's interface."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sana_bench.errors import AssetError, SuiteError
from sana_bench.generators.base import GeneratorSpec, OutOfMemoryError, Request, SampleError
from sana_bench.generators.noise import sample_noise

__all__ = ["SanaGenerator"]


class SanaGenerator:
    """Generates with a SANA pipeline directory; see `sana_bench.generators.Generator`."""

    def __init__(self, spec: GeneratorSpec, device: str) -> None:
        """Load the pipeline; raises `AssetError` for a checkpoint of another model or size."""
        self._spec = spec
        self._device = device
        variant = spec.variant
        self._pipeline = _load(
            str(spec.weights_path), spec.weights_sha256, device, variant.precision, variant.model.instruction
        )
        try:
            self._latent_shape = self._pipeline.latent_shape(variant.model.height, variant.model.width)
        except ValueError as error:
            raise SuiteError(f"variant {variant.name!r}: {error}") from None

    def generate(self, requests: list[Request]) -> np.ndarray:
        """Return uint8 images (batch, height, width, 3)."""
        import torch

        sampler = self._spec.variant.sampler
        noise = torch.stack([sample_noise(request.noise_seed, self._latent_shape) for request in requests])
        try:
            with torch.inference_mode():
                images = self._pipeline(
                    [request.prompt for request in requests],
                    noise=noise,
                    steps=sampler.steps,
                    guidance_scale=sampler.guidance_scale,
                    shift=sampler.shift,
                    sampler=sampler.name,
                )
        except FloatingPointError as error:
            raise SampleError(str(error)) from None
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            if self._device.startswith("cuda"):
                torch.cuda.empty_cache()
            raise OutOfMemoryError(str(error).splitlines()[0]) from None
        return np.asarray(images.numpy(), dtype=np.uint8)


def _is_out_of_memory(error: RuntimeError) -> bool:
    import torch

    # The CPU allocator has no exception type of its own.
    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)


# Variants that differ only in their sampler share one loaded pipeline; two are kept so that a pass over
# alternating variants does not reload.
@lru_cache(maxsize=2)
def _load(path: str, sha256: str, device: str, precision: str, instruction: str) -> Any:
    import torch

    import sana_models
    from sana_models.text import complex_human_instruction

    dtypes: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    try:
        prefix = complex_human_instruction() if instruction == "sana" else None
    except ImportError:
        raise AssetError("model.instruction 'sana' is read from diffusers, which is not installed") from None
    try:
        return sana_models.load_pipeline(
            Path(path), device=device, dtype=dtypes[precision], instruction=prefix
        )
    except ValueError as error:
        raise AssetError(" ".join(str(error).split())) from None
