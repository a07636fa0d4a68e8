"""Downloads into the data root: announced, resumed, verified, and never half there.

A file grows as `NAME.part` beside its place, with the server's version of it in `NAME.part.version`; it takes its name when
it is whole and its SHA-256 is right. Hashes stand in `SHA256SUMS` of the data root, as `sha256sum` writes and checks them:
where no hash was published, the one of the first fetch counts from then on. An archive stays beside what was unpacked from it;
where it was deleted and its images are there, it is not loaded again.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from sana_bench.assets import unpack as unpacking
from sana_bench.assets.locate import is_offline
from sana_bench.assets.mjhq30k import images_are_there
from sana_bench.assets.table import RemoteFile
from sana_bench.core import atomic
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import file_sha256
from sana_bench.core.progress import megabytes
from sana_bench.core.text import lines, read_text

__all__ = [
    "SUMS",
    "Download",
    "Say",
    "Size",
    "carry_out",
    "fetch_files",
    "planned_files",
    "read_sums",
    "remote_size",
]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """Bytes in all (None where the server does not say), those of them that are here, and those that unpacking adds."""

    total: int | None
    here: int = 0
    unpacked: int = 0

    @property
    def to_fetch(self) -> int:
        """Bytes still to be loaded, as far as known."""
        return max((self.total or 0) - self.here, 0)


@dataclass(frozen=True)
class Download:
    """One thing to load: `measure` may ask its server, `load` brings it into `folder`; both raise `AssetError`.

    `lacking` names it and its source in the message of a machine that is offline.
    """

    name: str
    source: str
    folder: Path
    is_remote: bool
    lacking: str
    measure: Callable[[], Size]
    load: Callable[[], None]


def carry_out(downloads: Sequence[Download], say: Say) -> None:
    """Say all sizes and their total, check the space, then load one after the other.

    Raises:
        AssetError: HF_HUB_OFFLINE is set and something is remote, the space does not suffice, or a download fails.
    """
    if is_offline() and any(download.is_remote for download in downloads):
        missing = ", ".join(download.lacking for download in downloads)
        raise AssetError(f"HF_HUB_OFFLINE is set, nothing is fetched; missing: {missing}")
    sizes = [download.measure() for download in downloads]
    for download, size in zip(downloads, sizes, strict=True):
        say(_line(download, size))
    if downloads:
        _check_space(downloads, sizes)
        say(_total(downloads, sizes))
    for download in downloads:
        download.load()


def _line(download: Download, size: Size) -> str:
    if size.total == 0 and size.unpacked:
        return f"{download.name}: {megabytes(size.unpacked)} to unpack"
    here = f", {megabytes(size.here)} of it here" if size.here else ""
    unpacked = ", and about as much again unpacked" if size.unpacked else ""
    return f"{download.name}: {megabytes(size.total)}{here}, from {download.source}{unpacked}"


def _total(downloads: Sequence[Download], sizes: Sequence[Size]) -> str:
    least = "at least " if any(size.total is None for size in sizes) else ""
    parts: dict[Path, int] = {}
    for download, size in zip(downloads, sizes, strict=True):
        parts[download.folder] = parts.get(download.folder, 0) + size.to_fetch
    line = (
        "to fetch: " + least + ", ".join(f"{megabytes(size)} into {folder}" for folder, size in parts.items())
    )
    if len(parts) > 1:
        line += f", {megabytes(sum(parts.values()))} in all"
    unpacked = sum(size.unpacked for size in sizes)
    return f"{line}, and {megabytes(unpacked)} unpacked" if unpacked else line


def _check_space(downloads: Sequence[Download], sizes: Sequence[Size]) -> None:
    """Folders of one file system share its space."""
    needed: dict[int, int] = {}
    for download, size in zip(downloads, sizes, strict=True):
        place = _existing(download.folder)
        device = os.stat(place).st_dev
        needed[device] = needed.get(device, 0) + size.to_fetch + size.unpacked
        free = shutil.disk_usage(place).free
        if needed[device] > free:
            total = sum(size.to_fetch + size.unpacked for size in sizes)
            raise AssetError(f"{download.folder}: {megabytes(total)} are needed, {megabytes(free)} are free")


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())


SUMS = "SHA256SUMS"


_BLOCK = 1 << 20


# Shorter downloads are over before a bar says much.
_SHOWN_FROM = 50 << 20


_TIMEOUT_S = 60


# What a server answers to a range that starts at or past the end.
_RANGE_NOT_SATISFIABLE = 416


def fetch_files(files: Sequence[RemoteFile], root: Path, say: Say, mirror: str | None = None) -> None:
    """Bring every file below `root`, verified; what is there and whole is left alone.

    Args:
        mirror: a URL or a folder that holds the same paths as the data root, used instead of the public homes.

    Raises:
        AssetError: offline, out of reach, cut short, of another hash, or a file in place is not what was recorded. What
        was loaded so far is kept, and the same command goes on there.
    """
    carry_out(planned_files(files, root, say, mirror), say)


def planned_files(
    files: Sequence[RemoteFile], root: Path, say: Say, mirror: str | None = None
) -> list[Download]:
    """What of `files` is still to be loaded or unpacked; those that are there are verified and said.

    Raises `AssetError` for a file in place of another hash than published or recorded.
    """
    sums = read_sums(root)
    planned = []
    for file in files:
        place = root / file.path
        if place.is_file():
            digest = file_sha256(place)
            _check(place, digest, file, sums)
            _record(root, file.path, digest, sums)
            say(f"{file.path}: is there, sha256 {digest[:12]}")
            if file.unpack and not _is_unpacked(place, root / file.unpack):
                planned.append(_unpacking(file, root, say))
        elif file.unpack and images_are_there(_listing(place)):
            say(f"{file.path}: its images are there")
        else:
            planned.append(_loading(file, root, sums, say, mirror))
    return planned


def _loading(file: RemoteFile, root: Path, sums: dict[str, str], say: Say, mirror: str | None) -> Download:
    source, place = _source(file, mirror), root / file.path

    def measure() -> Size:
        size = _size(file, source)
        begun = _part(place).stat().st_size if _part(place).is_file() else 0
        # The members of an archive of images are about as long as the archive.
        return Size(size, begun, unpacked=size or 0 if file.unpack else 0)

    def load() -> None:
        digest = _fetch(file, source, place, sums)
        _record(root, file.path, digest, sums)
        known = "as published" if file.sha256 else "recorded, none is published"
        say(f"{file.path}: fetched, sha256 {digest[:12]} ({known})")
        if file.unpack:
            _unpack(file, root, say)

    lacking = f"{place} (from {source})"
    return Download(file.path, str(source), root, isinstance(source, str), lacking, measure, load)


def _unpacking(file: RemoteFile, root: Path, say: Say) -> Download:
    place, folder = root / file.path, root / file.unpack
    return Download(
        name=file.path,
        source=str(place),
        folder=root,
        is_remote=False,
        lacking=f"{folder} (in {place})",
        measure=lambda: Size(0, 0, unpacking.bytes_to_unpack(place, folder)),
        load=partial(_unpack, file, root, say),
    )


def _unpack(file: RemoteFile, root: Path, say: Say) -> None:
    place, folder = root / file.path, root / file.unpack
    count = unpacking.unpack(place, folder)
    if not images_are_there(_listing(place)):
        raise AssetError(f"{place}: not all images that {_listing(place)} names were in it")
    say(f"{file.path}: {count} files unpacked into {folder}")


def _is_unpacked(archive: Path, folder: Path) -> bool:
    """Whether nothing is left to unpack; without `folder`, whether the images lie in another that is read."""
    if folder.is_dir():
        return unpacking.bytes_to_unpack(archive, folder) == 0
    return images_are_there(_listing(archive))


def _listing(archive: Path) -> Path:
    return archive.with_name("meta_data.json")


def read_sums(root: Path) -> dict[str, str]:
    """Recorded SHA-256 by path below a folder, from its `SHA256SUMS`; empty where it has none."""
    path = root / SUMS
    entries = [line.split(maxsplit=1) for line in lines(read_text(path))] if path.is_file() else []
    return {entry[1].lstrip("*").removeprefix("./"): entry[0] for entry in entries if len(entry) == 2}


def remote_size(url: str) -> int | None:
    """Bytes of a file by its server, None when it does not say; raises `AssetError` when it is out of reach."""
    try:
        with closing(urlopen(Request(url, method="HEAD"), timeout=_TIMEOUT_S)) as answer:
            return _length(answer)
    except (URLError, OSError, HTTPException) as error:
        raise AssetError(f"{url}: {_reason(error)}") from None


def _size(file: RemoteFile, source: str | Path) -> int | None:
    if isinstance(source, str):
        return remote_size(source)
    if not source.is_file():
        raise AssetError(f"{source} is missing, wanted as {file.path}")
    return source.stat().st_size


def _source(file: RemoteFile, mirror: str | None) -> str | Path:
    if mirror is None:
        return file.url
    if mirror.startswith(("http://", "https://")):
        return f"{mirror.rstrip('/')}/{quote(file.path)}"
    return Path(mirror).expanduser() / file.path


def _fetch(file: RemoteFile, source: str | Path, place: Path, sums: dict[str, str]) -> str:
    """Load, verify and name one file; return its SHA-256."""
    part = _part(place)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Path):
            shutil.copyfile(source, part)
        else:
            _download(source, part)
    except OSError as error:
        raise AssetError(f"{place}: {_reason(error)}") from None
    digest = file_sha256(part)
    try:
        _check(place, digest, file, sums)
    except AssetError:
        _forget(part)
        raise
    with open(part, "rb") as written:
        os.fsync(written.fileno())
    os.replace(part, place)
    _forget(part)
    return digest


def _download(url: str, part: Path) -> None:
    headers = _resume_headers(part)
    try:
        with closing(urlopen(Request(url, headers=headers), timeout=_TIMEOUT_S)) as answer:
            resumed = answer.status == 206 and _range_start(answer) == part.stat().st_size
            begun = part.stat().st_size if resumed else 0
            if answer.status == 206 and not resumed:
                _forget(part)
                raise AssetError(
                    f"{url}: the server sent another range than asked for; run the command again"
                )
            _note_version(part, answer)
            length = _length(answer)
            with open(part, "ab" if resumed else "wb") as out:
                _copy(answer, out, part.stem, length)
    except HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE and headers:
            _forget(part)
            return _download(url, part)
        raise AssetError(f"{url}: {_reason(error)}") from None
    except (URLError, OSError, HTTPException) as error:
        raise AssetError(f"{url}: {_reason(error)}; run the command again to go on") from None
    have = part.stat().st_size
    if length is not None and have != begun + length:
        raise AssetError(
            f"{url}: stopped after {have} of {begun + length} bytes; run the command again to go on"
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
    """Ask for the rest only of the very version that was begun; without one, start anew."""
    version = _version(part)
    if part.is_file() and part.stat().st_size and version.is_file():
        return {"Range": f"bytes={part.stat().st_size}-", "If-Range": version.read_text(encoding="utf-8")}
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


def _check(place: Path, digest: str, file: RemoteFile, sums: dict[str, str]) -> None:
    for expected, origin in (
        (file.sha256, "published"),
        (sums.get(file.path, ""), "recorded at the first fetch"),
    ):
        if not digest.startswith(expected):
            raise AssetError(
                f"{place}: sha256 is {digest[: max(len(expected), 12)]}, {origin} is {expected}; "
                "the file is not what it should be: delete it (or its line in SHA256SUMS) and fetch it again"
            )


def _record(root: Path, path: str, digest: str, sums: dict[str, str]) -> None:
    if sums.get(path) != digest:
        sums[path] = digest
        atomic.write_text(root / SUMS, "".join(f"{value}  {name}\n" for name, value in sorted(sums.items())))


def _part(place: Path) -> Path:
    return place.with_name(f"{place.name}.part")


def _version(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version(part).unlink(missing_ok=True)


def _length(answer: Any) -> int | None:
    length = answer.headers.get("Content-Length")
    return int(length) if length is not None and length.isdecimal() else None


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(getattr(error, "reason", None) or error)
