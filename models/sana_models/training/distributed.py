"""Several processes as one: started by `torchrun`, they share every global batch and average their gradients.

Without `torchrun` nothing here does anything.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = [
    "all_true",
    "barrier",
    "gathered",
    "in_group",
    "is_main",
    "local_device",
    "local_rows",
    "mean_over_processes",
    "most_of",
    "process_group",
    "share_of",
    "sum_over_processes",
    "world_size",
]


T = TypeVar("T")


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the group that `torchrun` set up, if this process is part of one: gloo on CPUs, NCCL on GPUs."""
    if not dist.is_available() or not dist.is_torchelastic_launched() or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    if device.startswith("cuda"):
        # Objects are gathered on the current GPU, which would be the first one for all.
        torch.cuda.set_device(local_device(device))
    try:
        yield
    finally:
        # A group that something still holds when the interpreter ends aborts the process now and then, work done or not.
        gc.collect()
        dist.destroy_process_group()


def in_group() -> bool:
    """Whether this is one of the processes that `torchrun` started, of which there may be one."""
    return dist.is_available() and dist.is_initialized()


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if in_group() else 1


def is_main() -> bool:
    """Whether this process writes files."""
    return not in_group() or dist.get_rank() == 0


def local_device(device: str) -> torch.device:
    """Return this process's own device: `cuda` becomes the GPU of its rank on the node."""
    if device == "cuda" and in_group():
        return torch.device("cuda", dist.get_node_local_rank(fallback_rank=0))
    return torch.device(device)


def local_rows(batch_size: int, parts: int = 1) -> slice:
    """Return which rows of a global batch are this process's; raises ValueError when it cannot be shared evenly.

    `parts` is in how many parts each process computes them.
    """
    count = world_size()
    if batch_size % (count * parts):
        each = f" in {parts} parts each" if parts > 1 else ""
        raise ValueError(f"batch size {batch_size} cannot be shared by {count} processes{each}")
    share = batch_size // count
    first = (dist.get_rank() if count > 1 else 0) * share
    return slice(first, first + share)


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of a detached scalar over all processes."""
    if world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def sum_over_processes(values: Tensor, device: torch.device) -> Tensor:
    """Return the elementwise sum over all processes, `device` being what they talk through."""
    if world_size() == 1:
        return values
    total = values.to(device)
    dist.all_reduce(total)
    return total.to(values.device)


def most_of(count: int, device: torch.device) -> int:
    """Return the largest of the processes' counts, `device` being what they talk through."""
    if world_size() == 1:
        return count
    most = torch.tensor(count, device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)


def share_of(items: Sequence[T]) -> Sequence[T]:
    """Return every n-th of the items, of n processes: each item is one process's."""
    return items[dist.get_rank() :: world_size()] if in_group() else items


def all_true(value: Tensor) -> bool:
    """Return whether a boolean scalar is true in every process."""
    if world_size() == 1:
        return bool(value)
    count = value.detach().to(torch.int32)
    dist.all_reduce(count, op=dist.ReduceOp.MIN)
    return bool(count)


def gathered(items: list[str]) -> list[str]:
    """Return the items of all processes, in the order of the processes."""
    if world_size() == 1:
        return items
    parts: list[list[str]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()
