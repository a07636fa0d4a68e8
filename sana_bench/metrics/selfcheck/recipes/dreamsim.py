"""A small DreamSim: sizes, weights by name and pictures, as the published package's own classes were given them."""

import numpy as np
from numpy.typing import NDArray

from sana_bench.metrics.selfcheck.recipes.plain import picture, uniform

__all__ = [
    "ALPHA",
    "HEADS",
    "LAYERS",
    "PICTURES",
    "PROJECTION",
    "RANK",
    "WIDTH",
    "adapter",
    "images",
    "tower",
]

WIDTH, LAYERS, HEADS, PROJECTION = 128, 12, 2, 16
RANK, ALPHA = 4, 2.0
#: Names and sizes (width, height) of the pictures.
PICTURES = (("first", 90, 70), ("second", 64, 80), ("third", 224, 224))


def images() -> list[NDArray[np.uint8]]:
    """The pictures, uint8 (height, width, 3)."""
    return [picture(f"dreamsim/{name}", width, height) for name, width, height in PICTURES]


def tower(name: str) -> dict[str, NDArray[np.float32]]:
    """The backbone `dino`, `clip` or `open_clip` in DINO's layout, CLIP's with its norm in front and its projection."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 197, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 16, 16),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    if name != "dino":
        shapes |= {"pos_drop.weight": (WIDTH,), "pos_drop.bias": (WIDTH,), "proj": (WIDTH, PROJECTION)}
    for layer in range(LAYERS):
        for part, outputs, inputs in (
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("mlp.fc1", 4 * WIDTH, WIDTH),
            ("mlp.fc2", WIDTH, 4 * WIDTH),
        ):
            shapes |= {
                f"blocks.{layer}.{part}.weight": (outputs, inputs),
                f"blocks.{layer}.{part}.bias": (outputs,),
            }
        for norm in ("norm1", "norm2"):
            shapes |= {
                f"blocks.{layer}.{norm}.weight": (WIDTH,),
                f"blocks.{layer}.{norm}.bias": (WIDTH,),
            }
    return {key: tensor(f"{name}/{key}", shape) for key, shape in shapes.items()}


def tensor(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Norms near one, biases near zero, matrices by fan-in, so that activations keep their size."""
    values = uniform(f"dreamsim/{name}", shape)
    if len(shape) == 1:
        is_norm = ("norm" in name or "pos_drop" in name) and name.endswith("weight")
        return np.float32(0.2) * values + np.float32(is_norm)
    if name.endswith(("cls_token", "pos_embed")):
        return values
    fan_in = shape[0] if name.endswith("/proj") else int(np.prod(shape[1:]))
    return values * np.float32(1.7 / np.sqrt(fan_in))


def adapter() -> dict[str, NDArray[np.float32]]:
    """Pairs of LoRA matrices of every attention's `qkv`, under peft's names."""
    found = {}
    for place in range(3):
        for layer in range(LAYERS):
            name = f"base_model.model.extractor_list.{place}.model.blocks.{layer}.attn.qkv"
            found[f"{name}.lora_A.weight"] = tensor(f"{name}/A", (RANK, WIDTH))
            found[f"{name}.lora_B.weight"] = tensor(f"{name}/B", (3 * WIDTH, RANK))
    return found
