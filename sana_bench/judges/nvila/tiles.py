"""Images cut into tiles, as NVILA-Lite reads them (the recipe is InternVL's)."""

import numpy as np
from numpy.typing import NDArray

from sana_bench.judges.nvila.config import NVILAConfig

__all__ = ["tile_grid", "tiles_of"]


def tile_grid(width: int, height: int, side: int, fewest: int, most: int) -> tuple[int, int]:
    """Return columns and rows, `fewest` to `most` tiles together, whose shape is nearest to the image's.

    Of grids of the same shape the largest is taken of which the image has more than half the pixels. Equally near grids
    of other shapes count in order of their number of tiles.
    """
    grids = sorted(
        ((columns, rows) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)),
        key=lambda grid: grid[0] * grid[1],
    )
    best, nearest = (1, 1), float("inf")
    for columns, rows in grids:
        if columns * rows < fewest:
            continue
        distance = abs(width / height - columns / rows)
        fills = width * height > 0.5 * side * side * columns * rows
        if distance < nearest or (distance == nearest and fills):
            best, nearest = (columns, rows), distance
    return best


def tiles_of(image: NDArray[np.uint8], config: NVILAConfig) -> NDArray[np.float32]:
    """Return an RGB image (height, width, 3) as normalised tiles (tiles, 3, side, side), row by row.

    The last of several tiles is the whole image in small.
    """
    from PIL import Image

    picture, side = Image.fromarray(image), config.image_size
    columns, rows = 1, 1
    if config.tiled:
        columns, rows = tile_grid(*picture.size, side, config.min_tiles, config.max_tiles)
    bicubic = Image.Resampling.BICUBIC
    whole = np.asarray(picture.resize((columns * side, rows * side), bicubic))
    tiles = whole.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    if len(tiles) > 1:
        small = np.asarray(picture.resize((side, side), bicubic))
        tiles = np.concatenate([tiles, small[None]])
    mean, deviation = (np.array(values, np.float32) for values in (config.mean, config.deviation))
    scaled = (tiles.astype(np.float32) / np.float32(255) - mean) / deviation
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
