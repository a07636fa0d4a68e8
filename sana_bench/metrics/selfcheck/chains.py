"""Checks of what happens to an image before a network sees it: codecs, resizes, crops; on the processor."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.preprocess import CLIP_MEAN, CLIP_STD, as_jpeg, clip_pixels
from sana_bench.metrics.selfcheck import golden_files
from sana_bench.metrics.selfcheck.check import Bench, Check, Tolerance
from sana_bench.metrics.selfcheck.recipes import image_reward, mask2former
from sana_bench.metrics.selfcheck.recipes.plain import picture
from sana_models.libraries import without_torchao

__all__ = ["CHECKS", "SANA_SIZE", "SIZE", "thin"]

#: Width and height of the stored picture.
SIZE = (360, 420)
SANA_SIZE = 320
_FULL_GENEVAL = ("geneval/official@1", "geneval/sana@1", "geneval/hf-detector@1")


def thin(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every 23rd row and 17th column of (3, height, width): a few hundred numbers that any difference reaches."""
    return pixels[:, ::23, ::17]


def _largest(found: NDArray[np.float32], stored: NDArray[np.float32]) -> float:
    return float(np.abs(found.astype(np.float64) - stored).max())


def _clean(_: Bench) -> float:
    from sana_bench.metrics.fid.features import clean_pixels

    return _largest(thin(clean_pixels(picture("resize", *SIZE))), golden_files.arrays("pixels")["clean"])


def _legacy(_: Bench) -> float:
    from sana_bench.metrics.fid.features import legacy_pixels

    return _largest(thin(legacy_pixels(picture("resize", *SIZE))), golden_files.arrays("pixels")["legacy"])


def _sana(_: Bench) -> float:
    from sana_bench.metrics.fid.features import sana_pixels

    found = thin(sana_pixels(picture("resize", *SIZE), SANA_SIZE))
    return _largest(found, golden_files.arrays("pixels")["sana"])


def _jpeg(_: Bench) -> float:
    found = as_jpeg(picture("resize", *SIZE))[::11, ::13].astype(np.float64)
    return float(np.abs(found - golden_files.arrays("pixels")["jpeg"]).mean())


def _clip(_: Bench) -> float:
    stored = golden_files.image_reward()["pixels"]
    return max(
        _largest(
            clip_pixels(image_reward.image(*size), image_reward.IMAGE_SIZE)[:, ::13, ::7].ravel(),
            np.array(stored[size[0]]),
        )
        for size in image_reward.IMAGES
    )


def _color_crops(_: Bench) -> float:
    """open_clip's own transform, which the colour classifier uses, on the same images."""
    with without_torchao():
        from open_clip.transform import image_transform
    from PIL import Image

    stored = golden_files.image_reward()["pixels"]
    transform = image_transform(image_reward.IMAGE_SIZE, is_train=False, mean=CLIP_MEAN, std=CLIP_STD)
    return max(
        _largest(
            transform(Image.fromarray(image_reward.image(*size))).numpy()[:, ::13, ::7].ravel(),
            np.array(stored[size[0]]),
        )
        for size in image_reward.IMAGES
    )


def _opencv(_: Bench) -> float:
    from sana_bench.metrics.geneval.mask2former_images import resize_bilinear

    wrong = 0
    for size, (new_height, new_width, digest) in golden_files.mask2former_keys()["resized"].items():
        height, width = map(int, size.split("x"))
        resized = resize_bilinear(mask2former.image(0, (height, width)), new_height, new_width)
        wrong += hashlib.sha256(np.ascontiguousarray(resized).tobytes()).hexdigest() != digest
    return float(wrong)


_FLOAT32 = "float32 operations in another order"

CHECKS = (
    Check(
        "resize: clean-fid's bicubic",
        ("fid/clean@1", "kid/clean@1"),
        _clean,
        Tolerance(1e-3 * 255, "grey levels", "the reference sums in double, this in float32"),
        quick=True,
    ),
    Check(
        "resize: pytorch-fid's bilinear",
        ("fid/pytorch-fid@1",),
        _legacy,
        Tolerance(1e-3, "grey levels", "scaled to 255 before the float32 sums instead of after"),
        quick=True,
    ),
    Check(
        "resize: SANA's crop, then pytorch-fid's bilinear",
        ("fid/sana@1",),
        _sana,
        Tolerance(1e-3, "grey levels", "scaled to 255 before the float32 sums instead of after"),
        quick=True,
    ),
    Check(
        "JPEG of quality 75",
        ("fid/sana@1", "clip_score/sana@1", "image_reward/sana-jpeg@1"),
        _jpeg,
        Tolerance(0.1, "grey levels, mean", "builds of libjpeg round some coefficients by one"),
        quick=True,
    ),
    Check(
        "CLIP's pixels: torchvision's",
        (
            "clip_score/sana@1",
            "image_reward/micro@1",
            "image_reward/official@1",
            "image_reward/sana-jpeg@1",
            "pickscore/official@1",
            "aesthetic/laion@1",
        ),
        _clip,
        Tolerance(1e-6, "deviations", _FLOAT32),
        quick=True,
    ),
    Check(
        "CLIP's pixels of coloured objects",
        _FULL_GENEVAL,
        _color_crops,
        Tolerance(1e-6, "deviations", _FLOAT32),
    ),
    Check(
        "resize: OpenCV's, to the last bit",
        ("geneval/official@1", "geneval/sana@1", "geneval/hf-detector@1"),
        _opencv,
        Tolerance(0, "images that differ", "integers"),
    ),
)
