"""What every generator that runs on torch needs of it: number formats by name, and memory errors as the runner knows them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sana_bench.generators.base import OutOfMemoryError

if TYPE_CHECKING:
    import torch

__all__ = ["memory_errors_told", "torch_dtype"]


def torch_dtype(precision: str) -> "torch.dtype":
    """Return the number format that a variant file calls `precision`."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


@contextmanager
def memory_errors_told(device: str) -> Iterator[None]:
    """Turn torch's error of a batch that does not fit into `OutOfMemoryError`, with the memory given back."""
    import torch

    try:
        yield
    except RuntimeError as error:
        # The CPU allocator has no exception type of its own.
        if not isinstance(error, torch.cuda.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        raise OutOfMemoryError(str(error).splitlines()[0]) from None
