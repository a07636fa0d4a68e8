"""Depthwise 3x3 and SiLU gate in one pass over tokens-last memory; see `sana_kernels.gated_depthwise`."""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from sana_kernels import gated_depthwise_kernels as kernels
from sana_kernels import launch
from sana_kernels.configs import DEPTHWISE, depthwise_backward_config

__all__ = ["gated_depthwise_triton"]


def gated_depthwise_triton(x_BhwC: Tensor, weight_C133: Tensor, bias_C: Tensor) -> Tensor:
    """`gated_depthwise_torch` in one kernel, two and a sum for the gradients. Raises ValueError on shapes that do not fit."""
    channels = x_BhwC.shape[-1]
    if x_BhwC.ndim != 4 or channels % 2 or tuple(weight_C133.shape) != (channels, 1, 3, 3):
        found = f"input {tuple(x_BhwC.shape)} and weight {tuple(weight_C133.shape)}"
        raise ValueError(f"expected (B, h, w, C) with an even C and (C, 1, 3, 3), found {found}")
    return launch.run(_GatedDepthwise, x_BhwC, weight_C133, bias_C)


def _gate(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor | None, out: Tensor) -> None:
    """Launch the kernel that convolves and gates, or with `grad` the one that writes the gradients before the gate."""
    batch, height, width, total = x.shape
    config, hidden = DEPTHWISE, total // 2
    programs = (
        batch
        * triton.cdiv(height, config.rows)
        * triton.cdiv(width, config.columns)
        * triton.cdiv(hidden, config.channels)
    )
    strides = (0, 0, 0) if grad is None else grad.stride()[:3]
    kernels.gated_depthwise_kernel[(programs,)](
        x, weight, bias, x if grad is None else grad, out, height, width, *x.stride()[:2], *strides,
        HIDDEN=hidden, STRIDE_W=x.stride(2), BACKWARD=grad is not None, COLUMNS=config.columns,
        CHANNELS=config.channels, ROWS=config.rows, num_warps=config.warps,
    )  # fmt: skip


class _GatedDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, weight, bias = launch.unit_stride(x), weight.contiguous(), bias.contiguous()
        batch, height, width, total = x.shape
        out = launch.empty((batch, height, width, total // 2), x.dtype, x.device)
        if out.numel():
            with launch.on_device(x):
                _gate(x, weight, bias, None, out)
        ctx.save_for_backward(x, weight, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        grad = launch.unit_stride(grad)
        batch, height, width, total = x.shape
        mixed = launch.empty((batch, height, width, total), x.dtype, x.device)
        grad_x = launch.empty((batch, height, width, total), x.dtype, x.device)
        config = depthwise_backward_config(width)
        strips = batch * triton.cdiv(height, config.rows) * triton.cdiv(width, config.columns)
        partial = launch.empty((strips, 10, total), torch.float32, x.device)
        if grad_x.numel():
            grid = (triton.cdiv(total, config.channels) * strips,)
            constants = {
                "COLUMNS": config.columns,
                "CHANNELS": config.channels,
                "ROWS": config.rows,
                "num_warps": config.warps,
            }
            with launch.on_device(x):
                _gate(x, weight, bias, grad, mixed)
                kernels.depthwise_input_backward_kernel[grid](
                    mixed, weight, grad_x, height, width, total, **constants
                )
                kernels.depthwise_weight_backward_kernel[grid](
                    x, mixed, partial, height, width, total, *x.stride()[:3], **constants
                )
        shares = partial.sum(0)
        grad_weight = shares[:9].t().reshape(weight.shape).to(weight.dtype)
        return grad_x, grad_weight, shares[9].to(bias.dtype)
