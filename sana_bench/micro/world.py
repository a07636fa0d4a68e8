"""The micro world: coloured shapes on a light background, 64 by 64 pixels.

Coordinates are pixels, x to the right and y down, with the origin at the upper left corner of the image.
"""

from dataclasses import dataclass

__all__ = ["COLORS", "IMAGE_SIZE", "SHAPES", "Scene", "SceneObject"]

IMAGE_SIZE = 64

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "heart")

#: GenEval's ten colours in its palette order, far from one another and from every background.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "orange": (245, 140, 20),
    "yellow": (245, 225, 45),
    "green": (40, 160, 60),
    "blue": (35, 85, 220),
    "purple": (130, 45, 170),
    "pink": (250, 140, 195),
    "brown": (120, 72, 35),
    "black": (25, 25, 25),
    "white": (250, 250, 250),
}


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One shape; (cx, cy) is its centre, `radius` half the side of its frame, `rgb` the painted colour."""

    shape: str
    color: str
    cx: float
    cy: float
    radius: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """Objects whose frames do not overlap, on a flat background."""

    objects: tuple[SceneObject, ...]
    background: tuple[int, int, int]
