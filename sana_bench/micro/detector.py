"""Finds shapes in an image by how well the exact renderer can redraw them; no learnt weights.

The renderer's own shapes, averaged over pixels, are the templates: what was painted cleanly fits one almost
perfectly, and a blurred, broken or half-formed one fits none, or two equally well. The confidence says how
far that is so.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import ndimage

from sana_bench.core.errors import UsageError
from sana_bench.micro.renderer import shape_contains
from sana_bench.micro.world import COLORS, IMAGE_SIZE, SHAPES

__all__ = ["detect"]

_CONTRAST = 34.0
_MIN_AREA_PX = 16.0
_MIN_CORE_PX = 6
# Colours this far (RGB, Euclidean) from every palette entry have no name; palette entries are over 88 apart.
_MAX_COLOR_DISTANCE = 60.0
# Share of an object's core that a second colour needs before the region counts as two objects that touch.
_MIN_COLOR_SHARE = 0.15
# Calibrated on rendered shapes alone: a blur of 0.8 pixels leaves small shapes legible and a fit of 0.80, half a
# shape fits another by at most 0.72, and the two likeliest readings of a legible shape are 0.04 apart.
_FIT_NONE, _FIT_FULL = 0.69, 0.80
_FIT_TEMPERATURE = 0.015

# Cells of a template along each axis: finer than a twentieth of a pixel for every shape that fits the image.
_CELLS = 1024

_NEIGHBOURS = np.ones((3, 3), dtype=bool)
_PALETTE = np.asarray(list(COLORS.values()), dtype=float)


@dataclass(frozen=True)
class _Crop:
    """A window of the image around one connected part; `x` and `y` are its upper left corner."""

    pixels: np.ndarray
    part: np.ndarray
    foreground: np.ndarray
    x: int
    y: int


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
    found = [
        _detection(region, crop.x, crop.y)
        for crop in _crops(pixels, _distance(pixels, background) > _CONTRAST)
        for part in _split_by_color(crop)
        for region in _regions(crop, part, background)
    ]
    return sorted(found, key=lambda detection: -detection["score"])


def _background(pixels: np.ndarray) -> np.ndarray:
    sides = (pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1])
    return np.median(np.concatenate(sides), axis=0)


def _distance(pixels: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    return np.sqrt(((pixels - rgb) ** 2).sum(-1))


def _crops(pixels: np.ndarray, foreground: np.ndarray) -> list[_Crop]:
    labels, _ = ndimage.label(foreground, structure=_NEIGHBOURS)
    crops = []
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        # One pixel more on each side, for the faint edge.
        y, x = max(rows.start - 1, 0), max(columns.start - 1, 0)
        window = (slice(y, rows.stop + 1), slice(x, columns.stop + 1))
        part = labels[window] == index
        if part.sum() >= _MIN_AREA_PX:
            crops.append(_Crop(pixels[window], part, foreground[window], x, y))
    return crops


def _split_by_color(crop: _Crop) -> list[np.ndarray]:
    """The crop's part, cut where two palette colours meet."""
    core = _core(crop.part)
    names = ((crop.pixels[core][:, None, :] - _PALETTE) ** 2).sum(-1).argmin(-1)
    sizes = np.bincount(names, minlength=len(_PALETTE))
    strong = np.flatnonzero(sizes >= max(_MIN_CORE_PX, _MIN_COLOR_SHARE * core.sum()))
    if len(strong) < 2:
        return [crop.part]
    seeds = np.zeros(crop.part.shape, dtype=int)
    seeds[core] = np.where(np.isin(names, strong), names + 1, 0)
    owner = _nearest_label(seeds)
    return [crop.part & (owner == name + 1) for name in strong]


def _core(part: np.ndarray) -> np.ndarray:
    """The part without its edge of mixed colours, or all of it where it is too thin for that."""
    core = ndimage.binary_erosion(part, structure=_NEIGHBOURS)
    return core if core.sum() >= _MIN_CORE_PX else part


def _nearest_label(labels: np.ndarray) -> np.ndarray:
    """Every pixel's nearest label that is not 0."""
    if labels.max() == labels.min():
        return labels
    rows, columns = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    return labels[rows, columns]


