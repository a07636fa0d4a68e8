"""What the golden cases and the test that reads them must agree on: weights, words, images. NumPy and Pillow only."""

import zlib

import numpy as np

IMAGE_SIZE, PATCH = 64, 16
VISION = {"width": 32, "depth": 3, "heads": 4}
TEXT = {"hidden": 24, "intermediate": 48, "layers": 2, "heads": 3, "max_position": 40}
MAX_TOKENS = 35
PROMPTS = (
    "a red cat",
    "A Red CAT, sitting on the café's table!",
    "two dogs and a very large blue umbrella " * 6,
    "",
)
# (name, width, height): square, wide, tall and smaller than the network's input.
IMAGES = (("square", 96, 96), ("wide", 150, 80), ("tall", 70, 131), ("small", 40, 50))
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PIECES = (
    *"abcdefghijklmnopqrstuvwxyz0123456789.,!?'-",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    *(
        "red",
        "blue",
        "cat",
        "dog",
        "##s",
        "two",
        "and",
        "very",
        "large",
        "umb",
        "##rella",
        "table",
        "on",
        "the",
        "cafe",
    ),
)


def vocabulary() -> list[str]:
    """A small WordPiece vocabulary; the two tokens that BLIP adds come after it."""
    return list(dict.fromkeys((*_SPECIAL, *_PIECES)))


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The random weight of a checkpoint key: a function of its name and shape alone."""
    rng = np.random.default_rng([2023, zlib.crc32(name.encode())])
    values = rng.normal(size=shape).astype(np.float32)
    lowered = name.lower()
    if "norm" in lowered and name.endswith("weight"):
        return 1 + 0.2 * values
    if name.startswith("mlp.") and len(shape) == 2:
        return values / np.float32(np.sqrt(shape[1]))
    return 0.15 * values


def image(name: str, width: int, height: int) -> np.ndarray:
    """A smooth random picture with some noise, uint8 (height, width, 3)."""
    rng = np.random.default_rng([7, zlib.crc32(name.encode())])
    y, x = np.mgrid[0:height, 0:width] / 32
    waves = [sum(np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0.2, 3, size=(4, 3))) for _ in range(3)]
    field = 127 + 28 * np.stack(waves, axis=-1) + rng.normal(scale=6, size=(height, width, 3))
    return field.clip(0, 255).astype(np.uint8)
