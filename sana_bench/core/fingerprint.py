"""Content identities: what must be equal for two pieces of work to be interchangeable.

A fingerprint is the SHA-256 of canonical JSON, so it depends on values only: not on key order, file names,
the machine, or the order in which work was done.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sana_models.shared_parts import pipeline_files

__all__ = [
    "NOT_WEIGHTS",
    "FileHashes",
    "HashCache",
    "canonical_json",
    "directory_sha256",
    "file_sha256",
    "fingerprint",
    "image_key",
    "sha256_bytes",
    "short",
]

_READ_SIZE = 1 << 20


def canonical_json(value: Any) -> str:
    """Serialise `value` with sorted keys and no spaces; raises `ValueError` for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of `value`."""
    return sha256_bytes(canonical_json(value).encode("utf-8"))


def image_key(variant_fingerprint: str, benchmark: str) -> str:
    """Return the identity, with prompt and sample index, of an image of a variant on a benchmark in any run."""
    return fingerprint({"variant": variant_fingerprint, "benchmark": benchmark})


def short(digest: str) -> str:
    """Return the 12 characters of a fingerprint that directory names and messages use."""
    return digest[:12]


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of `content` as hex."""
    return hashlib.sha256(content).hexdigest()


class HashCache(Protocol):
    """Remembers the hash of a file for as long as its size and modification time stay the same."""

    def get(self, path: str, size: int, mtime_ns: int) -> str | None: ...

    def put(self, path: str, size: int, mtime_ns: int, sha256: str) -> None: ...


class FileHashes:
    """In-memory `HashCache`, optionally filled from an earlier one, that knows what it learnt."""

    def __init__(self, known: Mapping[tuple[str, int, int], str] | None = None) -> None:
        self._known = dict(known or {})
        self.learnt: dict[tuple[str, int, int], str] = {}

    def get(self, path: str, size: int, mtime_ns: int) -> str | None:
        return self._known.get((path, size, mtime_ns))

    def put(self, path: str, size: int, mtime_ns: int, sha256: str) -> None:
        self._known[(path, size, mtime_ns)] = sha256
        self.learnt[(path, size, mtime_ns)] = sha256


def file_sha256(path: Path, cache: HashCache | None = None) -> str:
    """Return the SHA-256 of a file's content, from `cache` when size and modification time are unchanged."""
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if cache is not None and (known := cache.get(*key)) is not None:
        return known
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_READ_SIZE):
            digest.update(block)
    if cache is not None:
        cache.put(*key, digest.hexdigest())
    return digest.hexdigest()


#: Files of a weights folder that explain the weights and change no image and no score.
NOT_WEIGHTS = ("README.md", "curve.csv", "curve.png", "training.yaml", "provenance.json", "importance.png")


def directory_sha256(directory: Path, cache: HashCache | None = None, *, ignore: tuple[str, ...] = ()) -> str:
    """Return one SHA-256 over the relative names and contents of every file under `directory`.

    Parts that a pipeline folder shares with a neighbour count as its own. Hidden files and the relative paths in
    `ignore` (a model card, a training curve) do not take part.
    """
    return fingerprint(
        {
            name: file_sha256(path, cache)
            for name, path in pipeline_files(directory).items()
            if name not in ignore and not any(part.startswith(".") for part in name.split("/"))
        }
    )
