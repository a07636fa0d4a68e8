"""Deformable attention of Mask2Former's pixel decoder, fast on a processor.

Each query looks at a few points of every level of an image's features (Zhu et al. 2021, arXiv 2010.04159). transformers reads the
levels with `grid_sample`, keeps the value of every point, and sums them afterwards. Here a point is four weighted rows of one
table of features, and the sum over all points of a query is one pass of `embedding_bag`.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sana_models.libraries import without_torchao

with without_torchao():
    from transformers.models.mask2former.modeling_mask2former import (
        Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention as Published,
    )

if TYPE_CHECKING:
    from transformers import Mask2FormerForUniversalSegmentation

__all__ = ["sample_levels", "with_our_sampling"]


class _Attention(Published):
    """The published layer, whose points are read by `sample_levels` on a processor without gradients."""

    def forward(self, **given: Any) -> tuple[Tensor, Tensor]:
        hidden, reference = given["hidden_states"], given["reference_points"]
        if hidden.device.type != "cpu" or torch.is_grad_enabled() or reference.shape[-1] != 2:
            found: tuple[Tensor, Tensor] = super().forward(**given)
            return found
        query = self.with_pos_embed(hidden, given.get("position_embeddings"))
        value = self.value_proj(given["encoder_hidden_states"])
        if (mask := given.get("attention_mask")) is not None:
            value = value.masked_fill(mask[..., None], 0.0)
        sizes = given["spatial_shapes_list"]
        points = (*query.shape[:2], self.n_heads, self.n_levels, self.n_points)
        weights = self.attention_weights(query).view(*points[:3], -1).softmax(-1).view(points)
        # Whole in memory for each level and axis: what is done to one of them is done to long rows of numbers.
        places = self.sampling_offsets(query).view(*points, 2).permute(3, 5, 0, 1, 2, 4).contiguous()
        for level, (height, width) in enumerate(sizes):
            for axis, side in enumerate((width, height)):
                # Reference points are shares of a level, offsets are pixels of it; a pixel's centre is at half.
                reference_BQ11 = reference[:, :, level, axis, None, None]
                places[level, axis].div_(side).add_(reference_BQ11).mul_(side).sub_(0.5)
        mixed = sample_levels(value.unflatten(2, (self.n_heads, -1)), sizes, places, weights)
        return self.output_proj(mixed), weights


def sample_levels(value: Tensor, sizes: Sequence[tuple[int, int]], places: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums (B, Q, heads * d) of the features at some places of all levels, bilinear, zero outside.

    Args:
        value: features (B, S, heads, d), the levels one after the other, each row by row.
        sizes: height and width of each level; their products add up to S.
        places: (levels, 2, B, Q, heads, points), x and y in pixels; 0 is the centre of the first.
        weights: (B, Q, heads, levels, points).
    """
    n_images, n_rows, n_heads, _ = value.shape
    n_points = weights.shape[-1]
    # Half as wide as torch's own integers, of which there are two a feature that is read.
    integers = partial(torch.arange, dtype=torch.int32)
    heads = integers(n_heads)[:, None].expand(-1, n_points)
    first = integers(n_images).view(-1, 1, 1, 1) * (n_rows * n_heads) + heads
    rows, parts = [], []
    for (height, width), (x, y), weight in zip(
        sizes, places, weights.permute(3, 0, 1, 2, 4).contiguous(), strict=True
    ):
        columns = [(column.mul_(n_heads), share) for column, share in _neighbours(x, width)]
        for line, share in _neighbours(y, height):
            start, weighted = line.mul_(width * n_heads).add_(first), share.mul_(weight)
            rows += [start + column for column, _ in columns]
            parts += [weighted * right for _, right in columns]
        first = first + height * width * n_heads
    flat = (weights.shape[:3].numel(), -1)
    bags, shares = (torch.stack(parted, dim=3).view(flat) for parted in (rows, parts))
    summed = F.embedding_bag(bags, value.flatten(0, 2), mode="sum", per_sample_weights=shares)
    return summed.view(*weights.shape[:2], -1)


def _neighbours(place: Tensor, side: int) -> list[tuple[Tensor, Tensor]]:
    """The pixels before and after a place on an axis of `side` pixels, and their shares of it.

    A pixel that does not exist has no share, whichever stands for it.
    """
    floor = place.floor()
    before, after = floor.int(), place - floor
    return [
        (pixel.clamp(0, side - 1), share.mul_((pixel >= 0) & (pixel < side)))
        for pixel, share in ((before, 1 - after), (before + 1, after))
    ]


def with_our_sampling(
    network: "Mask2FormerForUniversalSegmentation",
) -> "Mask2FormerForUniversalSegmentation":
    """The network itself, its deformable attention as fast as it can be here from now on."""
    for module in network.modules():
        if type(module) is Published:
            module.__class__ = _Attention
    return network
