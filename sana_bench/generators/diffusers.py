"""Any text-to-image pipeline of diffusers as a source of images."""

import inspect
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sana_bench.assets.checks import check_parts
from sana_bench.assets.locate import resolve_folder
from sana_bench.core.cut_texts import CutTexts
from sana_bench.core.errors import AssetError, SampleError, SuiteError
from sana_bench.core.precision import torch_dtype
from sana_bench.generators.base import Request, Stage, refuse_sana_settings
from sana_bench.generators.torch_device import memory_errors_told
from sana_bench.suites.cells import GeneratorSpec
from sana_bench.suites.schema import Variant
from sana_models.libraries import without_torchao

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DiffusersGenerator", "find_pipeline", "forget_loaded"]

# What transformers gives as the length of a tokenizer without a limit is far above.
_NO_LIMIT = 1_000_000
_TRUE_SCALE = "true_cfg_scale"
# SANA's, PixArt's and HunyuanDiT's pipelines would make the nearest bucket and scale it; a variant means its size. Captions are
# cleaned only where two more packages are installed, which must not decide what an image shows.
_FIXED = {"use_resolution_binning": False, "clean_caption": False}


def find_pipeline(variant: Variant, relative_to: Path) -> Path:
    """Return the folder of a diffusers pipeline.

    Raises `SuiteError` for settings that such a pipeline has no use for, `AssetError` when it is not there or not whole.
    """
    sampler, model = variant.sampler, variant.model
    if sampler is None or sampler.name != "pipeline" or sampler.shift is not None:
        raise SuiteError(
            f"variant {variant.name!r}: generator diffusers samples with the pipeline's own scheduler; "
            "write sampler.name: pipeline, and no shift"
        )
    if sampler.guidance_interval != (0.0, 1.0) or sampler.perturbed_attention is not None:
        raise SuiteError(f"variant {variant.name!r}: generator diffusers supports only guidance_scale")
    if model.instruction != "none" or model.conditioning != "diffusers":
        raise SuiteError(f"variant {variant.name!r}: instruction and conditioning belong to generator sana")
    refuse_sana_settings(variant)
    folder = resolve_folder(model.weights, relative_to)
    check_parts(folder, model.weights_variant)
    return folder


def _scale_name(pipeline: Any, parameters: set[str]) -> str:
    """What a pipeline calls the scale of guidance that its network has.

    FLUX's and Qwen-Image's pipelines take two: one told to a network that embeds it, and one between two calls of the network.
    """
    config = getattr(getattr(pipeline, "transformer", None), "config", None)
    embeds = bool(getattr(config, "guidance_embeds", False))
    return _TRUE_SCALE if _TRUE_SCALE in parameters and not embeds else "guidance_scale"


class DiffusersGenerator:
    """Generates with `diffusers.DiffusionPipeline`; see `sana_bench.generators.Generator`.

    The pipeline draws each sample's noise from a CPU generator with the sample's seed, so the batch plays no part.
    """

    def __init__(self, spec: GeneratorSpec, device: str) -> None:
        """Load the pipeline; raises `AssetError` when diffusers cannot load it."""
        self._spec = spec
        self._device = device
        self._pipeline = _load(
            str(spec.weights_path),
            spec.weights_sha256,
            device,
            spec.variant.precisions.transformer,
            spec.variant.model.weights_variant,
        )
        parameters = inspect.signature(type(self._pipeline).__call__).parameters
        missing = {"prompt", "height", "width", "guidance_scale", "generator"} - set(parameters)
        if missing:
            name = type(self._pipeline).__name__
            raise AssetError(f"{spec.weights_path}: {name} takes no {', '.join(sorted(missing))}")
        self._fixed = {name: value for name, value in _FIXED.items() if name in parameters}
        self._scale_name = _scale_name(self._pipeline, set(parameters))

    def generate(self, requests: list[Request]) -> "np.ndarray":
        """Return uint8 images (batch, height, width, 3)."""
        import numpy as np
        import torch

        from sana_models.tf32 import using_tf32

        (height, width), sampler = self._spec.variant.model.size, self._spec.variant.sampler
        if sampler is None:
            raise SuiteError(f"variant {self._spec.variant.name!r}: generator diffusers needs a sampler")
        settings: dict[str, Any] = self._fixed | {self._scale_name: sampler.guidance_scale}
        if self._scale_name == _TRUE_SCALE:
            # Guided only with a negative prompt; a space is the one that Qwen-Image is published with.
            settings["negative_prompt"] = [" "] * len(requests)
        with memory_errors_told(self._device), using_tf32(self._spec.variant.tf32):
            images = self._pipeline(
                prompt=[request.prompt for request in requests],
                height=height,
                width=width,
                num_inference_steps=sampler.steps,
                generator=[torch.Generator("cpu").manual_seed(request.noise_seed) for request in requests],
                output_type="np",
                **settings,
            ).images
        if not np.isfinite(images).all():
            raise SampleError("the pipeline gave values that are not finite")
        return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8)

    def cut_texts(self, prompts: Sequence[str]) -> list[CutTexts]:
        """Prompts longer than each tokenizer of the pipeline takes, as the pipeline is called here.

        CLIP's have a limit of their own; others are cut at the default of the pipeline's `max_sequence_length`, where it has one.
        """
        parameters = inspect.signature(type(self._pipeline).__call__).parameters
        given = parameters["max_sequence_length"].default if "max_sequence_length" in parameters else None
        found = []
        for name, tokenizer in sorted(self._pipeline.components.items()):
            if not name.startswith("tokenizer") or tokenizer is None:
                continue
            limit = int(tokenizer.model_max_length)
            if isinstance(given, int) and "CLIP" not in type(tokenizer).__name__:
                limit = given
            if limit < _NO_LIMIT:
                ids = tokenizer(list(prompts), truncation=False, verbose=False)["input_ids"]
                found.append(CutTexts.count(f"its {name}", limit, [len(one) > limit for one in ids]))
        return found

    def stages(self) -> tuple[Stage, ...]:
        """Text encoder, each step of the denoising network, decoder, as far as the pipeline has them."""
        pipeline = self._pipeline
        network = next(
            (part for name in ("transformer", "unet") if (part := getattr(pipeline, name, None))), None
        )
        found = (
            Stage("text encoder", pipeline, "encode_prompt"),
            Stage("transformer step", network, "forward"),
            Stage("decoder", getattr(pipeline, "vae", None), "decode"),
        )
        return tuple(stage for stage in found if hasattr(stage.owner, stage.method))

    def forget(self) -> None:
        """Nothing is kept of a prompt."""


@lru_cache(maxsize=1)
def _load(path: str, sha256: str, device: str, precision: str, weights_variant: str | None) -> Any:
    with without_torchao():
        from diffusers import DiffusionPipeline
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            path,
            local_files_only=True,
            torch_dtype=torch_dtype(precision),
            trust_remote_code=False,
            **({"variant": weights_variant} if weights_variant else {}),
        )
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AssetError(f"{path}: diffusers cannot load it: {first}") from None
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def forget_loaded() -> None:
    """Let go of the pipelines kept for the next variant, so that loading one can be timed."""
    _load.cache_clear()
