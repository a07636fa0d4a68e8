"""Content identities: what must be equal for two pieces of work to be interchangeable.

A fingerprint is the SHA-256 of canonical JSON, so it depends on values only: not on key order, file names,
the machine, or the order in which work was done.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from sana_models.files import open_plain, parse_json
from sana_models.shared_parts import pipeline_files
from sana_models.weight_names import ADAPTER_CONFIG, files_to_read

__all__ = [
    "NOT_WEIGHTS",
    "FileHashes",
    "FileKey",
    "HashCache",
    "ManyHashes",
    "canonical_json",
    "directory_sha256",
    "file_sha256",
    "fingerprint",
    "image_key",
    "keep_hash",
    "pipeline_sha256",
    "remembering",
    "sealed",
    "sha256_bytes",
    "short",
    "unsealed",
]

# The key that no other entry of a sealed file has.
_SEAL = "sha256"
# File systems tell times apart to 2 s or better.
_SETTLED_NS = 2 * 10**9


def canonical_json(value: Any) -> str:
    """Serialise `value` with sorted keys and no spaces; raises `ValueError` for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: Any) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of `value`."""
    return sha256_bytes(canonical_json(value).encode("utf-8"))


def sealed(data: Mapping[str, Any], of: str) -> str:
    """Return a JSON object as text with a SHA-256 in it, for files whose changed digit nobody would notice.

    The hash is over all the rest and over what the file is `of`, so that it stands for nothing else. Raises `ValueError` for NaN
    and infinities.
    """
    plain = parse_json(json.dumps(data, allow_nan=False))  # as it will be read: keys are texts, tuples lists
    return json.dumps({**plain, _SEAL: fingerprint([of, plain])}, ensure_ascii=False, indent=0) + "\n"


def unsealed(text: str, of: str) -> dict[str, Any]:
    """Return what `sealed` was given; raises `ValueError` for anything else, when a value was changed, or for a file of another.

    A file of before there were hashes in them is taken as it is.
    """
    data = parse_json(text)
    if not isinstance(data, dict):
        raise ValueError("holds no object")
    seal = data.pop(_SEAL, None)
    if seal is not None and seal != fingerprint([of, data]):
        raise ValueError("what it holds was changed, or is of something else")
    return data


def image_key(variant_fingerprint: str, benchmark: str, settings: Mapping[str, Any]) -> str:
    """Return the identity, with prompt and sample index, of an image of a variant on a benchmark in any run.

    `settings` are those that the benchmark changes of every variant.
    """
    changed = {"settings": dict(settings)} if settings else {}
    return fingerprint({"variant": variant_fingerprint, "benchmark": benchmark, **changed})


def short(digest: str) -> str:
    """Return the 12 characters of a fingerprint that directory names and messages use."""
    return digest[:12]


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of `content` as hex."""
    return hashlib.sha256(content).hexdigest()


class FileKey(NamedTuple):
    """What tells a file from the same file with other content: also one replaced in place at equal size and time (`rsync -t`).

    A program can set the modification time as it likes, the time of the last change (`ctime_ns`) only the system.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """The key of a file as it is now; raises `OSError`."""
        status = path.stat()
        return cls(str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class HashCache(Protocol):
    """Remembers the hash of a file for as long as its key stays the same."""

    def get(self, key: FileKey) -> str | None: ...

    def put(self, key: FileKey, sha256: str) -> None: ...


class FileHashes:
    """In-memory `HashCache`, optionally filled from an earlier one, that knows what it learnt."""

    def __init__(self, known: Mapping[FileKey, str] | None = None) -> None:
        self._known = dict(known or {})
        self.learnt: dict[FileKey, str] = {}

    @property
    def known(self) -> Mapping[FileKey, str]:
        """Every hash that it remembers."""
        return self._known

    def get(self, key: FileKey) -> str | None:
        return self._known.get(key)

    def put(self, key: FileKey, sha256: str) -> None:
        self._known[key] = sha256
        self.learnt[key] = sha256


class ManyHashes:
    """In-memory `HashCache` of very many files, at about 200 bytes for each."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def get(self, key: FileKey) -> str | None:
        known = self._known.get(_digest(key))
        return None if known is None else known.hex()

    def put(self, key: FileKey, sha256: str) -> None:
        self._known[_digest(key)] = bytes.fromhex(sha256)


