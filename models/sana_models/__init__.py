"""SANA: linear diffusion transformer, DC-AE, Gemma-2 conditioning, samplers and training, without the
harness.

Names are loaded on first use, so that importing the package does not import torch.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "CAME": "came",
    "CAME8bit": "came",
    "CheckpointError": "checkpoints",
    "load_autoencoder": "checkpoints",
    "load_text_encoder": "checkpoints",
    "load_transformer": "checkpoints",
    "save_pretrained": "checkpoints",
    "save_transformer": "checkpoints",
    "DC_AE_F32C32": "config",
    "DCAEConfig": "config",
    "SANA_CONFIGS": "config",
    "SanaConfig": "config",
    "DCAE": "dc_ae",
    "Growth": "growth",
    "grow_transformer": "growth",
    "take_blocks": "growth",
    "Guidance": "guidance",
    "SanaPipeline": "pipeline",
    "load_pipeline": "pipeline",
    "merge_lora": "lora",
    "ImportanceMeter": "pruning",
    "prune_transformer": "pruning",
    "quantize": "quantization",
    "TextEncoder": "text",
    "CachedTextEncoder": "text_cache",
    "Tiling": "tiling",
    "SanaTransformer": "transformer",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
