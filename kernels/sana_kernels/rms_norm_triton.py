"""RMS norm in Triton: every input is read once, and one result written; see `sana_kernels.rms_norm` for the mathematics."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from sana_kernels import launch
from sana_kernels.configs import NARROW_ROWS, row_config

__all__ = ["rms_norm_backward", "rms_norm_triton"]

#: Programs that share the backward pass; each leaves one row of partial weight gradients.
PARTIALS = 256


@triton.jit
def rms_norm_forward_kernel(
    x, weight, bias, residual, out, eps, tokens, rows, width, stride_xb, stride_xn, stride_rb, stride_rn,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    batch = row // tokens
    token = row % tokens
    # Weights are read a row each, from the cache: one row for all would be laid out otherwise, and every row moved to its place.
    columns = tl.arange(0, BLOCK)[None, :] + tl.zeros([ROWS, 1], dtype=tl.int32)
    inside = columns < width
    valid = inside & (row < rows)
    values = tl.load(x + batch * stride_xb + token * stride_xn + columns, mask=valid, other=0.0)
    values = values.to(tl.float32)
    scale = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(values * values, 1) / width + eps)
    result = values * scale * inverse[:, None]
    if BIAS:
        result += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    if RESIDUAL:
        # Rounded as the norm by itself rounds its result.
        result = result.to(x.dtype.element_ty).to(tl.float32)
        carried = tl.load(residual + batch * stride_rb + token * stride_rn + columns, mask=valid, other=0.0)
        result += carried.to(tl.float32)
    tl.store(out + row * width + columns, result, mask=valid)


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


def rms_norm_triton(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    eps: float = 1e-5,
) -> Tensor:
    """`rms_norm_torch` in one kernel; raises ValueError above the widest configuration, and for a residual of another shape."""
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"residual is {tuple(residual.shape)}; expected {tuple(x.shape)}")
    return launch.run(_RMSNorm, x, weight, bias, residual, eps)


def _rows(x: Tensor) -> Tensor:
    """(B, N, C): three axes keep their strides; others become rows, by a copy where they cannot be a view."""
    return launch.unit_stride(x if x.ndim == 3 else x.reshape(1, -1, x.shape[-1]))


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
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, eps: float
    ) -> Tensor:
        x_BNC = _rows(x)
        batch, tokens, width = x_BNC.shape
        config = row_config(width, NARROW_ROWS)
        # What is left out is never read.
        shift = weight if bias is None else bias
        added_BNC = x_BNC if residual is None else _rows(residual)
        out = launch.empty((batch, tokens, width), torch.promote_types(x.dtype, added_BNC.dtype), x.device)
        if out.numel():
            with launch.on_device(x):
                rms_norm_forward_kernel[(triton.cdiv(batch * tokens, config.rows),)](
                    x_BNC, weight.contiguous(), shift.contiguous(), added_BNC, out, eps, tokens, batch * tokens, width,
                    x_BNC.stride(0), x_BNC.stride(1), added_BNC.stride(0), added_BNC.stride(1),
                    BIAS=bias is not None, RESIDUAL=residual is not None,
                    BLOCK=config.block, ROWS=config.rows, num_warps=config.warps,
                )  # fmt: skip
        ctx.save_for_backward(x_BNC, weight, bias)
        ctx.eps, ctx.residual = eps, residual is not None
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_BNC, weight, bias = ctx.saved_tensors
        grad_BNC = grad.reshape(x_BNC.shape)
        grad_x, grad_weight = rms_norm_backward(x_BNC, weight, grad_BNC, ctx.eps)
        grad_bias = None if bias is None else grad_BNC.sum((0, 1), dtype=torch.float32).to(bias.dtype)
        grad_residual = grad if ctx.residual else None
        return grad_x.view(grad.shape), grad_weight.to(weight.dtype), grad_bias, grad_residual, None
