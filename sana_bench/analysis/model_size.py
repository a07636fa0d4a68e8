"""What is known of a variant's model beside its images: parameters, blocks, and the operations of one image."""

import json
from math import prod
from pathlib import Path
from typing import Any

from sana_bench.assets.checks import safetensors_shapes, weights_to_read
from sana_bench.assets.locate import resolve_weights
from sana_bench.core.errors import AssetError
from sana_bench.core.text import read_text
from sana_bench.suites.cells import ResolvedVariant
from sana_bench.suites.find import variant_files
from sana_bench.suites.overridden import base_name
from sana_bench.suites.schema import Variant
from sana_bench.suites.variant_file import read_variant_file

__all__ = ["count_parameters", "model_size", "transformer_depth"]


def model_size(variant: ResolvedVariant) -> dict[str, Any]:
    """Parameters and blocks of the denoising network by its files; for best-of-N those of the wrapped generator.

    `cut_from` names the variant that a pruned one was made from, over any pruned ones between, and `cut_from_depth` counts its
    blocks. What cannot be known is left out.
    """
    folder = variant.spec.weights_path
    found = {
        "parameters": count_parameters(folder, variant.variant.model.weights_variant),
        "depth": transformer_depth(folder),
        **(
            _cut_from(variant.variant, folder, variant.spec.variants_dir)
            if variant.variant.kind == "pruned"
            else {}
        ),
    }
    return {name: value for name, value in found.items() if value is not None}


def count_parameters(pipeline: Path, weights_variant: str | None = None) -> int | None:
    """Weights of a pipeline folder's denoising network by its safetensors headers; None for a folder of another layout."""
    if not pipeline.is_dir():
        return None
    files = [
        path
        for name, path in weights_to_read(pipeline, weights_variant).items()
        if name.startswith(("transformer/", "unet/")) and name.endswith(".safetensors")
    ]
    return sum(prod(shape) for path in files for shape in safetensors_shapes(path)) or None


def transformer_depth(pipeline: Path) -> int | None:
    """Blocks of a pipeline folder's denoising network by its configuration; None where it has none."""
    return _whole_number(pipeline / "transformer" / "config.json", "num_layers")


def _cut_from(variant: Variant, folder: Path, variants_dir: Path | None) -> dict[str, Any]:
    """The first variant up the line that is not pruned itself, by the files beside the variant's own and the shipped ones."""
    name, path, data = variant.derived_from, None, None
    known = variant_files(variants_dir)
    while name is not None:
        path = known.get(base_name(name))
        data = read_variant_file(path).data if path is not None else None
        if data is None or data.get("kind") != "pruned":
            break
        name = data["derived_from"]
    depth = None
    if name is not None and path is not None and data is not None:
        try:
            model = data["model"]
            folder_cut_from = resolve_weights(model["weights"], path.parent, model.get("weights_variant"))
            depth = transformer_depth(folder_cut_from)
        except AssetError:
            depth = None
    if depth is None and variant.derived_from == name:
        # `sana-bench prune` notes it beside the weights.
        depth = _whole_number(folder / "provenance.json", "source_depth")
    return {"cut_from": name, "cut_from_depth": depth}


def _whole_number(path: Path, key: str) -> int | None:
    try:
        found = json.loads(read_text(path)).get(key)
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, int) and found > 0 else None
