"""Root-mean-square norm over the last axis, with a weight. Source: Zhang and Sennrich (arXiv 1910.07467)."""

import torch
from torch import Tensor

__all__ = ["rms_norm_torch"]


def rms_norm_torch(x: Tensor, weight: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Return `x * rsqrt(mean(x^2) + eps) * weight` over the last axis of `x` (..., C); `weight` is (C,).

    Statistics and product are fp32, the result has the dtype of `x`.
    """
    x32 = x.float()
    # The norm reads x once and stores no squares.
    norm = torch.linalg.vector_norm(x32, dim=-1, keepdim=True)
    return (x32 * weight.float() * torch.rsqrt(norm.square() / x.shape[-1] + eps)).to(x.dtype)
