"""Residual connection with a gate per image and channel. Source: SANA (arXiv 2410.10629), figure 5."""

import torch
from torch import Tensor

__all__ = ["gated_residual_torch"]


def gated_residual_torch(residual_BNC: Tensor, gate_B1C: Tensor, x_BNC: Tensor) -> Tensor:
    """Return `residual + gate * x`, (B, N, C), in the common dtype of the three."""
    return torch.addcmul(residual_BNC, gate_B1C, x_BNC)
