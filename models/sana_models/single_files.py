"""Weights in one file: official `.pth` files, those of trainers, this project's own training states, lone safetensors.

`torch.load(weights_only=True)` reads them, so no file can run code. Of other packages, only what numpy needs to restore arrays
and numbers is allowed: trainers store the state of its random generator.
"""

import logging
import pickle
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sana_models.files import first_line, plain
from sana_models.weight_files import CheckpointError, StoredTensor, open_safetensors

__all__ = ["SINGLE_FILES", "open_single_file", "read_archive"]

#: Suffixes of such files.
SINGLE_FILES = (".pth", ".pt", ".safetensors")
# Put before names by wrappers of modules: data parallel, compiled, sharded, recomputed.
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# Where trainers put weights, and where the moving average of them.
_RAW, _EMA = ("state_dict", "model", "module"), ("state_dict_ema", "ema", "model_ema", "ema_state_dict")
_DAMAGE = (RuntimeError, pickle.UnpicklingError, OSError, EOFError, ValueError, KeyError)


def open_single_file(path: Path, *, part: str = "transformer", ema: bool = False) -> dict[str, StoredTensor]:
    """Open a file of weights, memory-mapped, under the names it has without its wrappers' prefixes.

    `ema` takes the moving average where the file has one. A training state of this project holds several networks, of which
    `part` is taken. When a file holds both kinds of weights, a log line says which were taken. Raises CheckpointError, which
    says what was found.
    """
    if path.suffix == ".safetensors":
        if ema:
            raise CheckpointError(f"{path}: one set of weights and no moving average")
        return {_plain(key): value for key, value in open_safetensors(path).items()}
    data = read_archive(path)
    choices = _choices(data, part, path)
    if not choices:
        raise CheckpointError(f"{path}: expected a dictionary of tensors, found {_found(data)}")
    wanted = _EMA if ema else _RAW
    name = next((name for name in choices if name in wanted), None)
    if name is None:
        kind = "moving average" if ema else "weights but their moving average"
        raise CheckpointError(f"{path}: holds no {kind}; found {', '.join(choices)}")
    if len(choices) > 1:
        logging.getLogger(__name__).warning(
            "%s: holds %s; taking %s (ema=%s)", path, " and ".join(choices), name, ema
        )
    return {_plain(key): _in_memory(value) for key, value in choices[name]().items()}


def read_archive(path: Path) -> Any:
    """What a file of `torch.save` holds, tensors memory-mapped, without running code of it; raises CheckpointError."""
    if path.is_dir():
        raise CheckpointError(
            f"{path}: a folder; of a training that shares its model take the pipeline or an export"
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: truncated or not a PyTorch archive")
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            return torch.load(plain(path), map_location="cpu", weights_only=True, mmap=True)
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path}: truncated, foreign or unsafe archive ({first_line(error)})"
        ) from error


def _numpy_globals() -> list[Any]:
    """What restores numpy's arrays and numbers, under its old and new module names; none of it runs code of a file."""
    import _codecs

    import numpy as np
    from numpy._core.multiarray import _reconstruct, scalar

    named = [
        (function, f"{module}.multiarray.{name}")
        for module in ("numpy.core", "numpy._core")
        for name, function in (("_reconstruct", _reconstruct), ("scalar", scalar))
    ]
    kinds = [
        type(np.dtype(code))
        for code in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
    ]
    return [*named, np.ndarray, np.dtype, *kinds, _codecs.encode]


def _choices(data: Any, part: str, path: Path) -> dict[str, Callable[[], Mapping[str, Tensor]]]:
    """Return the sets of weights in a file by the name of their entry."""
    if not isinstance(data, dict):
        return {}
    if "modules" in data and "average" in data:
        return _of_training_state(data, part, path)
    found = {name: data[name] for name in (*_RAW, *_EMA) if _is_weights(data.get(name))}
    if not found and _is_weights(data):
        found = {"state_dict": data}
    return {name: partial(dict, value) for name, value in found.items()}


def _of_training_state(
    data: Mapping[str, Any], part: str, path: Path
) -> dict[str, Callable[[], Mapping[str, Tensor]]]:
    modules, average = data["modules"], data["average"]
    if part not in modules:
        raise CheckpointError(f"{path}: a training state of {', '.join(modules)}, not of {part}")

    def averaged() -> dict[str, Tensor]:
        # In the order of the parameters of all networks; what is no parameter, or was frozen, has no average.
        first = 0
        for name, state in modules.items():
            keys = list(state)
            if name == part:
                values = average[first : first + len(keys)]
                if [tuple(value.shape) for value in values] != [tuple(state[key].shape) for key in keys]:
                    raise CheckpointError(f"{path}: its moving average is not of all weights of {part}")
                return dict(zip(keys, values, strict=True))
            first += len(keys)
        raise AssertionError(part)

    return {"state_dict": lambda: modules[part], "state_dict_ema": averaged}


def _is_weights(value: Any) -> bool:
    return (
        isinstance(value, dict) and bool(value) and all(isinstance(item, Tensor) for item in value.values())
    )


def _found(data: Any) -> str:
    if not isinstance(data, dict):
        return type(data).__name__
    return ", ".join(f"{key} ({type(value).__name__})" for key, value in list(data.items())[:6]) or "nothing"


def _plain(key: str) -> str:
    for wrapper in _WRAPPERS:
        key = key.replace(wrapper, "")
    while key.startswith("module."):
        key = key.removeprefix("module.")
    return key


def _in_memory(value: Tensor) -> StoredTensor:
    return StoredTensor(tuple(value.shape), lambda: value)
