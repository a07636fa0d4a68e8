"""Whether a folder of weights is whole: the files of its layout, shards by their index, lengths by their headers."""

import pickle
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sana_bench.core.errors import AssetError
from sana_bench.core.text import read_text
from sana_models.config import SANA_PIPELINES
from sana_models.files import first_line, open_plain, parse_json
from sana_models.shared_parts import pipeline_files
from sana_models.weight_names import files_to_read, refuse_variant, weight_file

__all__ = [
    "DAMAGED",
    "check_fit",
    "check_parts",
    "check_pipeline_directory",
    "check_safetensors_files",
    "pipeline_class",
    "weights_to_read",
]

#: Raised by torch and safetensors for files of random, flipped or missing bytes.
DAMAGED: tuple[type[Exception], ...] = (
    pickle.UnpicklingError, SafetensorError, struct.error, RuntimeError, ValueError, TypeError, AttributeError,
    AssertionError, LookupError, ArithmeticError, EOFError, OSError,
)  # fmt: skip


_SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5})(.*\.safetensors)")
_INDEX = "model_index.json"

_UNFIT = {
    "missing_keys": "missing",
    "unexpected_keys": "of unknown layers",
    "mismatched_keys": "of another shape",
}

# What a SANA pipeline directory in the diffusers layout holds; each entry is satisfied by any one of its patterns.
PIPELINE_FILES: tuple[tuple[str, ...], ...] = (
    (_INDEX,),
    ("transformer/config.json",),
    ("transformer/*.safetensors",),
    ("vae/config.json",),
    ("vae/*.safetensors",),
    ("text_encoder/config.json",),
    ("text_encoder/*.safetensors",),
    ("tokenizer/tokenizer.json", "tokenizer/tokenizer.model"),
    ("scheduler/scheduler_config.json",),
)


def check_pipeline_directory(directory: Path, weights_variant: str | None = None) -> None:
    """Raise `AssetError` unless every file of a SANA pipeline is there, weights of the variant, and whole by its own header."""
    kind = pipeline_class(directory) if (directory / _INDEX).is_file() else None
    if kind is not None and kind not in SANA_PIPELINES:
        raise AssetError(
            f"{directory / _INDEX}: the pipeline is {kind!r}, not {SANA_PIPELINES[0]!r}; write generator: diffusers"
        )
    files = _files(directory)
    read = files_to_read(files, weights_variant)
    missing = [
        " or ".join(patterns)
        for patterns in PIPELINE_FILES
        if not any(fnmatch(name, pattern) for pattern in patterns for name in read)
    ]
    if len(missing) == len(PIPELINE_FILES):
        raise AssetError(f"{directory}: missing {missing[0]} and all other files of a pipeline")
    if not missing or weights_variant is None:
        _refuse_variant(directory, files, weights_variant)
    if missing:
        raise AssetError(f"{directory}: missing {', '.join(missing)}")
    _check_weights(files, read)


def check_parts(
    directory: Path, weights_variant: str | None = None, parts: Sequence[str] | None = None
) -> None:
    """Raise `AssetError` unless the parts that a folder's `model_index.json` names, or these, are there and whole.

    Networks are parts with a `config.json`, and have weights; what else belongs to a part only its own reader knows.
    """
    if parts is None:
        index = _index(directory)
        if "_class_name" not in index:
            raise AssetError(f"{directory / _INDEX}: names no pipeline class")
        parts = [name for name, entry in index.items() if isinstance(entry, list) and any(entry)]
    files = _files(directory)
    read = files_to_read(files, weights_variant)
    missing = [part for part in parts if not _is_there(directory / part, part, read)]
    if missing:
        raise AssetError(f"{directory}: missing {', '.join(missing)}")
    _refuse_variant(directory, files, weights_variant)
    _check_weights(files, read)


def check_safetensors_files(directory: Path) -> None:
    """Raise `AssetError` unless the safetensors files of a folder and its parts are as long as their own headers say.

    Of weights in shards all must be there, and their index.
    """
    files = _files(directory)
    _check_weights(files, list(files))


