"""Finds shapes in an image by how well the exact renderer can redraw them; no learnt weights.

The renderer's own anti-aliased coverage is the template: a shape that was painted cleanly fits it almost
perfectly, and a blurred, broken or half-formed one fits none, or two equally well. The confidence says how
far that is so.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import ndimage

from sana_bench.errors import UsageError
from sana_bench.micro.renderer import coverage, shape_contains
from sana_bench.micro.world import COLORS, IMAGE_SIZE, SHAPES, SceneObject

__all__ = ["detect"]

_CONTRAST = 34.0
_MIN_AREA_PX = 16.0
_MIN_CORE_PX = 6
# Colours this far (RGB, Euclidean) from every palette entry have no name; palette entries are over 88 apart.
_MAX_COLOR_DISTANCE = 60.0
# Share of an object's core that a second colour needs before the region counts as two objects that touch.
_MIN_COLOR_SHARE = 0.15
# Overlap (intersection over union) at which the fit alone is worth no confidence, and full confidence.
_FIT_NONE, _FIT_FULL = 0.70, 0.86
# Difference of overlap between two shapes that makes one e times as likely as the other.
_FIT_TEMPERATURE = 0.02

_NEIGHBOURS = np.ones((3, 3), dtype=bool)
_PIXEL_CENTRES = np.arange(IMAGE_SIZE) + 0.5
_PALETTE = np.asarray(list(COLORS.values()), dtype=float)


@dataclass(frozen=True)
class _Region:
    """What may be one object: its pixels, its colour, and how much of each pixel it covers (0 outside)."""

    solid: np.ndarray
    rgb: np.ndarray
    shares: np.ndarray


def detect(image: np.ndarray) -> list[dict[str, Any]]:
    """Return every object found in a uint8 RGB image (64, 64, 3), most confident first.

    Each is `label`, `score` in [0, 1], `box` [x1, y1, x2, y2] in pixels with exclusive ends, and `color`, a
    palette name or None when no palette colour is near. Raises `UsageError` for other sizes and types.
    """
    if image.shape != (IMAGE_SIZE, IMAGE_SIZE, 3) or image.dtype != np.uint8:
        wanted = f"uint8 ({IMAGE_SIZE}, {IMAGE_SIZE}, 3)"
        raise UsageError(f"the micro detector reads {wanted} images, found {image.dtype} {image.shape}")
    pixels = image.astype(float)
    background = _background(pixels)
    foreground = _distance(pixels, background) > _CONTRAST
    found = [
        _detection(region)
        for part in _parts(pixels, foreground)
        for region in _regions(pixels, background, part, foreground)
    ]
    return sorted(found, key=lambda detection: -detection["score"])


def _background(pixels: np.ndarray) -> np.ndarray:
    border = np.ones(pixels.shape[:2], dtype=bool)
    border[1:-1, 1:-1] = False
    return np.median(pixels[border], axis=0)


def _distance(pixels: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    return np.sqrt(((pixels - rgb) ** 2).sum(-1))


def _parts(pixels: np.ndarray, foreground: np.ndarray) -> list[np.ndarray]:
    """Connected foreground, cut where two palette colours meet."""
    labels, count = ndimage.label(foreground, structure=_NEIGHBOURS)
    parts: list[np.ndarray] = []
    for index in range(1, count + 1):
        part = labels == index
        if part.sum() >= _MIN_AREA_PX:
            parts += _split_by_color(pixels, part)
    return parts


def _split_by_color(pixels: np.ndarray, part: np.ndarray) -> list[np.ndarray]:
    core = _core(part)
    names = ((pixels[core][:, None, :] - _PALETTE) ** 2).sum(-1).argmin(-1)
    sizes = np.bincount(names, minlength=len(_PALETTE))
    strong = np.flatnonzero(sizes >= max(_MIN_CORE_PX, _MIN_COLOR_SHARE * core.sum()))
    if len(strong) < 2:
        return [part]
    seeds = np.full(part.shape, -1)
    seeds[core] = np.where(np.isin(names, strong), names, -1)
    rows, columns = ndimage.distance_transform_edt(seeds < 0, return_distances=False, return_indices=True)
    owner = seeds[rows, columns]
    return [part & (owner == name) for name in strong]


def _core(part: np.ndarray) -> np.ndarray:
    """The part without its edge of mixed colours, or all of it where it is too thin for that."""
    core = ndimage.binary_erosion(part, structure=_NEIGHBOURS)
    return core if core.sum() >= _MIN_CORE_PX else part


def _regions(
    pixels: np.ndarray, background: np.ndarray, part: np.ndarray, foreground: np.ndarray
) -> list[_Region]:
    """Turn one part into its separate pieces, with the coverage that its mixed edge colours imply."""
    rgb = np.median(pixels[_core(part)], axis=0)
    # Faint edge pixels fall short of the contrast; they border the part and belong to nothing else.
    reach = part | (ndimage.binary_dilation(part, structure=_NEIGHBOURS) & ~foreground)
    direction = rgb - background
    mixture = np.maximum((pixels - background) @ direction / (direction @ direction), 0.0) * reach
    # A blurred blob has no flat colour: beyond the median colour is as wrong as short of it.
    shares = np.clip(1.0 - np.abs(1.0 - mixture), 0.0, 1.0)
    labels, count = ndimage.label(mixture >= 0.5, structure=_NEIGHBOURS)
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    owner = labels[nearest[0], nearest[1]]
    pieces = [
        _Region(labels == index, rgb, np.where(owner == index, shares, 0.0)) for index in range(1, count + 1)
    ]
    return [piece for piece in pieces if piece.shares.sum() >= _MIN_AREA_PX]


def _detection(region: _Region) -> dict[str, Any]:
    area = float(region.shares.sum())
    x, y = (float((region.shares.sum(axis) @ _PIXEL_CENTRES) / area) for axis in (0, 1))
    overlaps = np.array([_overlap(shape, region.shares, area, x, y) for shape in SHAPES])
    best = int(overlaps.argmax())
    likelihood = 1.0 / np.exp((overlaps - overlaps[best]) / _FIT_TEMPERATURE).sum()
    quality = np.clip((overlaps[best] - _FIT_NONE) / (_FIT_FULL - _FIT_NONE), 0.0, 1.0)
    rows, columns = np.flatnonzero(region.solid.any(1)), np.flatnonzero(region.solid.any(0))
    return {
        "label": SHAPES[best],
        "score": float(likelihood * quality),
        "box": [int(columns[0]), int(rows[0]), int(columns[-1] + 1), int(rows[-1] + 1)],
        "color": _color_name(region.rgb),
    }


def _color_name(rgb: np.ndarray) -> str | None:
    distances = _distance(_PALETTE, rgb)
    best = int(distances.argmin())
    return list(COLORS)[best] if distances[best] <= _MAX_COLOR_DISTANCE else None


def _overlap(shape: str, shares: np.ndarray, area: float, x: float, y: float) -> float:
    """Soft intersection over union with the shape, drawn with the region's area and centre of mass (x, y)."""
    unit_area, unit_x, unit_y = _unit_moments(shape)
    radius = float(np.sqrt(area / unit_area))
    item = SceneObject(shape, "", x - unit_x * radius, y - unit_y * radius, radius, (0, 0, 0))
    drawn, rows, columns = coverage(item)
    shared = np.minimum(drawn, shares[rows, columns]).sum()
    return float(shared / (drawn.sum() + area - shared))


@cache
def _unit_moments(shape: str) -> tuple[float, float, float]:
    """Area and centre of mass (x, y) of the shape with radius 1 and centre 0."""
    axis = (np.arange(400) + 0.5) / 200 - 1
    inside = shape_contains(shape, axis[None, :], axis[:, None])
    return (
        float(inside.mean() * 4),
        float((inside * axis[None, :]).sum() / inside.sum()),
        float((inside * axis[:, None]).sum() / inside.sum()),
    )
