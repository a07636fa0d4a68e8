"""Vectors, pictures and weights of the cases whose references are libraries that run beside this project."""

import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLIP", "CLIP_TOKENS", "clip_weight", "inception_weight", "picture", "uniform", "vectors"]

#: A CLIP of OpenAI's kind, QuickGELU included, small.
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 50, "width": 48, "heads": 3, "layers": 2},
}
#: Two texts as token ids: start 48, end 49, then padding 0.
CLIP_TOKENS = ((48, 5, 9, 31, 49, 0, 0, 0, 0, 0, 0, 0), (48, *range(7, 17), 49))


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng([424, zlib.crc32(name.encode())])


def vectors(name: str, n: int, d: int) -> NDArray[np.float64]:
    """Correlated vectors (n, d) with a mean of their own."""
    rng = _generator(name)
    mixing = rng.standard_normal((d, d)) / np.sqrt(d)
    return rng.standard_normal((n, d)) @ mixing + 0.3 * rng.standard_normal(d)


def uniform(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Numbers in [-1, 1), float32."""
    return (2 * _generator(name).random(shape) - 1).astype(np.float32)


def picture(name: str, width: int, height: int) -> NDArray[np.uint8]:
    """A smooth picture with edges and fine noise, uint8 (height, width, 3)."""
    rng = _generator(name)
    y, x = np.mgrid[0:height, 0:width] / 24
    waves = np.stack([np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0.2, 3, (3, 3))], axis=-1)
    blocks = np.kron(rng.uniform(-40, 40, (height // 20 + 1, width // 20 + 1, 3)), np.ones((20, 20, 1)))
    field = 127 + 60 * waves + blocks[:height, :width] + rng.normal(scale=6, size=(height, width, 3))
    return field.clip(0, 255).astype(np.uint8)


def inception_weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The tensor `name` of pytorch-fid's state dict; activations keep their size from layer to layer."""
    rng = _generator(name)
    if len(shape) > 1:
        scale = np.float32(np.sqrt(2 / np.prod(shape[1:])))
        return rng.standard_normal(shape, dtype=np.float32) * scale
    values = rng.standard_normal(shape, dtype=np.float32)
    if name.endswith("running_var"):
        return 1 + np.float32(0.2) * np.tanh(values)
    return np.float32(0.1) * values + np.float32(name.endswith("bn.weight"))


def clip_weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The tensor `name` of open_clip's state dict: norms near one, biases near zero, the rest by fan-in."""
    values = _generator(name).standard_normal(shape)
    if name == "logit_scale":
        return np.full(shape, np.log(100), np.float32)
    if len(shape) == 1:
        is_norm = ".ln_" in f".{name}" and name.endswith("weight")
        return (0.1 * values + is_norm).astype(np.float32)
    fan_in = shape[0] if name.endswith(("proj", "text_projection")) else np.prod(shape[1:])
    embedding = "embedding" in name
    return (values * (0.3 if embedding else 1.4 / np.sqrt(fan_in))).astype(np.float32)
