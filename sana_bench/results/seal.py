"""The sums of a store: by which a changed bit is found before it becomes another number.

SQLite notices pages whose structure is broken and no others. So the SHA of every block of the file stands in `store.sums` beside
it. What a command writes goes to SQLite's log, which has checksums of its own, and into the file at the end only: then the
sums are taken away, the log is folded in, and new sums are written. In between the file never changes, whoever is killed when.
"""

import hashlib
import os
import time
from contextlib import nullcontext
from io import BufferedReader
from pathlib import Path

from sana_bench.core import atomic
from sana_bench.core.atomic import STORE_NAME
from sana_bench.core.fingerprint import sealed, unsealed
from sana_bench.core.text import read_text
from sana_models.files import first_line, open_plain

__all__ = ["BLOCK", "SEAL_NAME", "SealError", "changed_blocks", "take_away", "write_seal"]

SEAL_NAME = "store.sums"
#: Bytes of a block: a page of SQLite.
BLOCK = 4096
_VERSION, _DIGEST = 1, 8
# How often, and how many seconds apart, a file and its sums that differ are read again: a command may be folding its log in.
_TRIES, _APART_S = 20, 0.05


class SealError(ValueError):
    """Sums that are damaged themselves."""


def write_seal(output: Path, file: BufferedReader) -> None:
    """Write the sums of the store in `output`, whose content `file` has open, as it is."""
    blocks = "".join(_digests(file))
    atomic.write_text(
        output / SEAL_NAME, sealed({"version": _VERSION, "block": BLOCK, "sums": blocks}, STORE_NAME)
    )


def take_away(output: Path) -> None:
    """Remove the sums, durably, before the store changes."""
    (output / SEAL_NAME).unlink(missing_ok=True)
    descriptor = os.open(output, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def changed_blocks(output: Path, file: BufferedReader | None = None) -> list[int] | None:
    """The blocks of the store in `output` that are not as they were written, by number; None where it has no sums.

    `file` is the store, already open. Blocks that are missing at its end count, and those that came there. Raises `OSError`, and
    `SealError` for damaged sums.
    """
    with open_plain(output / STORE_NAME) if file is None else nullcontext(file) as store:
        for _ in range(_TRIES):
            expected = _read(output)
            if expected is None:
                return None
            found = _digests(store)
            places = range(max(len(found), len(expected)))
            changed = [place for place in places if found[place : place + 1] != expected[place : place + 1]]
            if not changed or _read(output) == expected:
                return changed
            time.sleep(_APART_S)
    return None  # it is being written to all the time


def _read(output: Path) -> list[str] | None:
    path = output / SEAL_NAME
    try:
        data = unsealed(read_text(path), STORE_NAME)
        sums = data["sums"]
        if (data["version"], data["block"]) != (_VERSION, BLOCK) or len(sums) % (2 * _DIGEST):
            raise ValueError("of another version")
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise atomic.in_the_way(path, path.stat().st_mode) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SealError(f"{path}: damaged sums of the store ({first_line(error)})") from None
    return [sums[place : place + 2 * _DIGEST] for place in range(0, len(sums), 2 * _DIGEST)]


def _digests(file: BufferedReader) -> list[str]:
    file.seek(0)
    return [
        hashlib.blake2b(block, digest_size=_DIGEST).hexdigest()
        for block in iter(lambda: file.read(BLOCK), b"")
    ]
