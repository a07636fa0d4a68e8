"""RMS norm in Triton: one read and one write; see `sana_kernels.rms_norm` for the mathematics."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from sana_kernels import launch
from sana_kernels.configs import row_config

__all__ = ["rms_norm_backward", "rms_norm_triton"]

#: Programs that share the backward pass; each leaves one row of partial weight gradients.
PARTIALS = 256


@triton.jit
def rms_norm_forward_kernel(x, weight, out, eps, tokens, width, stride_xb, stride_xn, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    base = x + (row // tokens) * stride_xb + (row % tokens) * stride_xn
    values = tl.load(base + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(values * values, 0) / width + eps)
    tl.store(out + row * width + columns, values * scale * inverse, mask=inside)


@triton.jit
def rms_norm_backward_kernel(
    x, weight, grad_out, grad_x, partial_weight, eps, tokens, rows, rows_per_program, width,
    stride_xb, stride_xn, stride_gb, stride_gn, BLOCK: tl.constexpr,
):  # fmt: skip
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    scale = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    grad_weight = tl.zeros([BLOCK], dtype=tl.float32)
    first = tl.program_id(0).to(tl.int64) * rows_per_program
    for step in range(rows_per_program):
        row = first + step
        valid = columns < tl.where(row < rows, width, 0)
        batch = row // tokens
        token = row % tokens
        values = tl.load(x + batch * stride_xb + token * stride_xn + columns, mask=valid, other=0.0)
        values = values.to(tl.float32)
        grad = tl.load(grad_out + batch * stride_gb + token * stride_gn + columns, mask=valid, other=0.0)
        grad = grad.to(tl.float32)
        inverse = 1.0 / tl.sqrt(tl.sum(values * values, 0) / width + eps)
        normalised = values * inverse
        grad_weight += grad * normalised
        grad *= scale
        mean = tl.sum(grad * normalised, 0) / width
        tl.store(grad_x + row * width + columns, inverse * (grad - normalised * mean), mask=valid)
    tl.store(partial_weight + tl.program_id(0).to(tl.int64) * width + columns, grad_weight, mask=inside)


def rms_norm_triton(x: Tensor, weight: Tensor, *, eps: float = 1e-5) -> Tensor:
    """`rms_norm_torch` in one kernel; raises ValueError above the widest configuration."""
    result: Tensor = _RMSNorm.apply(x, weight, eps)
    return result


def rms_norm_backward(x_BNC: Tensor, weight: Tensor, grad_BNC: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, (B, N, C), and of the weight, (C,) in fp32."""
    x, grad, weight = launch.unit_stride(x_BNC), launch.unit_stride(grad_BNC), weight.contiguous()
    batch, tokens, width = x.shape
    rows = batch * tokens
    config = row_config(width)
    each = max(1, triton.cdiv(rows, PARTIALS))
    programs = triton.cdiv(rows, each)
    grad_x = launch.empty((batch, tokens, width), x.dtype, x.device)
    partial = launch.empty((programs, width), torch.float32, x.device)
    if rows:
        with launch.on_device(x):
            rms_norm_backward_kernel[(programs,)](
                x, weight, grad, grad_x, partial, eps, tokens, rows, each, width,
                x.stride(0), x.stride(1), grad.stride(0), grad.stride(1),
                BLOCK=config.block, num_warps=config.warps,
            )  # fmt: skip
    return grad_x, partial.sum(0)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        width = x.shape[-1]
        # Three axes keep their strides; others become rows, by a copy where they cannot be a view.
        x_BNC = launch.unit_stride(x if x.ndim == 3 else x.reshape(1, -1, width))
        batch, tokens, _ = x_BNC.shape
        config = row_config(width)
        out = launch.empty((batch, tokens, width), x.dtype, x.device)
        if out.numel():
            with launch.on_device(x):
                rms_norm_forward_kernel[(batch * tokens,)](
                    x_BNC, weight.contiguous(), out, eps, tokens, width, x_BNC.stride(0), x_BNC.stride(1),
                    BLOCK=config.block, num_warps=config.warps,
                )  # fmt: skip
        ctx.save_for_backward(x_BNC, weight)
        ctx.eps = eps
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_BNC, weight = ctx.saved_tensors
        grad_x, grad_weight = rms_norm_backward(x_BNC, weight, grad.reshape(x_BNC.shape), ctx.eps)
        return grad_x.view(grad.shape), grad_weight.to(weight.dtype), None
