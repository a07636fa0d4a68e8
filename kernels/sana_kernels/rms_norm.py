"""Root-mean-square norm over the last axis, with a weight. Source: Zhang and Sennrich (arXiv 1910.07467)."""

import torch
from torch import Tensor

__all__ = ["rms_norm_torch"]


def rms_norm_torch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    eps: float = 1e-5,
) -> Tensor:
    """Return `x * rsqrt(mean(x^2) + eps) * weight + bias` over the last axis of `x` (..., C); `weight` and `bias` are (C,).

    Statistics, product and bias are fp32, the result has the dtype of `x`; `residual`, shaped as `x`, is added to the result.
    """
    x32 = x.float()
    # The norm reads x once and stores no squares.
    norm = torch.linalg.vector_norm(x32, dim=-1, keepdim=True)
    inverse = torch.rsqrt(norm.square() / x.shape[-1] + eps)
    scaled = x32 * weight.float()
    if bias is not None:
        result = torch.addcmul(bias.float(), scaled, inverse)
    else:
        result = scaled * inverse if torch.is_grad_enabled() else scaled.mul_(inverse)
    return result.to(x.dtype) if residual is None else residual + result.to(x.dtype)
