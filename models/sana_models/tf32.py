"""TF32: products of fp32 numbers with 10 bits of their mantissas, on GPUs from Ampere on, several times as fast."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["refuse_tf32", "using_tf32"]


@contextmanager
def using_tf32(allowed: bool | None) -> Iterator[None]:
    """Allow or forbid TF32 in products and convolutions inside; None leaves both as they are.

    By torch's own setting convolutions use it and products do not.
    """
    if allowed is None:
        yield
        return
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def refuse_tf32(allowed: bool | None, device: str | torch.device) -> None:
    """Raise ValueError, one line, where TF32 is asked for on a device that has none."""
    if not allowed:
        return
    device = torch.device(device)
    if device.type != "cuda":
        raise ValueError(f"tf32 needs a CUDA device, and this one is {device.type}")
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        raise ValueError(f"tf32 needs a GPU of compute capability 8.0; this one has {major}.{minor}")
