"""The stored golden values: what reference implementations computed, as package data of about 120 KB."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FOLDER", "arrays", "image_reward", "mask2former_keys", "mplug", "numbers"]

FOLDER = Path(__file__).resolve().parent / "golden"


def arrays(name: str) -> dict[str, NDArray[Any]]:
    """The arrays of `NAME.npz`, by name."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as archive:
        return dict(archive)


def numbers() -> dict[str, Any]:
    """Scalars made by tests/golden/selfcheck/make.py."""
    return _json((FOLDER / "numbers.json").read_bytes())


def image_reward() -> dict[str, Any]:
    """Scores, tokens, pixels and key shapes of the original `image-reward` package."""
    return _json((FOLDER / "image_reward.json").read_bytes())


def mask2former_keys() -> dict[str, Any]:
    """Parameter shapes of mmdet's small and published detector, and hashes of images that OpenCV resized."""
    return _json(gzip.decompress((FOLDER / "mask2former_keys.json.gz").read_bytes()))


def mplug() -> dict[str, Any]:
    """By configuration: tensor shapes, and what modelscope's mPLUG made of each question."""
    return _json(gzip.decompress((FOLDER / "mplug.json.gz").read_bytes()))


def _json(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(content)
    return found
