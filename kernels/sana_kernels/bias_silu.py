"""What follows a convolution of DC-AE (arXiv 2410.10733): its bias and SiLU."""

from torch import Tensor
from torch.nn import functional as F

__all__ = ["bias_silu_torch"]


def bias_silu_torch(x: Tensor, bias: Tensor) -> Tensor:
    """Return `silu(x + bias)` in the dtype of `x` (..., C); `bias` is (C,)."""
    return F.silu(x + bias)
