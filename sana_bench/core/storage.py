"""What it means when the disk or the system refuses: one line with the path, what it needs, and what to do."""

import errno
import os
import secrets
import shutil
from pathlib import Path

from sana_bench.core.errors import BenchError, IncompleteError, UsageError
from sana_bench.core.progress import megabytes
from sana_models.files import TEMPORARY_PREFIX, write_whole

__all__ = ["GO_ON", "existing_part", "explained", "is_refused", "why_not_writable"]

#: What is true of the commands that keep what they have finished.
GO_ON = "what is finished is kept, run the same command again to continue"

# The disk gave out, which time or its owner can mend: the same command goes on then.
_GAVE_OUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM)
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "your quota on this file system is used up",
    errno.EFBIG: "`ulimit -f` or the file system allows no longer file",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "change the permissions or choose another folder",
    errno.EPERM: "change the permissions or choose another folder",
    errno.ENAMETOOLONG: "choose a folder with a shorter path",
    errno.EMFILE: "raise `ulimit -n`",
    errno.ELOOP: "a link on the way leads back to itself",
    errno.ENOMEM: "free some memory or raise `ulimit -v`",
}
# More than the files need that SQLite keeps beside a store.
_PROBE = 1 << 20


def existing_part(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())


def explained(error: OSError, place: Path | None = None, kept: str = "") -> BenchError:
    """The one line for what the system refused, to raise in place of `error`.

    It names the error's path, `place` where that is unknown, and where space is short how much is needed, by the error's notes.
    `kept` says what was not lost. The exit code is 3 where the disk gave out and 2 otherwise.
    """
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else place
    told = error.strerror or str(error) or type(error).__name__
    reasons: list[str] = []
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reasons += getattr(error, "__notes__", ())
        reasons += [f"{megabytes(_free(path))} are free"] if path is not None else []
    if error.errno in (errno.ENOTDIR, errno.EEXIST) and path is not None:
        found = next((parent for parent in (path, *path.parents) if _is_other(parent)), path)
        reasons.append(f"{found} stands where a folder belongs; remove it")
    if advice := _ADVICE.get(error.errno or 0):
        reasons.append(advice)
    line = f"{told}: {', '.join(reasons)}" if reasons else told
    line = line if path is None else f"{path}: {line}"
    kind = IncompleteError if error.errno in _GAVE_OUT else UsageError
    return kind(f"{line}; {kept}" if kept else line)


def is_refused(error: OSError) -> bool:
    """Whether an error is the disk's or the system's own, for which `explained` has advice, and none of the network."""
    return error.errno in _GAVE_OUT or error.errno in _ADVICE


def why_not_writable(folder: Path) -> OSError | None:
    """What keeps a file of 1 MB from being written into a folder; None where nothing does."""
    probe = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-probe"
    try:
        write_whole(probe, lambda file: file.write(bytes(_PROBE)))
        probe.unlink()
    except OSError as error:
        error.filename = str(folder)
        return error
    return None


def _free(path: Path) -> int | None:
    for place in (path, *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:
            continue
    return None


def _is_other(path: Path) -> bool:
    return os.path.lexists(path) and not path.is_dir()