def _regions(crop: _Crop, part: np.ndarray, background: np.ndarray) -> list[_Region]:
    """Turn one part into its separate pieces, with the coverage that its mixed edge colours imply."""
    if not part.any():
        return []
    rgb = np.median(crop.pixels[_core(part)], axis=0)
    # Faint edge pixels fall short of the contrast; they border the part and belong to nothing else.
    reach = part | (ndimage.binary_dilation(part, structure=_NEIGHBOURS) & ~crop.foreground)
    direction = rgb - background
    mixture = np.maximum((crop.pixels - background) @ direction / (direction @ direction), 0.0) * reach
    # A blurred blob has no flat colour: beyond the median colour is as wrong as short of it.
    shares = np.clip(1.0 - np.abs(1.0 - mixture), 0.0, 1.0)
    labels, count = ndimage.label(mixture >= 0.5, structure=_NEIGHBOURS)
    if count == 1:
        pieces = [_Region(labels > 0, rgb, shares)]
    else:
        owner = _nearest_label(labels)
        numbers = range(1, count + 1)
        pieces = [_Region(labels == n, rgb, np.where(owner == n, shares, 0.0)) for n in numbers]
    return [piece for piece in pieces if piece.shares.sum() >= _MIN_AREA_PX]


def _detection(region: _Region, x: int, y: int) -> dict[str, Any]:
    overlaps = _overlaps(region.shares)
    best = int(overlaps.argmax())
    likelihood = 1.0 / np.exp((overlaps - overlaps[best]) / _FIT_TEMPERATURE).sum()
    quality = np.clip((overlaps[best] - _FIT_NONE) / (_FIT_FULL - _FIT_NONE), 0.0, 1.0)
    rows, columns = np.flatnonzero(region.solid.any(1)), np.flatnonzero(region.solid.any(0))
    return {
        "label": SHAPES[best],
        "score": float(likelihood * quality),
        "box": [
            x + int(columns[0]),
            y + int(rows[0]),
            x + int(columns[-1]) + 1,
            y + int(rows[-1]) + 1,
        ],
        "color": _color_name(region.rgb),
    }


def _color_name(rgb: np.ndarray) -> str | None:
    distances = _distance(_PALETTE, rgb)
    best = int(distances.argmin())
    return list(COLORS)[best] if distances[best] <= _MAX_COLOR_DISTANCE else None


def _overlaps(shares: np.ndarray) -> np.ndarray:
    """Soft intersection over union with each shape, drawn with the same area and centre of mass."""
    area = float(shares.sum())
    x, y = (float(shares.sum(axis) @ (np.arange(shares.shape[1 - axis]) + 0.5)) / area for axis in (0, 1))
    overlaps = []
    for shape in SHAPES:
        template = _template(shape)
        radius = float(np.sqrt(area / template.area))
        drawn = template.draw(x - template.x * radius, y - template.y * radius, radius, shares.shape)
        shared = np.minimum(drawn, shares).sum()
        overlaps.append(shared / (2 * area - shared))
    return np.array(overlaps)


@dataclass(frozen=True)
class _Template:
    """A shape of radius 1: `area`, centre of mass (`x`, `y`), and how many cells up to each corner it fills."""

    area: float
    x: float
    y: float
    filled: np.ndarray

    def draw(self, cx: float, cy: float, radius: float, size: tuple[int, ...]) -> np.ndarray:
        """The share of each pixel of an image of `size` (rows, columns) that the shape at (cx, cy) covers."""
        rows = np.rint(((np.arange(size[0] + 1) - cy) / radius + 1) * (_CELLS / 2)).astype(int)
        columns = np.rint(((np.arange(size[1] + 1) - cx) / radius + 1) * (_CELLS / 2)).astype(int)
        corners = self.filled[np.clip(rows, 0, _CELLS)[:, None], np.clip(columns, 0, _CELLS)]
        filled = np.diff(np.diff(corners, axis=0), axis=1)
        return filled / np.maximum(np.diff(rows)[:, None] * np.diff(columns), 1)


@cache
def _template(shape: str) -> _Template:
    axis = (np.arange(_CELLS) + 0.5) * (2 / _CELLS) - 1
    inside = shape_contains(shape, axis[None, :], axis[:, None])
    filled = np.zeros((_CELLS + 1, _CELLS + 1), dtype=np.int32)
    filled[1:, 1:] = inside.cumsum(0).cumsum(1)
    count = inside.sum()
    x, y = float(inside.sum(0) @ axis / count), float(inside.sum(1) @ axis / count)
    return _Template(float(inside.mean() * 4), x, y, filled)
