"""Weight files as lazily read, named tensors, and their strict assignment to a module.

Only safetensors (and, for single files, `torch.load(weights_only=True)`) touch files, so a checkpoint cannot run code. Names and
shapes are checked before the first tensor is read, and tensors are read one at a time: loading needs little
more memory than the weights.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sana_models.files import first_line, parse_json, plain, read_text
from sana_models.key_maps import Piece
from sana_models.weight_names import weight_file

__all__ = [
    "CheckpointError",
    "StoredTensor",
    "assign_weights",
    "check_keys",
    "has_variant",
    "open_folder",
    "open_safetensors",
    "read_config",
    "take_pieces",
]

_SHOWN_KEYS = 3

M = TypeVar("M", bound=nn.Module)


class CheckpointError(ValueError):
    """A checkpoint that is missing, truncated, of another model or of other shapes; the text is one line."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file: its shape, and how to read it."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """Read a JSON object; raises CheckpointError naming the file."""
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        data = parse_json(read_text(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({first_line(error)})") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: expected an object, found {type(data).__name__}")
    return data


def open_folder(folder: Path, stem: str, variant: str | None = None) -> dict[str, StoredTensor]:
    """Open `folder/stem.safetensors`, whole or in shards, without reading tensors.

    `variant` picks files such as `stem.fp16.safetensors`. Raises CheckpointError.
    """
    infix = f".{variant}" if variant else ""
    index = folder / f"{stem}.safetensors.index{infix}.json"
    if not index.is_file():
        return open_safetensors(folder / f"{stem}{infix}.safetensors")
    file_of = read_config(folder, index.name).get("weight_map")
    if not isinstance(file_of, dict) or not all(isinstance(file, str) for file in file_of.values()):
        raise CheckpointError(f"{index}: no weight_map from keys to files")
    outside = [file for file in file_of.values() if Path(file).name != file]
    if outside:
        raise CheckpointError(f"{index}: shard {outside[0]!r} is not a file name in the same folder")
    tensors: dict[str, StoredTensor] = {}
    for file in sorted(set(file_of.values())):
        shard = open_safetensors(folder / file)
        absent = sorted(key for key, place in file_of.items() if place == file and key not in shard)
        if absent:
            raise CheckpointError(
                f"{folder / file}: {len(absent)} keys of the index missing ({_some(absent)})"
            )
        tensors |= shard
    return tensors


def has_variant(folder: Path, variant: str) -> bool:
    """Return whether a folder has weight files of a variant, such as `*.fp16.safetensors`, whole or in shards."""
    found = map(weight_file, (path.name for path in folder.iterdir()))
    return any(one is not None and one.variant == variant for one in found)


def open_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Open one file without reading tensors; raises CheckpointError."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        siblings = sorted(other.name for other in path.parent.glob("*.safetensors"))
        raise CheckpointError(f"{path}: no such file" + (f" (found {_some(siblings)})" if siblings else ""))
    try:
        file = safe_open(plain(path), framework="pt", device="cpu")
        names = file.keys()
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: truncated or not a safetensors file ({first_line(error)})") from error
    return {key: StoredTensor(shape, partial(file.get_tensor, key)) for key, shape in shapes.items()}


def take_pieces(tensors: Mapping[str, StoredTensor], pieces: Mapping[str, Piece]) -> dict[str, StoredTensor]:
    """Cut and rename stored tensors as a key map says."""
    return {name: _cut(tensors[piece.source], piece) for name, piece in pieces.items()}


def assign_weights(
    model: M,
    tensors: Mapping[str, StoredTensor],
    source: Path,
    device: str | torch.device,
    dtype: torch.dtype,
) -> M:
    """Fill a module built on the meta device, strictly, and return it frozen in evaluation mode; raises
    CheckpointError.
    """
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    check_keys(shapes, {key: value.shape for key, value in tensors.items()}, source)
    state = {}
    for key in shapes:
        value = tensors[key].read()
        if not value.is_floating_point():
            raise CheckpointError(f"{source}: {key} holds {value.dtype}, expected floating-point weights")
        state[key] = value.to(device, dtype)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def check_keys(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], source: Path
) -> None:
    """Raise CheckpointError, naming the first few keys, unless names and shapes agree."""
    problems = []
    missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    for label, keys in (("missing", missing), ("unexpected", unexpected)):
        if keys:
            problems.append(f"{len(keys)} {label} ({_some(keys)})")
    shapes = [
        f"{key}: {found[key]} instead of {expected[key]}"
        for key in sorted(expected.keys() & found.keys())
        if found[key] != expected[key]
    ]
    if shapes:
        problems.append(f"{len(shapes)} of another shape ({_some(shapes)})")
    if problems:
        raise CheckpointError(f"{source}: weights do not fit the configuration: {'; '.join(problems)}")


def _cut(stored: StoredTensor, piece: Piece) -> StoredTensor:
    shape = stored.shape
    if piece.matrix:
        # A kernel that is not 1x1 keeps its axes and is then reported as misshapen.
        shape = shape[:2] if shape[2:] == (1, 1) else shape
    if not shape or shape[0] % piece.count:
        return stored
    rows = shape[0] // piece.count
    final = (rows, *shape[1:])

    def read() -> Tensor:
        value = stored.read()
        if piece.count == 1:
            return value.reshape(final)
        # A copy, so that no part keeps the packed matrix alive.
        return value[piece.index * rows : (piece.index + 1) * rows].reshape(final).clone()

    return StoredTensor(final, read)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN_KEYS]) + (", ..." if len(names) > _SHOWN_KEYS else "")
