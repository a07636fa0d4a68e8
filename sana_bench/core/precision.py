"""Number formats by the names that variants, judges and metrics give them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["torch_dtype"]


def torch_dtype(precision: str) -> "torch.dtype":
    """Return torch's number format for `fp32`, `bf16` or `fp16`."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
