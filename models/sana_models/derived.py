"""Checkpoints made from other checkpoints: a changed transformer, everything else as it was, and where it came from."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sana_models.checkpoints import save_transformer
from sana_models.hub import locate
from sana_models.transformer import SanaTransformer
from sana_models.weight_files import CheckpointError, open_folder

__all__ = ["PROVENANCE", "stored_dtype", "write_derived"]

PROVENANCE = "provenance.json"
_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")


def stored_dtype(source: Path, variant: str | None = None) -> torch.dtype:
    """Return the dtype of the transformer weights in a diffusers folder; raises CheckpointError."""
    tensors = open_folder(_transformer_folder(source), "diffusion_pytorch_model", variant)
    return tensors["proj_out.bias"].read().dtype


def write_derived(
    source: Path,
    out: Path,
    transformer: SanaTransformer,
    *,
    dtype: torch.dtype,
    provenance: Mapping[str, Any],
    card: str,
) -> None:
    """Write a pipeline folder with the other parts of `source` (or, for a lone transformer folder, only the transformer).

    `provenance` goes to `provenance.json` and `card` to `README.md`. The index is written last: a folder with one is complete.
    Raises CheckpointError when `out` holds a checkpoint already or is the source.
    """
    if (out / "model_index.json").exists() or (out / "config.json").exists():
        raise CheckpointError(f"{out}: holds a checkpoint already")
    whole = (source / "model_index.json").is_file()
    out.mkdir(parents=True, exist_ok=True)
    save_transformer(transformer, out / "transformer" if whole else out, dtype=dtype)
    if whole:
        for part in _PARTS:
            shutil.copytree(locate(source, part=part), out / part, dirs_exist_ok=True)
    (out / PROVENANCE).write_text(json.dumps(provenance, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (out / "README.md").write_text(card, encoding="utf-8")
    if whole:
        shutil.copy(source / "model_index.json", out / "model_index.json.tmp")
        (out / "model_index.json.tmp").replace(out / "model_index.json")


def _transformer_folder(source: Path) -> Path:
    return source / "transformer" if (source / "model_index.json").is_file() else source
