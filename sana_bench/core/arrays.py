"""Arrays from `.npz` files: no code of a file runs, and none fills the memory with what it does not hold."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sana_models.files import open_plain

__all__ = ["ArraysError", "read_arrays", "refuse_bombs"]

# Numbers compress by a factor of ten at most; an archive that claims more is made to fill the memory. What is small may.
_MOST_COMPRESSED, _SMALL = 100, 1 << 24


class ArraysError(ValueError):
    """A file that is no archive of arrays, is damaged, or lacks one; the text says which."""


def read_arrays(path: Path, *choices: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file by name: the first of `choices` of names that the file has, all of them without a choice.

    Raises `OSError`, and `ArraysError` for anything but an archive with those arrays in it, whole.
    """
    with open_plain(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                refuse_bombs(archive)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                held = list(arrays.files)
                names = next(
                    (names for names in choices if set(names) <= set(held)), None if choices else held
                )
                if names is None:
                    raise ArraysError(
                        f"no {' and '.join(choices[0])} (it has {', '.join(held) or 'nothing'})"
                    )
                return {name: arrays[name] for name in names}
        except (
            ValueError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            MemoryError,
        ) as error:
            if isinstance(error, ArraysError):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ArraysError(f"no archive of arrays, or a damaged one ({reason})") from None


def refuse_bombs(archive: zipfile.ZipFile) -> None:
    """Raise `ArraysError` for an archive with a member that is said to be a hundred times as long as what is there of it."""
    for member in archive.infolist():
        if member.file_size > max(_SMALL, _MOST_COMPRESSED * member.compress_size):
            raise ArraysError(
                f"{member.filename} claims {member.file_size} bytes and has {member.compress_size}: made to fill the memory"
            )
