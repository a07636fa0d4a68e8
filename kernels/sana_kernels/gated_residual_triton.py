"""Gated residual in one pass; see `sana_kernels.gated_residual`."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from sana_kernels import launch
from sana_kernels.configs import row_config

__all__ = ["gated_residual_triton"]

#: Programs that share the backward pass; each leaves partial gradients of one image's gate.
PARTIALS = 256


@triton.jit
def gated_residual_forward_kernel(
    residual, gate, x, out, tokens, width, stride_rb, stride_rn, stride_gate, stride_xb, stride_xn,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    batch = row // tokens
    token = row % tokens
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    kept = tl.load(residual + batch * stride_rb + token * stride_rn + columns, mask=inside, other=0.0)
    added = tl.load(x + batch * stride_xb + token * stride_xn + columns, mask=inside, other=0.0)
    factor = tl.load(gate + batch * stride_gate + columns, mask=inside, other=0.0)
    result = kept.to(tl.float32) + factor.to(tl.float32) * added.to(tl.float32)
    tl.store(out + row * width + columns, result, mask=inside)


@triton.jit
def gated_residual_backward_kernel(
    gate, x, grad_out, grad_x, partial, tokens, tokens_per_program, programs, width,
    stride_gate, stride_xb, stride_xn, stride_gb, stride_gn, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    batch = program // programs
    first = (program % programs) * tokens_per_program
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    factor = tl.load(gate + batch * stride_gate + columns, mask=inside, other=0.0).to(tl.float32)
    grad_gate = tl.zeros([BLOCK], dtype=tl.float32)
    for step in range(tokens_per_program):
        token = first + step
        valid = columns < tl.where(token < tokens, width, 0)
        added = tl.load(x + batch * stride_xb + token * stride_xn + columns, mask=valid, other=0.0)
        grad = tl.load(grad_out + batch * stride_gb + token * stride_gn + columns, mask=valid, other=0.0)
        grad = grad.to(tl.float32)
        grad_gate += grad * added.to(tl.float32)
        tl.store(grad_x + (batch * tokens + token) * width + columns, grad * factor, mask=valid)
    tl.store(partial + program * width + columns, grad_gate, mask=inside)


def gated_residual_triton(residual_BNC: Tensor, gate_B1C: Tensor, x_BNC: Tensor) -> Tensor:
    """`gated_residual_torch` in one kernel; raises ValueError above the widest configuration."""
    gate_B1C = gate_B1C.expand(x_BNC.shape[0], 1, x_BNC.shape[2])
    return launch.run(_GatedResidual, residual_BNC, gate_B1C, x_BNC)


class _GatedResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, residual: Tensor, gate: Tensor, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        config = row_config(width)
        residual, gate, x = (launch.unit_stride(t) for t in (residual, gate, x))
        dtype = torch.promote_types(torch.promote_types(residual.dtype, gate.dtype), x.dtype)
        out = launch.empty((batch, tokens, width), dtype, x.device)
        if out.numel():
            with launch.on_device(x):
                gated_residual_forward_kernel[(batch * tokens,)](
                    residual, gate, x, out, tokens, width,
                    residual.stride(0), residual.stride(1), gate.stride(0), x.stride(0), x.stride(1),
                    BLOCK=config.block, num_warps=config.warps,
                )  # fmt: skip
        ctx.save_for_backward(gate, x)
        ctx.residual_dtype = residual.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, x = ctx.saved_tensors
        grad = launch.unit_stride(grad)
        batch, tokens, width = x.shape
        config = row_config(width)
        each = max(1, triton.cdiv(batch * tokens, PARTIALS))
        programs = triton.cdiv(tokens, each)
        grad_x = launch.empty((batch, tokens, width), x.dtype, x.device)
        partial = launch.empty((batch, programs, width), torch.float32, x.device)
        if grad_x.numel():
            with launch.on_device(x):
                gated_residual_backward_kernel[(batch * programs,)](
                    gate, x, grad, grad_x, partial, tokens, each, programs, width,
                    gate.stride(0), x.stride(0), x.stride(1), grad.stride(0), grad.stride(1),
                    BLOCK=config.block, num_warps=config.warps,
                )  # fmt: skip
        grad_gate = partial.sum(1, keepdim=True).to(gate.dtype)
        return grad.to(ctx.residual_dtype), grad_gate, grad_x
