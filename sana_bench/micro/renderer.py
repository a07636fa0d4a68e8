"""Exact, anti-aliased rendering of scenes: four samples a pixel along each axis, averaged by area."""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from sana_bench.micro.world import IMAGE_SIZE, Scene, SceneObject

if TYPE_CHECKING:
    import numpy as np

__all__ = ["coverage", "object_box", "render", "shape_contains"]

_OVERSAMPLING = 4

Points: TypeAlias = "np.ndarray"


def _circle(u: Points, v: Points) -> Points:
    return u * u + v * v <= 1.0


def _square(u: Points, v: Points) -> Points:
    import numpy as np

    return np.maximum(np.abs(u), np.abs(v)) <= 0.9


def _triangle(u: Points, v: Points) -> Points:
    import numpy as np

    return (v <= 0.85) & (np.abs(u) <= (v + 0.95) / 1.8)


def _star(u: Points, v: Points) -> Points:
    # Fold the plane into one tenth of the star, where its edge is a line from a tip to an inner corner.
    import numpy as np

    sector = np.pi / 5
    angle = np.abs((np.arctan2(u, -v) + sector) % (2 * sector) - sector)
    inner = 0.46
    distance = np.hypot(u, v)
    edge_x, edge_y = inner * np.cos(sector) - 1.0, inner * np.sin(sector)
    return (distance * np.cos(angle) - 1.0) * edge_y - distance * np.sin(angle) * edge_x <= 0


def _cross(u: Points, v: Points) -> Points:
    import numpy as np

    a, b = np.abs(u), np.abs(v)
    return (np.minimum(a, b) <= 0.32) & (np.maximum(a, b) <= 0.95)


def _ring(u: Points, v: Points) -> Points:
    squared = u * u + v * v
    return (squared <= 1.0) & (squared >= 0.5**2)


def _diamond(u: Points, v: Points) -> Points:
    import numpy as np

    return 1.25 * np.abs(u) + np.abs(v) <= 1.0


def _heart(u: Points, v: Points) -> Points:
    x, y = 1.18 * u, 0.12 - 1.12 * v
    return (x * x + y * y - 1.0) ** 3 - x * x * y**3 <= 0


_CONTAINS: dict[str, Callable[[Points, Points], Points]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "diamond": _diamond,
    "heart": _heart,
}


def shape_contains(shape: str, u: Points, v: Points) -> Points:
    """Whether points of the shape's frame, [-1, 1] both ways with v down, lie inside the shape."""
    return _CONTAINS[shape](u, v)


@lru_cache(maxsize=512)
def coverage(item: SceneObject) -> "tuple[np.ndarray, slice, slice]":
    """Return the covered share of each pixel in the object's window (read-only), and the window's rows and columns."""
    rows = _window(item.cy, item.radius)
    columns = _window(item.cx, item.radius)
    v = (_samples(rows) - item.cy) / item.radius
    u = (_samples(columns) - item.cx) / item.radius
    inside = shape_contains(item.shape, u[None, :], v[:, None])
    k = _OVERSAMPLING
    shares = inside.reshape(len(v) // k, k, len(u) // k, k).mean(axis=(1, 3))
    shares.flags.writeable = False
    return shares, rows, columns


@lru_cache(maxsize=4096)
def object_box(item: SceneObject) -> tuple[int, int, int, int]:
    """Pixel box (x1, y1, x2, y2), end exclusive, of the pixels that the object covers at least by half."""
    import numpy as np

    shares, rows, columns = coverage(item)
    solid = shares >= 0.5
    y, x = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    return (
        int(columns.start + x[0]),
        int(rows.start + y[0]),
        int(columns.start + x[-1] + 1),
        int(rows.start + y[-1] + 1),
    )


def render(scene: Scene) -> "np.ndarray":
    """Return the scene as uint8 (64, 64, 3)."""
    import numpy as np

    canvas = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3))
    canvas[:] = scene.background
    for item in scene.objects:
        shares, rows, columns = coverage(item)
        window = canvas[rows, columns]
        canvas[rows, columns] = window + shares[..., None] * (np.asarray(item.rgb, dtype=float) - window)
    return np.floor(canvas + 0.5).astype(np.uint8)


def _window(centre: float, radius: float) -> slice:
    import numpy as np

    return slice(max(0, int(np.floor(centre - radius))), min(IMAGE_SIZE, int(np.ceil(centre + radius)) + 1))


def _samples(window: slice) -> "np.ndarray":
    import numpy as np

    count = (window.stop - window.start) * _OVERSAMPLING
    return window.start + (np.arange(count) + 0.5) / _OVERSAMPLING
