"""Durable file writes: a reader sees the old file, the new file or no file, never a part of one.

The new content goes to a temporary file in the same directory, is flushed to the device, takes the final name
by rename, and the directory entry is flushed too. A crash can leave a `.tmp-*` file behind and nothing worse;
the temporary file is removed on every Python-level exit, keyboard interrupts included. Folders are filled the same way.
"""

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sana_bench.core.errors import UsageError

__all__ = [
    "TEMPORARY_PREFIX",
    "check_output",
    "new_folder",
    "remove_leftovers",
    "write_bytes",
    "write_text",
    "write_with",
]

TEMPORARY_PREFIX = ".tmp-"


def write_with(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create or replace `path` with what `write` puts into the binary file it is given.

    Missing parent directories are created. Raises `OSError` (disk full, no permission) with `path` untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-{path.name[-64:]}"
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_directory(path.parent)


def check_output(output: Path) -> None:
    """Refuse a folder, named by `--output`, that cannot be written to, without creating it; raises `UsageError`."""
    existing = output
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"--output {output}: {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"--output {output}: no permission to write to {existing}")


def write_bytes(path: Path, content: bytes) -> None:
    """Atomically replace `path` with `content`."""
    write_with(path, lambda file: file.write(content))


def write_text(path: Path, content: str) -> None:
    """Atomically replace `path` with `content` in UTF-8."""
    write_bytes(path, content.encode("utf-8"))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` to fill; it takes that name at the end, or is removed where filling fails.

    Missing parents are created. Raises `OSError` when `folder` exists and is not an empty directory.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=folder.parent) as name:
        filled = Path(name) / folder.name
        filled.mkdir()
        yield filled
        filled.rename(folder)


def remove_leftovers(directory: Path) -> int:
    """Delete temporary files that a killed process left under `directory`; return how many there were.

    Call only while holding the output's writer lock: a live writer's temporary files look the same.
    """
    leftovers = [path for path in directory.rglob(f"{TEMPORARY_PREFIX}*") if path.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
