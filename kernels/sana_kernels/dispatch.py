"""Which kernels run: `auto`, `triton` or `torch`, decided once, when a model is loaded, and never changed behind its back."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Backend", "KernelError", "Kernels", "Operations", "check_sizes", "operations", "resolve_backend"]

#: What a user may ask for.
Kernels = Literal["auto", "triton", "torch"]
#: What runs.
Backend = Literal["triton", "torch"]


class KernelError(ValueError):
    """The kernels that were asked for cannot run here; the message is one line."""


@dataclass(frozen=True)
class Operations:
    """One implementation of every operation that has Triton kernels; signatures as in the `_torch` functions."""

    backend: Backend
    linear_attention: "Callable[..., Tensor]"
    gated_depthwise: "Callable[..., Tensor]"
    layer_norm_modulate: "Callable[..., Tensor]"
    gated_residual: "Callable[..., Tensor]"
    rms_norm: "Callable[..., Tensor]"
    bias_silu: "Callable[..., Tensor]"


def resolve_backend(kernels: Kernels, device: "str | torch.device") -> Backend:
    """Return what `kernels` means on `device`.

    `auto` is triton on a CUDA device where the package triton is installed, torch elsewhere. Raises KernelError for an
    unknown name, and for `triton` where it cannot run.
    """
    if kernels not in get_args(Kernels):
        raise KernelError(f"kernels is {kernels!r}; allowed: {', '.join(get_args(Kernels))}")
    cuda = str(device).startswith("cuda")
    installed = find_spec("triton") is not None
    if kernels == "triton" and not cuda:
        raise KernelError(
            f"kernels 'triton' needs a CUDA device, found {str(device)!r}; allowed here: auto, torch"
        )
    if kernels == "triton" and not installed:
        raise KernelError("kernels 'triton' needs the package triton, which is not installed")
    return "triton" if kernels != "torch" and cuda and installed else "torch"


def check_sizes(width: int, head_dim: int) -> None:
    """Raise KernelError when no Triton configuration holds a network up to `width` channels wide with such heads."""
    import torch

    from sana_kernels.configs import attention_config, row_config

    try:
        row_config(width)
        attention_config(head_dim, torch.float32)
    except ValueError as error:
        raise KernelError(f"{error}; choose kernels 'torch'") from None


@cache
def operations(backend: Backend) -> Operations:
    """Return the implementations of a resolved backend; imports Triton for triton only."""
    if backend == "triton":
        from sana_kernels.bias_silu_triton import bias_silu_triton
        from sana_kernels.gated_depthwise_triton import gated_depthwise_triton
        from sana_kernels.gated_residual_triton import gated_residual_triton
        from sana_kernels.layer_norm_modulate_triton import layer_norm_modulate_triton
        from sana_kernels.linear_attention_triton import linear_attention_triton
        from sana_kernels.rms_norm_triton import rms_norm_triton

        return Operations(
            backend,
            linear_attention_triton,
            gated_depthwise_triton,
            layer_norm_modulate_triton,
            gated_residual_triton,
            rms_norm_triton,
            bias_silu_triton,
        )
    from sana_kernels.bias_silu import bias_silu_torch
    from sana_kernels.gated_depthwise import gated_depthwise_torch
    from sana_kernels.gated_residual import gated_residual_torch
    from sana_kernels.layer_norm_modulate import layer_norm_modulate_torch
    from sana_kernels.linear_attention import linear_attention_torch
    from sana_kernels.rms_norm import rms_norm_torch

    return Operations(
        backend,
        linear_attention_torch,
        gated_depthwise_torch,
        layer_norm_modulate_torch,
        gated_residual_torch,
        rms_norm_torch,
        bias_silu_torch,
    )
