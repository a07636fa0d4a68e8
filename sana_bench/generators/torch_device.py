"""Torch's memory errors as the runner knows them, for every generator that runs on torch."""

from collections.abc import Iterator
from contextlib import contextmanager

from sana_bench.generators.base import OutOfMemoryError

__all__ = ["memory_errors_told"]


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
