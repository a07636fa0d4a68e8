"""Decoding of large images in overlapping tiles, so that memory follows the tile and not the image.

Tiles are decoded alone and cross-faded linearly where they overlap, first with the tile above, then with the
one to the left, as the public pipelines do. Every tile sees only its own latents, so the result equals the untiled one
only as far as the decoder's global attention allows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sana_models.dc_ae import DCAE

__all__ = ["Tiling", "decode_tiled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Tile side and distance between tiles in image pixels; their difference overlaps.

    The defaults are those of the public pipelines; for 4096 pixels these suggest 1024 and 896. Raises ValueError
    unless 0 < stride <= tile.
    """

    tile: int = 512
    stride: int = 448

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.tile:
            raise ValueError(f"tile is {self.tile} and stride {self.stride}; expected 0 < stride <= tile")


def decode_tiled(autoencoder: DCAE, latents: Tensor, tiling: Tiling) -> Tensor:
    """Raw latents (B, C, h, w) to images (B, 3, H, W) around [-1, 1], decoded tile by tile.

    Latents no larger than a tile are decoded whole. Raises ValueError when tile or stride is not a multiple of the
    autoencoder's compression.
    """
    factor = autoencoder.config.spatial_compression
    if tiling.tile % factor or tiling.stride % factor:
        raise ValueError(
            f"tile {tiling.tile} and stride {tiling.stride} must be multiples of {factor} pixels"
        )
    tile, stride = tiling.tile // factor, tiling.stride // factor
    height, width = latents.shape[-2:]
    if height <= tile and width <= tile:
        return autoencoder.decode(latents)
    overlap = tiling.tile - tiling.stride
    out = latents.new_empty(len(latents), 3, height * factor, width * factor)
    above: list[Tensor] = []
    for top in range(0, height, stride):
        row: list[Tensor] = []
        for left in range(0, width, stride):
            decoded = autoencoder.decode(latents[:, :, top : top + tile, left : left + tile])
            if above:
                decoded = _cross_fade(above[len(row)], decoded, overlap, dim=2)
            if row:
                decoded = _cross_fade(row[-1], decoded, overlap, dim=3)
            part = decoded[:, :, : tiling.stride, : tiling.stride]
            y, x = top * factor, left * factor
            out[:, :, y : y + part.shape[2], x : x + part.shape[3]] = part
            row.append(decoded)
        above = row
    return out


def _cross_fade(before: Tensor, after: Tensor, overlap: int, *, dim: int) -> Tensor:
    """Fade from the end of `before` into the beginning of `after` along `dim`."""
    length = min(before.shape[dim], after.shape[dim], overlap)
    if not length:
        return after
    weight = torch.arange(length, device=after.device, dtype=after.dtype) / length
    weight = weight[:, None] if dim == 2 else weight
    end = before.narrow(dim, before.shape[dim] - length, length)
    mixed = end * (1 - weight) + after.narrow(dim, 0, length) * weight
    return torch.cat([mixed, after.narrow(dim, length, after.shape[dim] - length)], dim=dim)
