"""Whether a folder of weights is whole: the files of its layout, shards by their index, lengths by their headers."""

import json
import pickle
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError

from sana_bench.core.errors import AssetError
from sana_bench.core.text import read_text
from sana_models.files import open_plain
from sana_models.shared_parts import shared_parts

__all__ = ["DAMAGED", "check_pipeline_directory", "check_safetensors_files"]

#: Raised by torch and safetensors for files of random, flipped or missing bytes.
DAMAGED: tuple[type[Exception], ...] = (
    pickle.UnpicklingError, SafetensorError, struct.error, RuntimeError, ValueError, TypeError, AttributeError,
    AssertionError, LookupError, ArithmeticError, EOFError, OSError,
)  # fmt: skip


_SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5})(.*\.safetensors)")

# What a pipeline directory in the diffusers layout holds; each entry is satisfied by any one of its patterns.
PIPELINE_FILES: tuple[tuple[str, ...], ...] = (
    ("model_index.json",),
    ("transformer/config.json",),
    ("transformer/*.safetensors",),
    ("vae/config.json",),
    ("vae/*.safetensors",),
    ("text_encoder/config.json",),
    ("text_encoder/*.safetensors",),
    ("tokenizer/tokenizer.json", "tokenizer/tokenizer.model"),
    ("scheduler/scheduler_config.json",),
)


def check_pipeline_directory(directory: Path) -> None:
    """Raise `AssetError` unless every file of the diffusers layout is there and whole by its own header."""
    shared = _shared_parts(directory)
    missing = [
        " or ".join(patterns)
        for patterns in PIPELINE_FILES
        if not any(path.is_file() for pattern in patterns for path in _matches(directory, pattern, shared))
    ]
    if len(missing) == len(PIPELINE_FILES):
        raise AssetError(f"{directory}: missing {missing[0]} and all other files of a pipeline")
    if missing:
        raise AssetError(f"{directory}: missing {', '.join(missing)}")
    check_safetensors_files(directory)


def check_safetensors_files(directory: Path) -> None:
    """Raise `AssetError` unless the safetensors files of a folder and its parts are as long as their own headers say.

    Of weights in shards all must be there, and their index.
    """
    parts = [path for path in directory.iterdir() if path.is_dir()]
    for folder in sorted([directory, *parts, *_shared_parts(directory).values()]):
        missing = sorted(_shards(folder) - {path.name for path in folder.iterdir() if path.is_file()})
        if missing:
            raise AssetError(f"{folder}: missing {', '.join(missing)}")
        for path in sorted(folder.glob("[!.]*.safetensors")):
            safetensors_shapes(path)


def _shards(folder: Path) -> set[str]:
    """Names of the files that a folder's indices of shards, and the numbers in its shards' own names, ask for."""
    names = set()
    for index in folder.glob("[!.]*.safetensors.index.json"):
        try:
            names |= set(json.loads(read_text(index))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise AssetError(f"{index}: not an index of weight files") from None
    for path in folder.glob("[!.]*.safetensors"):
        if match := _SHARD.fullmatch(path.name):
            start, count, rest = match.groups()
            names |= {f"{start}-{place:05d}-of-{count}{rest}" for place in range(1, int(count) + 1)}
    return names


def _shared_parts(directory: Path) -> dict[str, Path]:
    try:
        return shared_parts(directory)
    except ValueError as error:
        raise AssetError(str(error)) from None


def _matches(directory: Path, pattern: str, shared: Mapping[str, Path]) -> Iterator[Path]:
    part, _, rest = pattern.partition("/")
    return shared[part].glob(rest) if part in shared else directory.glob(pattern)


def safetensors_shapes(path: Path) -> list[tuple[int, ...]]:
    """Return the shapes of the tensors in a file, from its header.

    Raises `AssetError` unless the file is a safetensors file of exactly the length that its header says.
    """
    size = path.stat().st_size
    with open_plain(path) as file:
        prefix = file.read(8)
        header_length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= header_length <= min(size - 8, 100_000_000):
            raise AssetError(f"{path}: not a whole safetensors file ({size} bytes)")
        try:
            header = json.loads(file.read(header_length))
            entries = [entry for name, entry in header.items() if name != "__metadata__"]
            ends = [entry["data_offsets"][1] for entry in entries]
            shapes = [tuple(entry["shape"]) for entry in entries]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise AssetError(f"{path}: not a safetensors file") from None
    expected = 8 + header_length + max(ends, default=0)
    if size != expected:
        state = "truncated" if size < expected else "longer than its header says"
        raise AssetError(f"{path}: {state} ({size} of {expected} bytes); fetch the file again")
    return shapes
