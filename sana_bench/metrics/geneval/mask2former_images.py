"""What surrounds GenEval's detector: from an image to its input, and from its logits to detections.

Reference: the test pipeline and the instance branch of mmdet 2.28.2 (`mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco`),
which resizes with OpenCV. Other resizers differ by up to 19 grey levels on 1024-pixel images, so OpenCV's arithmetic is
repeated here in integers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["MIN_SCORE", "Found", "Prepared", "input_sizes", "prepare", "read_logits", "resize_bilinear"]

#: Detections below this are not kept: no protocol looks below 0.3.
MIN_SCORE = 0.05

_SCALE = (1333, 800)
_DIVISOR = 32
_PAD = 128
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)
_MAX_DETECTIONS = 100
# Fixed-point bits of OpenCV's interpolation weights.
_BITS = 11
# Masks at image size are large; this many are held at once.
_MASKS_AT_ONCE = 8


@dataclass(frozen=True)
class Prepared:
    """The network's input (3, padded height, padded width), and the sizes (height, width) that led to it."""

    pixels: Tensor
    resized: tuple[int, int]
    original: tuple[int, int]

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.pixels.shape[-2], self.pixels.shape[-1]


@dataclass(frozen=True)
class Found:
    """One detection: class index, confidence, box [x1, y1, x2, y2] with exclusive ends, boolean mask (H, W)."""

    label: int
    score: float
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_]


def input_sizes(
    height: int, width: int, scale: tuple[int, int] = _SCALE
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Height and width that an image is resized to, and those of the network's input, which pads it to multiples of 32."""
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    resized = int(height * factor + 0.5), int(width * factor + 0.5)
    return resized, (-(-resized[0] // _DIVISOR) * _DIVISOR, -(-resized[1] // _DIVISOR) * _DIVISOR)


def prepare(image: NDArray[np.uint8], scale: tuple[int, int] = _SCALE) -> Prepared:
    """Resize an RGB image (H, W, 3) into `scale` (longer, shorter side), pad it with grey and normalise it.

    Padding is on the right and at the bottom, to multiples of 32, and happens before the normalisation.
    """
    height, width = image.shape[:2]
    resized, padded = input_sizes(height, width, scale)
    small = resize_bilinear(image, *resized)
    canvas = np.full((*padded, 3), _PAD, dtype=np.float32)
    canvas[: resized[0], : resized[1]] = small
    # The reference multiplies by the reciprocal, in float32 like the subtraction before it.
    normal = (canvas - np.array(_MEAN, np.float32)) * (1 / np.array(_STD, np.float64)).astype(np.float32)
    return Prepared(torch.from_numpy(normal).permute(2, 0, 1).contiguous(), resized, (height, width))


def resize_bilinear(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """OpenCV's `resize` with INTER_LINEAR for uint8 (H, W, C), to the last bit; nothing is antialiased."""
    if image.shape[:2] == (height, width):
        return image
    if image.shape[:2] == (2 * height, 2 * width):
        # The one case that OpenCV hands to its area resizer: the rounded mean of 2x2.
        blocks = image.reshape(height, 2, width, 2, -1).astype(np.uint16)
        mean: NDArray[np.uint8] = ((blocks.sum(axis=(1, 3)) + 2) >> 2).astype(np.uint8)
        return mean
    rows, row_weights = _taps(image.shape[0], height, clamp_weight=False)
    columns, column_weights = _taps(image.shape[1], width, clamp_weight=True)
    pixels = image.astype(np.int32)
    lines = sum(
        pixels[:, column] * weight[None, :, None]
        for column, weight in zip(columns, column_weights, strict=True)
    )
    # The vertical pass drops low bits of lines and products before it rounds.
    lines = np.asarray(lines) >> 4
    total = sum(
        (lines[row] * weight[:, None, None]) >> 16 for row, weight in zip(rows, row_weights, strict=True)
    )
    return np.clip((np.asarray(total) + 2) >> 2, 0, 255).astype(np.uint8)


def read_logits(
    classes: Tensor, masks: Tensor, prepared: Prepared, min_score: float = MIN_SCORE
) -> list[Found]:
    """Detections of one image, in the reference's order of classes and, within one, of descending class score.

    Args:
        classes: logits (queries, classes + 1), the last for nothing.
        masks: logits (queries, height, width) of the padded input.
        min_score: what does not reach it is left out. A score is a probability times the mean certainty of the mask, so
            a probability below it already decides, and most masks are never enlarged.
    """
    probabilities = classes.float().softmax(-1)[:, :-1]
    n_classes = probabilities.shape[1]
    top = probabilities.flatten().topk(min(_MAX_DETECTIONS, probabilities.numel()))
    pairs = [
        (value, int(index) // n_classes, int(index) % n_classes)
        for value, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        if value >= min_score
    ]
    queries = sorted({query for _, query, _ in pairs})
    seen = dict(zip(queries, _masks(masks[queries].float(), prepared), strict=True)) if queries else {}
    found = []
    for value, query, label in pairs:
        certainty, box, mask = seen[query]
        score = float(np.float32(value) * np.float32(certainty))
        if score >= min_score:
            found.append(Found(label, score, box, mask))
    return sorted(found, key=lambda one: one.label)


_Mask = tuple[float, tuple[float, float, float, float], NDArray[np.bool_]]


def _masks(logits: Tensor, prepared: Prepared) -> Iterator[_Mask]:
    """Certainty, box and mask at image size of each query, from logits (n, height, width)."""
    for part in logits.split(_MASKS_AT_ONCE):
        large = functional.interpolate(part[:, None], prepared.padded, mode="bilinear", align_corners=False)
        cut = large[:, :, : prepared.resized[0], : prepared.resized[1]]
        full = functional.interpolate(cut, prepared.original, mode="bilinear", align_corners=False)[:, 0]
        positive = full > 0
        areas = positive.flatten(1).sum(1).float()
        # In place: at image size each pass over fresh memory costs as much as the sigmoid.
        certainty = full.sigmoid_().mul_(positive).flatten(1).sum(1) / (areas + 1e-6)
        for value, mask in zip(certainty.tolist(), positive.cpu().numpy(), strict=True):
            yield value, _box(mask), mask


def _box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


_Taps = tuple[tuple[NDArray[np.int64], NDArray[np.int64]], tuple[NDArray[np.int32], NDArray[np.int32]]]


def _taps(source: int, target: int, *, clamp_weight: bool) -> _Taps:
    """The two source places of each target place, and their weights in fixed point.

    Beyond an edge OpenCV repeats the outermost pixel: by its weight along a row, by its place down a column.
    """
    place = ((np.arange(target) + 0.5) * (1 / (target / source)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    share = (place - first.astype(np.float32)).astype(np.float32)
    if clamp_weight:
        share = np.where((first < 0) | (first >= source - 1), np.float32(0), share)
        first = np.clip(first, 0, source - 1)
    scale = np.float32(1 << _BITS)
    weights = (np.rint((1 - share) * scale).astype(np.int32), np.rint(share * scale).astype(np.int32))
    return (np.clip(first, 0, source - 1), np.clip(first + 1, 0, source - 1)), weights
