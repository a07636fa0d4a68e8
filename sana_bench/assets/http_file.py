"""One file by HTTP, gone on with where it was cut.

The file grows as `NAME.part`, with the server's version of it in `NAME.part.version`, until the caller gives it its name. This is
the standard library's client and no other for a reason. `pooch` begins a new temporary file at each call, asks for no range, and
takes a whole hash or none, where mmdet publishes eight digits: with a downloader of its own that resumes, it would add code to
this module and take away a rename. The hub client's own loader drops up to 10 MiB of what came before a cut, asks for no
version, and shows nothing where no terminal is; `hf_hub_download` would stand beside this module, as `--from` and the addresses
outside the hub need it anyway. Whole repositories are the hub client's: see `hub.py`.
"""

import os
from contextlib import nullcontext
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from sana_bench.core import atomic
from sana_bench.core.atomic import open_own
from sana_bench.core.errors import AssetError
from sana_bench.core.storage import GO_ON, explained, is_refused
from sana_bench.core.text import read_text

__all__ = ["download_file", "forget", "part_of", "remote_size"]

_BLOCK = 1 << 20

# Shorter downloads are over before a bar says much.
_SHOWN_FROM = 50 << 20

_TIMEOUT_S = 60

# What a server answers to a range that starts at or past the end.
_RANGE_NOT_SATISFIABLE = 416


def part_of(place: Path) -> Path:
    """Where the file `place` grows."""
    return place.with_name(f"{place.name}.part")


def forget(part: Path) -> None:
    """Drop what was loaded of a file, so that the next call begins anew."""
    part.unlink(missing_ok=True)
    _version(part).unlink(missing_ok=True)


def remote_size(url: str) -> int | None:
    """Bytes of a file by its server, None when it does not say; raises `AssetError` when it is out of reach."""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=_TIMEOUT_S) as answer:
            return _length(answer)
    except (URLError, OSError, HTTPException) as error:
        raise AssetError(f"{url}: {_reason(error)}") from None


def download_file(url: str, part: Path) -> None:
    """Load a file into `part`, going on where it was cut if the server still has the same version of it.

    Raises `AssetError` when the server is out of reach or the file was cut short: what came is kept for the next call.
    """
    headers = _resume_headers(part)
    try:
        with urlopen(Request(url, headers=headers), timeout=_TIMEOUT_S) as answer:
            resumed = answer.status == 206 and _range_start(answer) == part.stat().st_size
            begun = part.stat().st_size if resumed else 0
            if answer.status == 206 and not resumed:
                forget(part)
                raise AssetError(
                    f"{url}: the server sent a different range than requested; run the command again"
                )
            _note_version(part, answer)
            length = _length(answer)
            if not resumed:
                part.unlink(missing_ok=True)
            with open(open_own(part, os.O_WRONLY | os.O_APPEND), "ab") as out:
                _copy(answer, out, part.stem, length)
    except HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE and headers:
            forget(part)
            return download_file(url, part)
        raise AssetError(f"{url}: {_reason(error)}") from None
    except (URLError, OSError, HTTPException) as error:
        if isinstance(error, OSError) and is_refused(error):
            raise explained(error, part, GO_ON) from None
        raise AssetError(f"{url}: {_reason(error)}; run the command again to continue") from None
    have = part.stat().st_size
    if length is not None and have != begun + length:
        raise AssetError(
            f"{url}: stopped after {have} of {begun + length} bytes; run the command again to continue"
        )
    return None


def _copy(answer: Any, out: BinaryIO, label: str, n_bytes: int | None) -> None:
    from sana_bench.core.progress import Progress

    shown = Progress(label, -(-n_bytes // _BLOCK), "MiB") if n_bytes and n_bytes > _SHOWN_FROM else None
    with shown or nullcontext():
        while block := answer.read(_BLOCK):
            out.write(block)
            if shown is not None:
                shown.advance(1)


def _resume_headers(part: Path) -> dict[str, str]:
    """What asks for the rest of the very version that was begun; nothing where none is known."""
    version = _version(part)
    if part.is_file() and part.stat().st_size and version.is_file():
        return {"Range": f"bytes={part.stat().st_size}-", "If-Range": read_text(version)}
    return {}


def _note_version(part: Path, answer: Any) -> None:
    tag = answer.headers.get("ETag") or ""
    # A weak tag promises the same meaning, not the same bytes.
    version = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
    if version:
        atomic.write_text(_version(part), version)
    else:
        _version(part).unlink(missing_ok=True)


def _range_start(answer: Any) -> int | None:
    unit, _, rest = (answer.headers.get("Content-Range") or "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdecimal() else None


def _version(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _length(answer: Any) -> int | None:
    length = answer.headers.get("Content-Length")
    return int(length) if length is not None and length.isdecimal() else None


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error)
