"""ReLU linear attention in two kernels, three with query-key norm; see `sana_kernels.linear_attention`."""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from sana_kernels import launch
from sana_kernels import linear_attention_kernels as kernels
from sana_kernels.configs import AttentionConfig, attention_config, row_config
from sana_kernels.rms_norm_triton import rms_norm_backward

__all__ = ["linear_attention_triton"]

#: All of a head's programs read all its splits: the traffic grows with the square of this.
MOST_SPLITS_READ = 4


def linear_attention_triton(
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
    """`linear_attention_torch` in Triton.

    Raises ValueError on arguments that differ in shape or dtype, on a width that is no multiple of `head_dim`, and for
    a head or a width beyond the largest configuration.
    """
    if (q_weight is None) != (k_weight is None):
        raise ValueError("give the norm's weights of both query and key, or of neither")
    shapes = [tuple(t.shape) for t in (q_BNC, k_BNC, v_BNC)]
    if len(shapes[0]) != 3 or len(set(shapes)) > 1 or shapes[0][2] % head_dim:
        raise ValueError(
            f"query, key and value are {shapes}; expected one (B, N, C), C a multiple of {head_dim}"
        )
    if len({q_BNC.dtype, k_BNC.dtype, v_BNC.dtype}) > 1:
        raise ValueError(
            f"query, key and value are {q_BNC.dtype}, {k_BNC.dtype} and {v_BNC.dtype}; expected one dtype"
        )
    return launch.run(_LinearAttention, q_BNC, k_BNC, v_BNC, q_weight, k_weight, head_dim, norm_eps, eps)


def _sizes(
    x_BNC: Tensor, head_dim: int, norm: bool
) -> tuple[AttentionConfig, tuple[int, int], dict[str, Any]]:
    """Return configuration, grid (heads, splits of the tokens), and what every kernel is compiled with."""
    batch, tokens, width = x_BNC.shape
    config = attention_config(head_dim, x_BNC.dtype)
    splits = triton.cdiv(tokens, config.tokens)
    constants = {
        "PRECISION": config.precision,
        "NORM": norm,
        "BLOCK_N": config.block,
        "BLOCK_D": config.head_dim,
        "TOKENS": config.tokens,
        "num_warps": config.warps,
    }
    return config, (batch * (width // head_dim), splits), constants


def _partials(x_BNC: Tensor, grid: tuple[int, int], config: AttentionConfig) -> tuple[Tensor, Tensor]:
    side = config.head_dim
    matrices = launch.empty((*grid, side, side), torch.float32, x_BNC.device)
    return matrices, launch.empty((*grid, side), torch.float32, x_BNC.device)


def _gathered(partials: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Add many splits up once; every program that reads a few does it on its own, which spares two launches."""
    if partials[0].shape[1] <= MOST_SPLITS_READ:
        return partials
    return partials[0].sum(1, keepdim=True), partials[1].sum(1, keepdim=True)


def _inverse_norms(q: Tensor, k: Tensor, eps: float) -> Tensor:
    """Return (2, B, N) fp32: one factor a row of q, and of k."""
    batch, tokens, width = q.shape
    config = row_config(width)
    out = launch.empty((2, batch, tokens), torch.float32, q.device)
    kernels.inverse_norm_kernel[(batch * tokens,)](
        q, k, out, eps, tokens, batch * tokens, width,
        q.stride(0), q.stride(1), k.stride(0), k.stride(1), BLOCK=config.block, num_warps=config.warps,
    )  # fmt: skip
    return out


class _LinearAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, q_weight: Tensor | None, k_weight: Tensor | None,
        head_dim: int, norm_eps: float, eps: float,
    ) -> Tensor:  # fmt: skip
        q, k, v = (launch.unit_stride(t) for t in (q, k, v))
        batch, tokens, width = q.shape
        norm = q_weight is not None
        # Without norm the kernels take its pointers and never read them.
        inverse_q = inverse_k = q
        q_scale, k_scale = (t.contiguous() if t is not None else q for t in (q_weight, k_weight))
        out = launch.empty((batch, tokens, width), v.dtype, v.device)
        config, grid, constants = _sizes(q, head_dim, norm)
        contexts, normalisers = _partials(q, grid, config)
        if out.numel():
            with launch.on_device(q):
                if norm:
                    inverse_q, inverse_k = _inverse_norms(q, k, norm_eps)
                kernels.context_kernel[grid](
                    k, v, inverse_k, k_scale, contexts, normalisers, tokens, width // head_dim, head_dim,
                    k.stride(0), k.stride(1), v.stride(0), v.stride(1), **constants,
                )  # fmt: skip
                contexts, normalisers = _gathered((contexts, normalisers))
                kernels.attend_kernel[(grid[0], triton.cdiv(tokens, config.attended))](
                    q, inverse_q, q_scale, contexts, normalisers, out, eps, tokens, width // head_dim, head_dim,
                    contexts.shape[1],
                    q.stride(0), q.stride(1), **constants | {"TOKENS": config.attended},
                )  # fmt: skip
        ctx.save_for_backward(q, k, v, q_weight, k_weight, inverse_q, inverse_k, contexts, normalisers)
        ctx.head_dim, ctx.norm_eps, ctx.eps = head_dim, norm_eps, eps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, q_weight, k_weight, inverse_q, inverse_k, contexts, normalisers = ctx.saved_tensors
        grad = launch.unit_stride(grad)
        batch, tokens, width = q.shape
        heads = width // ctx.head_dim
        norm = q_weight is not None
        q_scale, k_scale = (t.contiguous() if t is not None else q for t in (q_weight, k_weight))
        config, grid, constants = _sizes(q, ctx.head_dim, norm)
        grad_q, grad_k, grad_v = (launch.empty((batch, tokens, width), q.dtype, q.device) for _ in range(3))
        grad_contexts, grad_normalisers = _partials(q, grid, config)
        if grad.numel():
            with launch.on_device(q):
                kernels.query_backward_kernel[grid](
                    q, inverse_q, q_scale, contexts, normalisers, grad, grad_q, grad_contexts, grad_normalisers,
                    ctx.eps, tokens, heads, ctx.head_dim, contexts.shape[1],
                    q.stride(0), q.stride(1), grad.stride(0), grad.stride(1), **constants,
                )  # fmt: skip
                grad_contexts, grad_normalisers = _gathered((grad_contexts, grad_normalisers))
                kernels.key_backward_kernel[grid](
                    k, v, inverse_k, k_scale, grad_contexts, grad_normalisers, grad_k, grad_v,
                    tokens, heads, ctx.head_dim, grad_contexts.shape[1],
                    k.stride(0), k.stride(1), v.stride(0), v.stride(1), **constants,
                )  # fmt: skip
        if not norm:
            return grad_q, grad_k, grad_v, None, None, None, None, None
        grad_q, grad_q_weight = rms_norm_backward(q, q_weight, grad_q, ctx.norm_eps)
        grad_k, grad_k_weight = rms_norm_backward(k, k_weight, grad_k, ctx.norm_eps)
        weights = (grad_q_weight.to(q_weight.dtype), grad_k_weight.to(k_weight.dtype))
        return grad_q, grad_k, grad_v, *weights, None, None, None
