"""Layer norm and modulation in one read and one write; see `sana_kernels.layer_norm_modulate` for the mathematics."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from sana_kernels import launch
from sana_kernels.configs import row_config

__all__ = ["layer_norm_modulate_triton"]

#: Programs that share the backward pass; each leaves partial gradients of one image's scale and shift.
PARTIALS = 256


@triton.jit
def layer_norm_modulate_forward_kernel(
    x, shift, scale, out, eps, tokens, width, stride_xb, stride_xn, stride_shift, stride_scale,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    batch = row // tokens
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    values = tl.load(x + batch * stride_xb + (row % tokens) * stride_xn + columns, mask=inside, other=0.0)
    values = values.to(tl.float32)
    mean = tl.sum(values, 0) / width
    centred = tl.where(inside, values - mean, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    gain = 1.0 + tl.load(scale + batch * stride_scale + columns, mask=inside, other=0.0).to(tl.float32)
    offset = tl.load(shift + batch * stride_shift + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + columns, centred * inverse * gain + offset, mask=inside)


@triton.jit
def layer_norm_modulate_backward_kernel(
    x, scale, grad_out, grad_x, partial, eps, tokens, tokens_per_program, programs, width,
    stride_xb, stride_xn, stride_scale, stride_gb, stride_gn, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    batch = program // programs
    first = (program % programs) * tokens_per_program
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    gain = 1.0 + tl.load(scale + batch * stride_scale + columns, mask=inside, other=0.0).to(tl.float32)
    grad_scale = tl.zeros([BLOCK], dtype=tl.float32)
    grad_shift = tl.zeros([BLOCK], dtype=tl.float32)
    for step in range(tokens_per_program):
        token = first + step
        valid = columns < tl.where(token < tokens, width, 0)
        values = tl.load(x + batch * stride_xb + token * stride_xn + columns, mask=valid, other=0.0)
        values = values.to(tl.float32)
        grad = tl.load(grad_out + batch * stride_gb + token * stride_gn + columns, mask=valid, other=0.0)
        grad = grad.to(tl.float32)
        mean = tl.sum(values, 0) / width
        centred = tl.where(valid, values - mean, 0.0)
        inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
        normalised = centred * inverse
        grad_shift += grad
        grad_scale += grad * normalised
        grad *= gain
        along = tl.sum(grad * normalised, 0) / width
        result = inverse * (grad - tl.sum(grad, 0) / width - normalised * along)
        tl.store(grad_x + (batch * tokens + token) * width + columns, result, mask=valid)
    base = partial + program * 2 * width + columns
    tl.store(base, grad_shift, mask=inside)
    tl.store(base + width, grad_scale, mask=inside)


def layer_norm_modulate_triton(
    x_BNC: Tensor, shift_B1C: Tensor, scale_B1C: Tensor, *, eps: float = 1e-6
) -> Tensor:
    """`layer_norm_modulate_torch` in one kernel; raises ValueError above the widest configuration."""
    rows = (x_BNC.shape[0], 1, x_BNC.shape[2])
    return launch.run(_LayerNormModulate, x_BNC, shift_B1C.expand(rows), scale_B1C.expand(rows), eps)


class _LayerNormModulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
        batch, tokens, width = x.shape
        config = row_config(width)
        x, shift, scale = (launch.unit_stride(t) for t in (x, shift, scale))
        dtype = torch.promote_types(torch.promote_types(x.dtype, shift.dtype), scale.dtype)
        out = launch.empty((batch, tokens, width), dtype, x.device)
        if out.numel():
            with launch.on_device(x):
                layer_norm_modulate_forward_kernel[(batch * tokens,)](
                    x, shift, scale, out, eps, tokens, width,
                    x.stride(0), x.stride(1), shift.stride(0), scale.stride(0),
                    BLOCK=config.block, num_warps=config.warps,
                )  # fmt: skip
        ctx.save_for_backward(x, scale)
        ctx.eps, ctx.shift_dtype = eps, shift.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        grad = launch.unit_stride(grad)
        batch, tokens, width = x.shape
        config = row_config(width)
        each = max(1, triton.cdiv(batch * tokens, PARTIALS))
        programs = triton.cdiv(tokens, each)
        grad_x = launch.empty((batch, tokens, width), x.dtype, x.device)
        partial = launch.empty((batch, programs, 2, width), torch.float32, x.device)
        if grad_x.numel():
            with launch.on_device(x):
                layer_norm_modulate_backward_kernel[(batch * programs,)](
                    x, scale, grad, grad_x, partial, ctx.eps, tokens, each, programs, width,
                    x.stride(0), x.stride(1), scale.stride(0), grad.stride(0), grad.stride(1),
                    BLOCK=config.block, num_warps=config.warps,
                )  # fmt: skip
        grad_shift, grad_scale = partial.sum(1).unsqueeze(2).unbind(1)
        return grad_x, grad_shift.to(ctx.shift_dtype), grad_scale.to(scale.dtype), None
