"""Deformable attention of Mask2Former's pixel decoder, fast on a processor.

Each query looks at a few points of every level of an image's features (Zhu et al. 2021, arXiv 2010.04159). transformers reads the
levels with `grid_sample`, keeps the value of every point, and sums them afterwards. Here a point is four weighted rows of one
table of features, and the sum over all points of a query is one pass of `embedding_bag`.
"""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
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
        offsets = self.sampling_offsets(query).view(*points, 2)
        weights = self.attention_weights(query).view(*points[:3], -1).softmax(-1).view(points)
        # Reference points are shares of a level, offsets are pixels of it; a pixel's centre is at half.
        sides = hidden.new_tensor([(width, height) for height, width in sizes])[:, None]
        places = (reference[:, :, None, :, None] + offsets / sides) * sides - 0.5
        mixed = sample_levels(value.unflatten(2, (self.n_heads, -1)), sizes, places, weights)
        return self.output_proj(mixed), weights


def sample_levels(value: Tensor, sizes: Sequence[tuple[int, int]], places: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums (B, Q, heads * d) of the features at some places of all levels, bilinear, zero outside.

    Args:
        value: features (B, S, heads, d), the levels one after the other, each row by row.
        sizes: height and width of each level; their products add up to S.
        places: (B, Q, heads, levels, points, 2), x and y in pixels; 0 is the centre of the first.
        weights: (B, Q, heads, levels, points).
    """
    n_images, n_rows, n_heads, _ = value.shape
    corner = places.floor()
    share = places - corner
    # Half as wide as torch's own integers, of which there are two a feature that is read.
    integers = partial(torch.tensor, dtype=torch.int32)
    areas = (height * width for height, width in sizes)
    starts = integers([0, *accumulate(areas)][:-1])[:, None]
    heights, widths = (integers(sides)[:, None] for sides in zip(*sizes, strict=True))
    image = integers(range(n_images)).view(-1, 1, 1, 1, 1) * n_rows
    head = integers(range(n_heads)).view(-1, 1, 1)
    rows, parts = [], []
    for right in (0, 1):
        for below in (0, 1):
            x, y = (corner[..., axis].int() + step for axis, step in ((0, right), (1, below)))
            part = _share(share[..., 0], right) * _share(share[..., 1], below)
            inside = (x >= 0) & (x < widths) & (y >= 0) & (y < heights)
            # A row that does not exist counts nothing, whichever is read for it.
            pixel = starts + y * widths + x
            rows.append(torch.where(inside, (image + pixel) * n_heads + head, 0))
            parts.append(part * weights * inside)
    flat = (weights.shape[:3].numel(), -1)
    bags, shares = (torch.stack(parted, dim=-1).view(flat) for parted in (rows, parts))
    summed = F.embedding_bag(bags, value.flatten(0, 2), mode="sum", per_sample_weights=shares)
    return summed.view(*weights.shape[:2], -1)


def with_our_sampling(
    network: "Mask2FormerForUniversalSegmentation",
) -> "Mask2FormerForUniversalSegmentation":
    """The network itself, its deformable attention as fast as it can be here from now on."""
    for module in network.modules():
        if type(module) is Published:
            module.__class__ = _Attention
    return network


def _share(share: Tensor, step: int) -> Tensor:
    return share if step else 1 - share
