"""ReLU linear attention over all tokens. Source: SANA (arXiv 2410.10629) section 2.2; SANA-1.5 (arXiv 2501.18427)
section 2.1 for the query-key norm, which spans the whole width, before the head split.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sana_kernels.rms_norm import rms_norm_torch

__all__ = ["linear_attention_torch", "relu_linear_attention"]


def linear_attention_torch(
    q_BNC: Tensor,
    k_BNC: Tensor,
    v_BNC: Tensor,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    *,
    head_dim: int = 32,
    norm_eps: float = 1e-5,
    eps: float = 1e-15,
) -> Tensor:
    """Return `o_n = sum_m (q_n . k_m) v_m / (sum_m q_n . k_m + eps)` a head, with ReLU on q and k; (B, N, C).

    Heads are consecutive groups of `head_dim` channels. With weights (C,), q and k first pass an RMS norm over all C
    channels. See `relu_linear_attention` for the precision. The result has the dtype of v. A query without a positive
    channel gives 0.
    """
    if (q_weight is None) != (k_weight is None):
        raise ValueError("give the norm's weights of both query and key, or of neither")
    if q_weight is not None and k_weight is not None:
        q_BNC = rms_norm_torch(q_BNC, q_weight, eps=norm_eps)
        k_BNC = rms_norm_torch(k_BNC, k_weight, eps=norm_eps)
    heads = [t.unflatten(-1, (-1, head_dim)).transpose(1, 2) for t in (q_BNC, k_BNC, v_BNC)]
    return relu_linear_attention(*heads, eps=eps).transpose(1, 2).flatten(2).to(v_BNC.dtype)


def relu_linear_attention(q_BHND: Tensor, k_BHND: Tensor, v_BHND: Tensor, *, eps: float = 1e-15) -> Tensor:
    """ReLU linear attention of heads, `o_n = sum_m (q_n . k_m) v_m / (sum_m q_n . k_m + eps)`, non-causal.

    Products and division run in fp32 whatever the input dtype or autocast state: the sums over thousands of tokens
    overflow fp16 and lose the small terms in bf16 (SANA section 2.2). Returns (B, H, N, D) in fp32.
    """
    with torch.autocast(q_BHND.device.type, enabled=False):
        # Heads side by side in memory: the products would otherwise copy each operand, and more slowly.
        q, k = _positive(q_BHND), _positive(k_BHND)
        context_BHDD = k.transpose(-1, -2) @ v_BHND.float().contiguous()
        normaliser_BHN1 = q @ k.sum(-2).unsqueeze(-1)
        weighted, normaliser = q @ context_BHDD, normaliser_BHN1 + eps
        return weighted / normaliser if torch.is_grad_enabled() else weighted.div_(normaliser)


def _positive(x: Tensor) -> Tensor:
    """ReLU in fp32 and whole memory; in the copy itself where there is one and nothing is trained."""
    copy = x.float().contiguous()
    return F.relu(copy, inplace=copy is not x and not torch.is_grad_enabled())