def _digest(key: FileKey) -> bytes:
    return hashlib.sha256(repr(tuple(key)).encode()).digest()[:16]


def keep_hash(before: FileKey, path: Path, cache: HashCache) -> None:
    """Let a file keep its hash that was given another name, which changes the time of its last change.

    A copy, and a file that was written a moment ago, are left to be read again.
    """
    known, key = cache.get(before), FileKey.of(path)
    is_same = (key.size, key.mtime_ns, key.inode) == (before.size, before.mtime_ns, before.inode)
    # Whoever changes it now gives it another time of modification.
    if known is not None and is_same and key.mtime_ns + _SETTLED_NS <= _now_ns():
        cache.put(key, known)


_REMEMBERED: ContextVar[HashCache | None] = ContextVar("remembered", default=None)


@contextmanager
def remembering(cache: HashCache) -> Iterator[None]:
    """Let every `file_sha256` that names no cache ask this one meanwhile: judges read weights of many gigabytes."""
    token = _REMEMBERED.set(cache)
    try:
        yield
    finally:
        _REMEMBERED.reset(token)


def file_sha256(path: Path, cache: HashCache | None = None) -> str:
    """Return the SHA-256 of a file's content, from `cache` when the file's key is unchanged."""
    cache = _REMEMBERED.get() if cache is None else cache
    key = FileKey.of(path)
    if cache is not None and (known := cache.get(key)) is not None:
        return known
    with open_plain(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    # A file that changed within a tick of the file system's clock can change again without another key.
    if cache is not None and FileKey.of(path) == key and key.ctime_ns + _SETTLED_NS <= _now_ns():
        cache.put(key, digest)
    return digest


def _now_ns() -> int:
    return time.time_ns()


#: Files of a weights folder that explain the weights and change no image and no score.
NOT_WEIGHTS = ("README.md", "curve.csv", "curve.png", "training.yaml", "provenance.json", "importance.png")


def directory_sha256(directory: Path, cache: HashCache | None = None, *, ignore: tuple[str, ...] = ()) -> str:
    """Return one SHA-256 over the relative names and contents of every file under `directory`.

    Parts that a pipeline folder shares with a neighbour count as its own. Hidden files and the relative paths in
    `ignore` (a model card, a training curve) do not take part.
    """
    return _sha256_of(pipeline_files(directory), cache, ignore)


def pipeline_sha256(
    directory: Path, cache: HashCache | None = None, weights_variant: str | None = None
) -> str:
    """Return one SHA-256 over the files of a pipeline folder that are read for a weight variant, but those that explain.

    Other weights beside them, which come and go with what is fetched, change no image. Without any, it is `directory_sha256`.
    """
    files = pipeline_files(directory)
    read = {name: files[name] for name in files_to_read(files, weights_variant)}
    return _sha256_of(read, cache, NOT_WEIGHTS)


def lora_content_sha256(file: Path, cache: HashCache | None = None) -> str:
    """Return one SHA-256 over a LoRA's file and the configuration beside it, which can say how strong it is."""
    config = file.parent / ADAPTER_CONFIG
    return fingerprint([file_sha256(path, cache) for path in (file, config) if path.is_file()])


def _sha256_of(files: Mapping[str, Path], cache: HashCache | None, ignore: tuple[str, ...]) -> str:
    return fingerprint(
        {
            name: file_sha256(path, cache)
            for name, path in files.items()
            if name not in ignore and not any(part.startswith(".") for part in name.split("/"))
        }
    )
