"""Weights and images of the golden cases, drawn by name, so that both implementations can have the same."""

import hashlib

import numpy as np

SCALE = (256, 160)
SIZES = ((96, 144), (200, 120), (128, 128))


def generator(name):
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))


def weight(name, shape):
    """A float32 array: norms near one, biases near zero, the rest by fan-in; class logits widely spread."""
    values = generator(name).standard_normal(shape)
    if len(shape) == 1:
        is_norm = name.endswith("weight")
        return (0.1 * values + is_norm).astype(np.float32)
    gain = 6.0 if "cls_embed" in name else 1.5 if "query" in name else 1.0
    embedding = "embed.weight" in name or "query_feat" in name or "level_encoding" in name
    fan_in = 1 if embedding and "cls" not in name else int(np.prod(shape[1:]))
    return (values * gain / np.sqrt(fan_in)).astype(np.float32)


def image(index, size):
    """uint8 RGB (height, width, 3): coarse blocks and fine noise."""
    rng = generator(f"image {index}")
    height, width = size
    blocks = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3))
    coarse = np.repeat(np.repeat(blocks, 16, 0), 16, 1)[:height, :width]
    return np.clip(coarse + rng.integers(-20, 21, (height, width, 3)), 0, 255).astype(np.uint8)