def check_fit(place: Path, network: str, info: Mapping[str, Iterable[Any]]) -> None:
    """Raise `AssetError` for weights at `place` that lack tensors of a network, or have tensors that it does not.

    `info` is what transformers tells of a load, or has its keys: `missing_keys`, `unexpected_keys`, `mismatched_keys`.
    """
    told = []
    for key, what in _UNFIT.items():
        if names := sorted(map(str, info.get(key, ()))):
            told.append(f"{len(names)} {what} ({', '.join(names[:3])})")
    if told:
        raise AssetError(f"{place}: weights do not fit {network}: {'; '.join(told)}")


def weights_to_read(directory: Path, weights_variant: str | None = None) -> dict[str, Path]:
    """The files of a folder that its readers open for a weight variant, by relative name; raises `AssetError`."""
    files = _files(directory)
    return {name: files[name] for name in files_to_read(files, weights_variant)}


def pipeline_class(directory: Path) -> str | None:
    """The class that a folder's `model_index.json` names; raises `AssetError` without one."""
    return _index(directory).get("_class_name")


def _index(directory: Path) -> dict[str, Any]:
    path = directory / _INDEX
    try:
        found = parse_json(read_text(path))
    except FileNotFoundError:
        raise AssetError(f"{directory}: missing {_INDEX}, so it is not a diffusers pipeline") from None
    except (OSError, ValueError) as error:
        raise AssetError(f"{path}: unreadable ({first_line(error)})") from None
    if not isinstance(found, dict):
        raise AssetError(f"{path}: names no pipeline class")
    return found


def _is_there(folder: Path, part: str, read: Sequence[str]) -> bool:
    """Whether a part is there, and has weights if it is a network; tokenizers and schedulers have no config.json."""
    if not (folder / "config.json").is_file():
        return folder.is_dir()
    weights = [name for name in read if name.startswith(f"{part}/") and weight_file(name[len(part) + 1 :])]
    return bool(weights) or any(folder.glob("*.bin"))


def _refuse_variant(directory: Path, files: Iterable[str], weights_variant: str | None) -> None:
    try:
        refuse_variant(files, weights_variant)
    except ValueError as error:
        raise AssetError(f"{directory}: {error}") from None


def _check_weights(files: Mapping[str, Path], read: Sequence[str]) -> None:
    """Raise `AssetError` for shards that are not there, and for files of another length than their headers say."""
    here: dict[Path, set[str]] = {}
    for path in files.values():
        here.setdefault(path.parent, set()).add(path.name)
    wanted: dict[Path, set[str]] = {}
    for name in read:
        path = files[name]
        wanted.setdefault(path.parent, set()).update(_shards(path))
    for folder, names in sorted(wanted.items()):
        if missing := sorted(names - here[folder]):
            raise AssetError(f"{folder}: missing {', '.join(missing)}")
    for name in read:
        if name.endswith(".safetensors"):
            safetensors_shapes(files[name])


def _shards(path: Path) -> set[str]:
    """Names of the files that an index of shards, or the numbers in a shard's own name, ask for."""
    if match := _SHARD.fullmatch(path.name):
        start, count, rest = match.groups()
        return {f"{start}-{place:05d}-of-{count}{rest}" for place in range(1, int(count) + 1)}
    if ".safetensors.index" not in path.name:
        return set()
    try:
        return set(parse_json(read_text(path))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AssetError(f"{path}: not an index of weight files") from None


def _files(directory: Path) -> dict[str, Path]:
    """The files of a folder, shared parts' included, by relative name; hidden ones are nobody's weights."""
    try:
        found = pipeline_files(directory)
    except ValueError as error:
        raise AssetError(str(error)) from None
    return {
        name: path
        for name, path in found.items()
        if not any(part.startswith(".") for part in name.split("/"))
    }


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
            header = parse_json(file.read(header_length))
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
