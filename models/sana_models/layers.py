"""Layers shared by the transformer and the autoencoder.

Shape suffixes: B batch, N tokens, C channels, H heads, D channels a head, h and w latent height and width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["GatedConvFeedForward", "RMSNorm", "relu_linear_attention"]


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis; statistics and product in fp32, result in the input's dtype."""

    def __init__(self, width: int, *, eps: float = 1e-5, bias: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        normalised = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps) * self.weight.float()
        if self.bias is not None:
            normalised = normalised + self.bias.float()
        return normalised.to(x.dtype)


def relu_linear_attention(q_BHND: Tensor, k_BHND: Tensor, v_BHND: Tensor, *, eps: float = 1e-15) -> Tensor:
    """ReLU linear attention, `o_n = sum_m (q_n . k_m) v_m / (sum_m q_n . k_m + eps)`, non-causal.

    Products and division run in fp32 whatever the input dtype or autocast state: the sums over thousands of tokens
    overflow fp16 and lose the small terms in bf16 (SANA section 2.2). Returns (B, H, N, D) in fp32.
    """
    with torch.autocast(q_BHND.device.type, enabled=False):
        q = F.relu(q_BHND.float())
        k = F.relu(k_BHND.float())
        context_BHDD = k.transpose(-1, -2) @ v_BHND.float()
        normaliser_BHN1 = q @ k.sum(-2).unsqueeze(-1)
        return (q @ context_BHDD) / (normaliser_BHN1 + eps)


class GatedConvFeedForward(nn.Module):
    """Mix-FFN of SANA and DC-AE: 1x1 expand, SiLU, depthwise 3x3, SiLU-gated half, 1x1 reduce.

    Takes and returns (B, h, w, C). The 1x1 convolutions are matrix products over channels and the depthwise one reads the
    same memory as a channels-last image, so no transposed copy is made. The zero padding of the 3x3 is what tells the
    models without position table where a token sits.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv_inverted = nn.Conv2d(width, 2 * hidden, 1)
        self.conv_depth = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.conv_point = nn.Conv2d(hidden, width, 1, bias=False)

    def forward(self, x_BhwC: Tensor) -> Tensor:
        expanded = F.silu(F.linear(x_BhwC, self.conv_inverted.weight.flatten(1), self.conv_inverted.bias))
        mixed = self.conv_depth(expanded.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        value, gate = mixed.chunk(2, dim=-1)
        return F.linear(value * F.silu(gate), self.conv_point.weight.flatten(1))
