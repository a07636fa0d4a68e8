"""Suites, variants and folders of images as files: what a test hands to the command line."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from sana_bench.generators.image_folder import MANIFEST

__all__ = ["FEW_STEPS", "GENEVAL_ALONE", "write_images", "write_suite", "write_variant"]

#: The quickest sampler that uses guidance.
FEW_STEPS = "sampler: {steps: 2, guidance_scale: 2.0}"
#: GenEval alone, one image a prompt.
GENEVAL_ALONE = "{name: geneval, images_per_prompt: 1, metrics: [geneval]}"


def write_suite(
    folder: Path, benchmark: str, variants: Iterable[str] = ("mine",), *, tier: str = "full", name: str = "s"
) -> Path:
    """Write `NAME.yaml`; `benchmark` is the YAML of one, in braces."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(
        f"schema_version: 1\nname: {name}\nbenchmarks:\n  - {benchmark}\n"
        f"variants: {{{tier}: [{', '.join(variants)}]}}\n"
    )
    return path


def write_variant(
    folder: Path,
    name: str = "mine",
    *more: str,
    tier: str = "full",
    weights: str | Path = "./images",
    height: int = 64,
    width: int = 64,
) -> Path:
    """Write `variants/NAME.yaml` below the folder of a suite; `more` are further lines, such as its generator and sampler."""
    path = folder / "variants" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    model = f"model: {{weights: {weights}, height: {height}, width: {width}}}"
    path.write_text("\n".join(["schema_version: 1", f"name: {name}", f"tier: {tier}", model, *more, ""]))
    return path


def write_images(folder: Path, images: Iterable[tuple[dict[str, object], np.ndarray | bytes]]) -> None:
    """Write images and their manifest; each comes with its entry, which names the file.

    An array (H, W, 3) of uint8 is encoded as the name's suffix says, bytes are written as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for entry, image in images:
        path = folder / str(entry["file"])
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            Image.fromarray(image).save(path)
        lines.append(json.dumps(entry))
    (folder / MANIFEST).write_text("\n".join(lines) + "\n")
