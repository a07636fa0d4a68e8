"""Durable file writes: a reader sees the old file, the new file or no file, never a part of one.

The new content goes to a temporary file in the same directory, is flushed to the device, takes the final name
by rename, and the directory entry is flushed too. A crash can leave a `.tmp-*` file behind and nothing worse;
the temporary file is removed on every Python-level exit, keyboard interrupts included. Folders are filled the same way.

Nothing in an output folder is written through a link: one in a file's place is replaced, one in a folder's place is refused.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sana_bench.core.errors import UsageError
from sana_bench.core.progress import megabytes
from sana_bench.core.storage import explained
from sana_models.files import TEMPORARY_PREFIX, kind_of, read_bytes, write_whole

__all__ = [
    "LOCK_NAME",
    "STORE_NAME",
    "TEMPORARY_PREFIX",
    "check_own",
    "check_writable",
    "in_the_way",
    "link_or_copy",
    "make_folder",
    "new_folder",
    "open_own",
    "remove_leftovers",
    "write_bytes",
    "write_text",
    "write_with",
]

#: What lies in every output folder that is written to, and tells it from other folders.
LOCK_NAME, STORE_NAME = ".writer.lock", "store.sqlite"
# The folders in it that are written to.
_OWN_FOLDERS = ("runs", "cache", "leaderboard")


def write_with(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create or replace `path` with what `write` puts into the binary file it is given.

    Missing parent directories are created. Raises `OSError` (disk full, no permission) that names `path`, and `UsageError` for
    a folder in the file's place or a link in a folder's; `path` is then untouched.
    """
    make_folder(path.parent)
    try:
        write_whole(path, write)
    except IsADirectoryError:
        raise in_the_way(path, path.lstat().st_mode) from None
    _flush_directory(path.parent)


def check_writable(folder: Path) -> None:
    """Refuse a folder, named by `--output`, that cannot be written to, without creating it; raises `UsageError`."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"--output {folder}: {existing} is a file, not a folder")
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        raise explained(OSError(errno.EROFS, os.strerror(errno.EROFS), str(existing)))
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"--output {folder}: no permission to write to {existing}")


def write_bytes(path: Path, content: bytes) -> None:
    """Atomically replace `path` with `content`; raises as `write_with`."""
    try:
        write_with(path, lambda file: file.write(content))
    except OSError as error:
        error.add_note(f"{megabytes(len(content))} are needed")
        raise


def write_text(path: Path, content: str) -> None:
    """Atomically replace `path` with `content` in UTF-8; raises as `write_with`."""
    write_bytes(path, content.encode("utf-8"))


def make_folder(folder: Path) -> None:
    """Make a folder and its parents unless they are there.

    Raises `OSError`, and `UsageError` for a link on the way to it inside an output folder, or a file in its place.
    """
    for place in (folder, *folder.parents):
        if place.is_symlink() and (output := _output_of(place)) is not None:
            raise UsageError(
                f"{place}: is a link inside the output folder {output}, and nothing is written through one; "
                "remove it, or choose another --output"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise in_the_way(folder, folder.lstat().st_mode, "a folder") from None


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name in place of what is at `target`, or copy it where the file system has no hard links."""
    make_folder(target.parent)
    try:
        target.unlink(missing_ok=True)
        os.link(source, target)
    except OSError:
        write_bytes(target, read_bytes(source))


def open_own(path: Path, flags: int) -> int:
    """A descriptor of a file that is changed in its place, such as a lock; made where there is none.

    Raises `UsageError` for a link, a second name of another file, or anything else that is no plain file, and `OSError`.
    """
    check_own(path)
    try:
        descriptor = os.open(
            path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, 0o666
        )
    except OSError:
        check_own(path)  # it came between the two
        raise
    return descriptor


def check_own(path: Path) -> None:
    """Raise `UsageError` unless `path` is free, or a plain file of one name: what is written into it goes nowhere else."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise in_the_way(path, status.st_mode)
    if status.st_nlink > 1:
        raise UsageError(
            f"{path}: has a second name (a hard link), and what is written would change both; "
            "put a copy of the file in its place"
        )


def in_the_way(path: Path, mode: int, expected: str = "a file") -> UsageError:
    """The error to raise for something of this mode in the place of a file or folder: what to remove."""
    return UsageError(
        f"{path}: is {kind_of(mode)} where {expected} belongs; remove it, then run the same command again"
    )


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` to fill; it takes that name at the end, or is removed where filling fails.

    Missing parents are created. Raises `OSError` when `folder` exists and is not an empty directory.
    """
    make_folder(folder.parent)
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


def _output_of(place: Path) -> Path | None:
    """The output folder in whose own folders a place lies; None for any other place."""
    for parent in place.parents:
        if place.relative_to(parent).parts[0] in _OWN_FOLDERS and any(
            os.path.lexists(parent / name) for name in (LOCK_NAME, STORE_NAME)
        ):
            return parent
    return None


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
