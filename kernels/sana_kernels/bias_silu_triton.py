"""Bias and SiLU in one read and one write; see `sana_kernels.bias_silu`."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sana_kernels import launch
from sana_kernels.configs import NARROW_ROWS, row_config

__all__ = ["bias_silu_triton"]


@triton.jit
def bias_silu_kernel(x, bias, out, rows, width, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    # As in the RMS norm: a bias a row, laid out as the row is.
    columns = tl.arange(0, BLOCK)[None, :] + tl.zeros([ROWS, 1], dtype=tl.int32)
    inside = columns < width
    valid = inside & (row < rows)
    values = tl.load(x + row * width + columns, mask=valid, other=0.0).to(tl.float32)
    values += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    # Rounded as the sum by itself rounds its result.
    values = values.to(x.dtype.element_ty).to(tl.float32)
    tl.store(out + row * width + columns, values / (1.0 + tl.exp(-values)), mask=valid)


def bias_silu_triton(x: Tensor, bias: Tensor) -> Tensor:
    """`bias_silu_torch` in one kernel; raises ValueError above the widest configuration."""
    return launch.run(_BiasSilu, x, bias)


class _BiasSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous()
        width = x.shape[-1]
        rows = x.numel() // max(1, width)
        config = row_config(width, NARROW_ROWS)
        out = launch.empty(tuple(x.shape), x.dtype, x.device)
        if out.numel():
            with launch.on_device(x):
                bias_silu_kernel[(triton.cdiv(rows, config.rows),)](
                    x, bias.contiguous(), out, rows, width,
                    BLOCK=config.block, ROWS=config.rows, num_warps=config.warps,
                )  # fmt: skip
        ctx.save_for_backward(x, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        # The published decoder is not trained: plain PyTorch will do.
        x, bias = ctx.saved_tensors
        with torch.enable_grad():
            total = (x.float() + bias.float()).requires_grad_()
            (grad_total,) = torch.autograd.grad(F.silu(total), total, grad.float())
        return grad_total.to(x.dtype), grad_total.flatten(0, -2).sum(0).to(bias.dtype)
