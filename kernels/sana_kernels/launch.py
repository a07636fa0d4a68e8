"""What every Triton wrapper needs: output memory, layouts the kernels can read, the device to launch on."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["empty", "on_device", "run", "unit_stride"]


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return uninitialised memory. All kernels write to memory from here, so that a test can fill it with NaN first."""
    return torch.empty(shape, dtype=dtype, device=device)


class _Forgetful:
    """The context of a forward pass that no backward pass follows."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep nothing."""


def run(operation: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    """Apply an operation, past autograd where nobody wants gradients: its bookkeeping takes longer than a small kernel."""
    wanted = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
    result: Tensor = operation.apply(*inputs) if wanted else operation.forward(_Forgetful(), *inputs)
    return result


def unit_stride(x: Tensor) -> Tensor:
    """Return `x` itself when its last axis is contiguous, else a contiguous copy.

    The kernels take every other stride as it is. A strided last axis would turn each vector load into scattered
    ones, which costs more than the copy.
    """
    return x if x.shape[-1] < 2 or x.stride(-1) == 1 else x.contiguous()


def on_device(x: Tensor) -> AbstractContextManager[object]:
    """Make the device of `x` the one that kernels are launched on; raises ValueError where Triton cannot run."""
    if torch.compiler.is_compiling():
        # torch's compiler sees to the device of what it launches.
        return nullcontext()
    if x.is_cuda:
        return torch.cuda.device(x.device)
    if _interpreting():
        return nullcontext()
    raise ValueError(f"Triton kernels need a CUDA tensor, found one on {x.device}")


def _interpreting() -> bool:
    # Triton's own switch, which it reads when the kernels are defined.
    return os.environ.get("TRITON_INTERPRET") == "1"
