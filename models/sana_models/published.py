"""What the files of published checkpoints do not say about themselves.

SANA 1.0 at 512 and 1024 pixels was trained in fp16, where self-attention's output is clipped to the largest finite value. The
weights rely on it: run in fp32 or bf16 without the clip, blocks with larger outputs break the image. The BF16 checkpoints,
2K, 4K, SANA-1.5 and SANA-Sprint were trained in bf16 without it.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sana_models.config import FP16_MAX, SanaConfig
from sana_models.weight_files import StoredTensor

__all__ = ["CLIPPED_CHECKPOINTS", "UNCLIPPED_CHECKPOINTS", "with_published_clip"]

#: Trained in fp16, without the suffix `_diffusers`.
CLIPPED_CHECKPOINTS = (
    "Sana_600M_512px",
    "Sana_600M_1024px",
    "Sana_1600M_512px",
    "Sana_1600M_512px_MultiLing",
    "Sana_1600M_1024px",
    "Sana_1600M_1024px_MultiLing",
)
#: Trained in bf16.
UNCLIPPED_CHECKPOINTS = (
    "Sana_1600M_1024px_BF16",
    "Sana_1600M_2Kpx_BF16",
    "Sana_1600M_4Kpx_BF16",
    "SANA1.5_1.6B_1024px",
    "SANA1.5_4.8B_1024px",
    "Sana_Sprint_0.6B_1024px",
    "Sana_Sprint_1.6B_1024px",
)
# A folder of the hub's cache carries its repository's name.
_CACHE_FOLDER = re.compile(r"models--[^/]+--(.+)")


def with_published_clip(
    config: SanaConfig, data: Mapping[str, Any], folder: Path, tensors: Mapping[str, StoredTensor]
) -> SanaConfig:
    """Return `config`, with the clip where its checkpoint was trained with one and `data`, its file, does not say so.

    Decided by the published name (of `folder`, one above it, or `_name_or_path` in the file). A checkpoint of another name
    that is stored in fp16, or has fp16 files beside it, counts as trained in fp16 unless it has the query-key norm or a
    position table, which no fp16 training had.
    """
    if "attention_clip" in data:
        return config
    names = [*_names(folder), str(data.get("_name_or_path", ""))]
    known = {name.rsplit("/", 1)[-1].removesuffix("_diffusers") for name in names}
    if known & set(UNCLIPPED_CHECKPOINTS) or config.qk_norm or config.interpolation_scale is not None:
        return config
    stored = tensors.get("proj_out.bias")
    is_fp16 = (
        bool(known & set(CLIPPED_CHECKPOINTS))
        or any(folder.glob("*.fp16*.safetensors"))
        or (stored is not None and stored.read().dtype == torch.float16)
    )
    return replace(config, attention_clip=FP16_MAX) if is_fp16 else config


def _names(folder: Path) -> list[str]:
    found = []
    # The transformer's folder, the pipeline's, and two levels of the hub's cache above it.
    for part in folder.absolute().parts[-4:]:
        match = _CACHE_FOLDER.fullmatch(part)
        found.append(match[1] if match else part)
    return found
