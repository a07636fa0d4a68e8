"""Weights and images of the detector's golden cases, drawn by name, so that both implementations can have the same."""

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCALE", "SIZES", "generator", "image", "weight"]

SCALE = (256, 160)
SIZES = ((96, 144), (200, 120), (128, 128))


def generator(name: str) -> np.random.Generator:
    """The stream of random numbers that `name` has."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))


def weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A float32 array: norms near one, biases near zero, the rest by fan-in; class logits widely spread."""
    values = generator(name).standard_normal(shape)
    if len(shape) == 1:
        is_norm = name.endswith("weight")
        vector: NDArray[np.float32] = (0.1 * values + is_norm).astype(np.float32)
        return vector
    gain = 6.0 if "cls_embed" in name else 1.5 if "query" in name else 1.0
    embedding = "embed.weight" in name or "query_feat" in name or "level_encoding" in name
    fan_in = 1 if embedding and "cls" not in name else int(np.prod(shape[1:]))
    scaled: NDArray[np.float32] = (values * gain / np.sqrt(fan_in)).astype(np.float32)
    return scaled


def image(index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 RGB (height, width, 3): coarse blocks and fine noise."""
    rng = generator(f"image {index}")
    height, width = size
    blocks = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3))
    coarse = np.repeat(np.repeat(blocks, 16, 0), 16, 1)[:height, :width]
    noisy = coarse + rng.integers(-20, 21, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)
