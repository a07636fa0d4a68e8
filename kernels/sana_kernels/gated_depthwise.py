"""The middle of SANA's Mix-FFN: depthwise 3x3 and a SiLU gate. Source: SANA (arXiv 2410.10629) section 2.2."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["gated_depthwise_torch"]


def gated_depthwise_torch(x_BhwC: Tensor, weight_C133: Tensor, bias_C: Tensor) -> Tensor:
    """Return `a * silu(g)`, (B, h, w, C/2), with a and g the halves of the depthwise 3x3 of `x` (B, h, w, C).

    The convolution pads with zeros. It reads tokens-last memory as a channels-last image, so nothing is transposed.
    """
    image = x_BhwC.permute(0, 3, 1, 2)
    mixed = F.conv2d(image, weight_C133, bias_C, padding=1, groups=image.shape[1]).permute(0, 2, 3, 1)
    value, gate = mixed.chunk(2, dim=-1)
    activated = F.silu(gate)
    return value * activated if torch.is_grad_enabled() else activated.mul_(value)
