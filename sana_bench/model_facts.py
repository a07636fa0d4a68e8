"""What is known of a variant's model beside its images: parameters, blocks, and the operations of one image."""

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from sana_bench.assets import resolve_weights, safetensors_shapes
from sana_bench.errors import AssetError
from sana_bench.generators.base import Generator, OutOfMemoryError, Request, SampleError
from sana_bench.resolve import Cell, ResolvedVariant
from sana_bench.results.store import Store
from sana_bench.suite import Variant
from sana_bench.yaml_files import read_yaml

__all__ = ["count_flops", "count_parameters", "known_flops", "model_facts", "note_flops", "transformer_depth"]


def model_facts(variant: ResolvedVariant) -> dict[str, Any]:
    """Parameters and blocks of the denoising network by its files; for best-of-N those of the wrapped generator.

    `cut_from` names the variant that a pruned one was made from, over any pruned ones between, and `cut_from_depth` counts its
    blocks. What cannot be known is left out.
    """
    folder = variant.spec.weights_path
    facts = {
        "parameters": count_parameters(folder),
        "depth": transformer_depth(folder),
        **(
            _cut_from(variant.variant, folder, variant.spec.variants_dir)
            if variant.variant.kind == "pruned"
            else {}
        ),
    }
    return {name: value for name, value in facts.items() if value is not None}


def count_parameters(pipeline: Path) -> int | None:
    """Weights of a pipeline folder's denoising network by its safetensors headers; None for a folder of another layout."""
    files = sorted((pipeline / "transformer").glob("*.safetensors"))
    return sum(prod(shape) for path in files for shape in safetensors_shapes(path)) or None


def transformer_depth(pipeline: Path) -> int | None:
    """Blocks of a pipeline folder's denoising network by its configuration; None where it has none."""
    return _whole_number(pipeline / "transformer" / "config.json", "num_layers")


def _cut_from(variant: Variant, folder: Path, variants_dir: Path | None) -> dict[str, Any]:
    """The first variant up the line that is not pruned itself, by the files beside the variant's own."""
    name, data = variant.derived_from, None
    while name is not None and variants_dir is not None:
        path = variants_dir / f"{name}.yaml"
        data = read_yaml(path).data if path.is_file() else None
        if data is None or data.get("kind") != "pruned":
            break
        name = data["derived_from"]
    depth = None
    if data is not None and variants_dir is not None:
        try:
            depth = transformer_depth(resolve_weights(data["model"]["weights"], variants_dir))
        except AssetError:
            depth = None
    if depth is None and variant.derived_from == name:
        # `sana-bench prune` notes it beside the weights.
        depth = _whole_number(folder / "provenance.json", "source_depth")
    return {"cut_from": name, "cut_from_depth": depth}


def _whole_number(path: Path, key: str) -> int | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get(key)
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, int) and found > 0 else None


def count_flops(cell: Cell, generator: Generator) -> dict[str, int] | None:
    """Operations of one image of a cell by stage, counted from the configuration; of one candidate for best-of-N.

    Makes the cell's first image once more to see the shapes. None for what is not SANA, for quantised and tiled variants, and
    where the image cannot be made.
    """
    from sana_bench.profiling.work import count_image_work

    variant = cell.variant.variant
    if variant.best_of_n is not None:
        from sana_bench.generators.best_of_n import BestOfN, wrapped_variant

        if not isinstance(generator, BestOfN):
            return None
        generator, variant = generator.inner, wrapped_variant(variant)
    if variant.generator != "sana":
        return None
    key = cell.benchmark.samples[0]
    try:
        request = Request(key.prompt.text, cell.noise_seed(key), key.index, key.prompt.id)
        work = count_image_work(generator, variant, request, anew=False)
    except (SampleError, OutOfMemoryError):  # the run itself will tell of it
        return None
    return {stage: found.flops for stage, found in work.stages.items()} if work is not None else None


def known_flops(store: Store, run_id: str) -> dict[str, Mapping[str, int]]:
    """What runs of this store counted before, by the fingerprint of the variant; the run `run_id` has the last word."""
    found: dict[str, Mapping[str, int]] = {}
    for name in (*(other for other in store.run_ids() if other != run_id), run_id):
        run = store.run(name) or {"provenance": {}}
        for facts in (run["provenance"].get("models") or {}).values():
            if facts.get("image_flops"):
                found[facts["fingerprint"]] = facts["image_flops"]
    return found


def note_flops(store: Store, run_id: str, cell: Cell, generator: Generator) -> None:
    """Count the operations of one image and keep them with the run at once, unless this or another run has them."""
    fingerprint = cell.variant.fingerprint
    if fingerprint in known_flops(store, run_id) or (flops := count_flops(cell, generator)) is None:
        return
    provenance = (store.run(run_id) or {}).get("provenance", {})
    counted = {"fingerprint": fingerprint, "image_flops": flops}
    models = {**provenance.get("models", {}), cell.variant.name: counted}
    store.set_provenance(run_id, {**provenance, "models": models})
