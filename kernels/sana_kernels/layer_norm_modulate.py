"""Layer norm without parameters, then a scale and a shift per image. Source: SANA (arXiv 2410.10629), figure 5."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["layer_norm_modulate_torch"]


def layer_norm_modulate_torch(
    x_BNC: Tensor, shift_B1C: Tensor, scale_B1C: Tensor, *, eps: float = 1e-6
) -> Tensor:
    """Return `layer_norm(x) * (1 + scale) + shift`, (B, N, C), in the common dtype of the three."""
    if (
        len(shift_B1C) == len(scale_B1C) == 1
        and x_BNC.dtype == shift_B1C.dtype == scale_B1C.dtype == torch.float32
    ):
        # One modulation for all images, as sampling has it, is a weight and a bias: half the time on a processor.
        return F.layer_norm(x_BNC, x_BNC.shape[-1:], (1 + scale_B1C).flatten(), shift_B1C.flatten(), eps)
    return torch.addcmul(shift_B1C, F.layer_norm(x_BNC, x_BNC.shape[-1:], eps=eps), 1 + scale_B1C)
