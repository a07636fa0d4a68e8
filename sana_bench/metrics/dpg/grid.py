"""How one image file of DPG-Bench is cut into the pictures that are judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sana_bench.core.errors import SuiteError
from sana_bench.core.images import ImageError
from sana_bench.core.registry import METRICS
from sana_bench.suites.schema import MetricSpec

__all__ = [
    "Grid",
    "Layout",
    "SanaGrid",
    "SingleImage",
    "cut_cells",
    "layout_of",
    "sana_grid",
    "sana_grid_jpeg",
]

Picture = NDArray[np.uint8]

# torchvision's make_grid and Pillow's JPEG, both at their defaults, as SANA's generation scripts use them.
_SEPARATOR = 2
_JPEG_QUALITY = 75
_IN_GRID = 4


class Layout(Protocol):
    """The pictures of one file; or of `joins` images of a prompt, in the file that is made of them."""

    joins: ClassVar[int]

    def identity(self) -> dict[str, Any]: ...

    def cells(self, image: Picture, path: Path) -> list[Picture]:
        """Pictures to judge, in order; raises `ImageError` for a file of another form."""
        ...


@dataclass(frozen=True)
class SingleImage:
    """One file, one picture."""

    joins: ClassVar[int] = 1

    def identity(self) -> dict[str, Any]:
        return {"layout": "single"}

    def cells(self, image: Picture, path: Path) -> list[Picture]:
        return [image]


@dataclass(frozen=True)
class Grid:
    """A 2x2 grid without separators, of which the first `n_cells` count, as the published script reads it.

    `resolution` is the side of a cell in pixels, the script's option; without it, half of the grid's.
    """

    joins: ClassVar[int] = 1
    n_cells: int = _IN_GRID
    resolution: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.n_cells <= _IN_GRID:
            raise ValueError(f"a 2x2 grid has 1 to 4 cells, not {self.n_cells}")

    def identity(self) -> dict[str, Any]:
        return {"layout": "grid-2x2", "cells": self.n_cells, **_named(self.resolution)}

    def cells(self, image: Picture, path: Path) -> list[Picture]:
        if self.resolution is not None:
            return cut_cells(image, self.resolution, self.n_cells)
        height, width = image.shape[:2]
        if height != width or width % 2:
            raise ImageError(path, f"is {width}x{height} pixels, which is not a 2x2 grid of square images")
        return cut_cells(image, width // 2, self.n_cells)


@dataclass(frozen=True)
class SanaGrid:
    """SANA's 2x2 grid with separators of two pixels, cut as if there were none.

    The cells are therefore shifted by up to four pixels and hold strips of separator. `resolution` is the side of a cell
    in pixels, by the size of the grid unless it is given: SANA's launcher gives 512, even for grids of 1024-pixel images,
    of which the cells then show the first image alone. Four images of a prompt are joined to such a grid.
    """

    joins: ClassVar[int] = METRICS.entry("dpg").joins["dpg/sana-grid@1"]
    resolution: int | None = None

    def identity(self) -> dict[str, Any]:
        return {
            "layout": "sana-grid-2x2",
            "cells": _IN_GRID,
            "separator": _SEPARATOR,
            **_named(self.resolution),
        }

    def cells(self, image: Picture, path: Path) -> list[Picture]:
        if self.resolution is not None:
            return cut_cells(image, self.resolution, _IN_GRID)
        height, width = image.shape[:2]
        inside = width - 3 * _SEPARATOR
        if height != width or inside < 2 or inside % 2:
            raise ImageError(path, f"is {width}x{height} pixels, which is not a 2x2 grid with separators")
        return cut_cells(image, inside // 2, _IN_GRID)


def layout_of(protocol: str, choice: MetricSpec) -> Layout:
    """The layout that a suite asks for: a protocol's own, or the published script's options as parameters.

    `pic_num` (not for SANA's grids, of which all four cells count) is the number of cells of a grid, 0 for one picture a
    file; `resolution` is the side of a cell, 0 for what the size of the grid says. Raises `SuiteError` for others.
    """
    is_sana = protocol == "dpg/sana-grid@1"
    parameters = choice.parameters_among({"resolution": 0} if is_sana else {"pic_num": 0, "resolution": 0})
    pic_num, resolution = parameters.get("pic_num", _IN_GRID), parameters["resolution"]
    if not 0 <= pic_num <= _IN_GRID:
        raise SuiteError(
            f"metric 'dpg': pic_num is {pic_num}; 1 to 4 cells of a 2x2 grid, or 0 for single images"
        )
    if resolution < 0 or (resolution and not pic_num):
        raise SuiteError(
            f"metric 'dpg': resolution is {resolution}; the pixels of a cell, and pic_num the number of cells"
        )
    if is_sana:
        return SanaGrid(resolution or None)
    return Grid(pic_num, resolution or None) if pic_num else SingleImage()


def cut_cells(image: Picture, resolution: int, n_cells: int) -> list[Picture]:
    """Squares of `resolution` at its multiples: upper left, upper right, lower left, lower right.

    What lies past the border is black, as Pillow crops.
    """
    picture = Image.fromarray(image)
    corners = [(column * resolution, row * resolution) for row in (0, 1) for column in (0, 1)]
    return [
        np.asarray(picture.crop((left, top, left + resolution, top + resolution)))
        for left, top in corners[:n_cells]
    ]


def _named(resolution: int | None) -> dict[str, int]:
    return {} if resolution is None else {"resolution": resolution}


def sana_grid_jpeg(images: Sequence[Picture]) -> bytes:
    """The file that SANA's scripts write for the four images of a prompt: JPEG of quality 75, 4:2:0.

    Raises ValueError for another number of images, or for unequal or not square ones.
    """
    shapes = {image.shape for image in images}
    if len(images) != _IN_GRID or len(shapes) != 1 or images[0].shape[0] != images[0].shape[1]:
        raise ValueError(f"a grid takes four square images of one size, got {[i.shape for i in images]}")
    size = images[0].shape[0]
    step = size + _SEPARATOR
    grid = np.zeros((2 * step + _SEPARATOR, 2 * step + _SEPARATOR, 3), dtype=np.uint8)
    for place, image in enumerate(images):
        top, left = (_SEPARATOR + step * index for index in divmod(place, 2))
        grid[top : top + size, left : left + size] = image
    buffer = BytesIO()
    Image.fromarray(grid).save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def sana_grid(images: Sequence[Picture]) -> Picture:
    """What is read of the file that SANA's scripts write for the four images of a prompt; raises as `sana_grid_jpeg`."""
    with Image.open(BytesIO(sana_grid_jpeg(images))) as grid:
        return np.asarray(grid)
