"""Files that are read only where they are plain files, and that appear whole or not at all.

A folder that somebody sent may hold a named pipe, a device or a folder in a file's place. Opening a pipe waits for ever for
somebody to write into it, in a thread that no signal reaches: so nothing is opened for reading but by the functions below.
"""

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

__all__ = [
    "TEMPORARY_PREFIX",
    "first_line",
    "is_there",
    "kind_of",
    "link_or_copy",
    "open_plain",
    "parse_json",
    "path_of",
    "plain",
    "read_bytes",
    "read_text",
    "whole_folder",
    "write_whole",
]

TEMPORARY_PREFIX = ".tmp-"
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISREG, "a file"),
)


def kind_of(mode: int) -> str:
    """What a file of this mode (`st_mode`) is, in words."""
    return next((words for matches, words in _KINDS if matches(mode)), "a device")


def open_plain(path: Path) -> BufferedReader:
    """Open a file for reading; it never waits.

    Raises `IsADirectoryError` for a folder and `OSError` for anything else that is no plain file; links are followed.
    """
    _refuse_others(os.stat(path).st_mode, path)  # before the opening: that of a device can do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _refuse_others(os.fstat(descriptor).st_mode, path)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def plain(path: Path) -> Path:
    """Return `path`, for a library that opens files by itself; raises as `open_plain` unless it is a plain file now."""
    _refuse_others(os.stat(path).st_mode, path)
    return path


def first_line(error: BaseException) -> str:
    """Return what an error says, for a message of one line that names the file.

    That is the system's word, which key there was not, or the first 300 letters of the error's first line.
    """
    if isinstance(error, OSError) and isinstance(error.strerror, str):
        return error.strerror
    if isinstance(error, KeyError) and error.args:
        return f"no {error.args[0]!r:.300}"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def path_of(text: str | Path, beside: Path = Path()) -> Path:
    """Return the absolute path that a text means beside a folder, with `~` as the home and links followed.

    Any text has one: where there is no such user, where links lead in a circle or the text could be no path, nothing is there.
    """
    path = Path(beside, os.path.expanduser(text)).absolute()
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # a NUL
        return path


def is_there(path: Path, kind: Callable[[Path], bool] = Path.exists) -> bool:
    """Say whether there is a file or folder at a path, or one of a kind (`Path.is_file`, `Path.is_dir`).

    For what may as well be a name: nothing is at a path that is longer than the system's. Raises `OSError` where that
    does not tell, as in a folder that may not be searched.
    """
    try:
        return kind(path)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def read_bytes(path: Path) -> bytes:
    """Return the content of a file; raises as `open_plain`."""
    with open_plain(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text, without the byte order mark that some editors write and otherwise as it is.

    Raises as `open_plain`, and `UnicodeDecodeError` for other bytes.
    """
    return read_bytes(path).decode("utf-8-sig")


def parse_json(text: str | bytes, **options: Any) -> Any:
    """Return what a JSON text says, by `json.loads`; raises `ValueError` for anything else, and for what is nested too deep."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("nested too deep") from None


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create or replace `path` with what `write` puts into the binary file it is given.

    The content reaches the device before the name changes, so a kill leaves the old file, the new one or none, and at worst a
    `.tmp-*` beside it. A link in the file's place is replaced, not followed. Missing parent folders are created. Raises
    `OSError` (disk full, no permission) that names `path`, which is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-{path.name[-64:]}"
    try:
        with open(temporary, "xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # the error in flight is the one to tell
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            # Writing names no file, and opening one that nobody knows.
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of `path` at the end of the block, and is gone where the block fails.

    A kill leaves the old folder, the new one or none, and at worst a `.tmp-*` beside it, which the next call for `path` removes.
    """
    new, old = (path.parent / f"{TEMPORARY_PREFIX}{what}-{path.name}" for what in ("new", "old"))
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def link_or_copy(old: Path, new: Path) -> None:
    """Give a file a second name in place of whatever has it; a copy where the file system has no links."""
    new.unlink(missing_ok=True)
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)


def _refuse_others(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"is {kind_of(mode)}, not a file", str(path))
