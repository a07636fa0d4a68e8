"""One model over several processes (FSDP2): each holds a share of all weights, gradients, averages and optimizer state.

Weights are gathered unit by unit where they are computed with, and every process must run the same units in the same order.
"""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from sana_models.files import parse_json, read_text, write_whole
from sana_models.training.distributed import barrier, is_main, world_size

__all__ = [
    "clip_gradient",
    "is_sharded",
    "like",
    "read_note",
    "read_shards",
    "shard",
    "whole",
    "write_shards",
]

M = TypeVar("M", bound=nn.Module)

#: What is no tensor, beside the files of tensors.
_NOTE = "state.json"


def shard(units: Iterable[nn.Module], device: torch.device, compute: torch.dtype | None) -> None:
    """Share the weights of each unit, whose parameters are replaced, by rows; a unit comes before the one that holds it.

    With `compute`, such as bf16, weights are sent and computed with in it; weights that are kept and sums of gradients stay fp32.
    """
    # Nothing that the networks return is changed in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (world_size(),))
    # Inputs keep their precision, as under autocast: a time of 999 is none in bf16.
    policy = MixedPrecisionPolicy(
        param_dtype=compute, reduce_dtype=torch.float32 if compute else None, cast_forward_inputs=False
    )
    for unit in units:
        # Of the outermost as well: what stays gathered would not see weights that change between two looks.
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, mp_policy=policy)
        if hasattr(unit, "keys_values"):
            register_fsdp_forward_method(unit, "keys_values")


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` shared its weights."""
    return isinstance(module, FSDPModule)


def whole(module: M) -> M:
    """Return what can be written in one piece: a module itself, or of a sharded one a copy on the CPU.

    Called by all processes; the copy has weights in the first one alone, and none elsewhere.
    """
    if not is_sharded(module):
        return module
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(module, options=options)
    with torch.device("meta"):
        copy: M = type(module)(module.config)
    if is_main():
        copy.load_state_dict(weights, assign=True)
    return copy


def clip_gradient(parameters: Iterable[Tensor], most: float) -> Tensor:
    """Scale gradients so that the norm of all of them together is at most `most`; return the norm that they had."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
    return norm


def like(template: Any, value: Any) -> Any:
    """Return `value`, a tensor or nested, with this process's share of each tensor that is sharded in `template`."""
    if isinstance(template, DTensor):
        rows = value.reshape(template.shape)
        return distribute_tensor(rows, template.device_mesh, template.placements, src_data_rank=None)
    if isinstance(value, Mapping) and isinstance(template, Mapping):
        return {key: like(template.get(key), item) for key, item in value.items()}
    if isinstance(value, list) and isinstance(template, list):
        return [like(*pair) for pair in zip(template, value, strict=True)]
    return value


def write_shards(folder: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
    """Write tensors, each process its rows, and a note that JSON can hold; `folder` is whole once all processes are back."""
    folder.mkdir(parents=True, exist_ok=True)
    with _first_failure():
        checkpoint.save(
            dict(tensors),
            storage_writer=checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True),
        )
    if is_main():
        write_whole(folder / _NOTE, lambda stream: stream.write(json.dumps(note).encode()))
    barrier()


def read_note(folder: Path) -> dict[str, Any]:
    """Return the note of `write_shards`. Raises OSError or ValueError where there is none."""
    found: dict[str, Any] = parse_json(read_text(folder / _NOTE))
    return found


def read_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors with what `write_shards` wrote, by whatever number of processes, whole tensors or sharded ones.

    Raises ValueError, or what reading raises, when files are damaged or missing or hold other tensors.
    """
    reader = checkpoint.HuggingFaceStorageReader(str(folder))
    with _first_failure():
        found: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    if different := sorted(found.keys() ^ tensors.keys()):
        raise ValueError(f"{different[0]} is in one of state and model alone")
    for name, tensor in tensors.items():
        stored = sum(chunk.sizes.numel() for chunk in found[name].chunks)
        if found[name].size != tensor.shape or stored != tensor.numel():
            raise ValueError(f"{name} has {stored} of {tensor.numel()} values")
    with _first_failure():
        checkpoint.load(dict(tensors), storage_reader=reader)


@contextmanager
def _first_failure() -> Iterator[None]:
    """Raise what one process met in place of the account of all, ValueError for a damaged file."""
    from safetensors import SafetensorError

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            yield
    except CheckpointException as error:
        failure = next(iter(error.failures.values()))[0]
        raise (ValueError(str(failure)) if isinstance(failure, SafetensorError) else failure) from None
    except SafetensorError as error:
        raise ValueError(str(error)) from error
