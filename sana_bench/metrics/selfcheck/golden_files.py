"""The stored golden values: what reference implementations computed, as package data of about 120 KB."""

import gzip
import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sana_bench.core.arrays import read_arrays
from sana_models.files import read_bytes

__all__ = ["FOLDER", "arrays", "image_reward", "mask2former_keys", "mplug", "numbers", "preference"]

FOLDER = Path(__file__).resolve().parent / "golden"


def arrays(name: str) -> dict[str, NDArray[Any]]:
    """The arrays of `NAME.npz`, by name."""
    return read_arrays(FOLDER / f"{name}.npz")


def numbers() -> dict[str, Any]:
    """Scalars made by tests/golden/selfcheck/make.py."""
    return _json(read_bytes(FOLDER / "numbers.json"))


def image_reward() -> dict[str, Any]:
    """Scores, tokens, pixels and key shapes of the original `image-reward` package."""
    return _json(read_bytes(FOLDER / "image_reward.json"))


def mask2former_keys() -> dict[str, Any]:
    """Parameter shapes of mmdet's small and published detector, and hashes of images that OpenCV resized."""
    return _json(gzip.decompress(read_bytes(FOLDER / "mask2former_keys.json.gz")))


def mplug() -> dict[str, Any]:
    """By configuration: tensor shapes, and what modelscope's mPLUG made of each question."""
    return _json(gzip.decompress(read_bytes(FOLDER / "mplug.json.gz")))


def preference() -> dict[str, Any]:
    """Scores of the packages of HPS and PickScore, and of the aesthetic head; made by tests/golden/preference/make.py."""
    return _json(read_bytes(FOLDER / "preference.json"))


def _json(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(content)
    return found
