"""Downloads into the data root: announced, resumed, verified, and never half there.

A file grows beside its place and takes its name when it is whole and its SHA-256 is right. Hashes stand in `SHA256SUMS` of the
data root, as `sha256sum` writes and checks them: where no hash was published, the one of the first fetch counts from then on. An
archive stays beside what was unpacked from it; where it was deleted and its images are there, it is not loaded again.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from sana_bench.assets import unpack as unpacking
from sana_bench.assets.http_file import download_file, forget, part_of, remote_size
from sana_bench.assets.locate import is_offline
from sana_bench.assets.mjhq30k import images_are_there
from sana_bench.assets.table import RemoteFile
from sana_bench.core import atomic
from sana_bench.core.errors import AssetError
from sana_bench.core.fingerprint import file_sha256
from sana_bench.core.progress import megabytes
from sana_bench.core.storage import existing_part, explained
from sana_bench.core.text import lines, read_text
from sana_models.files import open_plain

__all__ = [
    "SUMS",
    "Download",
    "Say",
    "Size",
    "carry_out",
    "planned_files",
    "read_sums",
]

Say = Callable[[str], None]

#: Where the data root keeps the hashes of its files.
SUMS = "SHA256SUMS"


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
        place = existing_part(download.folder)
        device = os.stat(place).st_dev
        needed[device] = needed.get(device, 0) + size.to_fetch + size.unpacked
        free = shutil.disk_usage(place).free
        if needed[device] > free:
            total = sum(size.to_fetch + size.unpacked for size in sizes)
            raise AssetError(f"{download.folder}: {megabytes(total)} are needed, {megabytes(free)} are free")


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
            say(f"{file.path}: already here, sha256 {digest[:12]}")
            if file.unpack and not _is_unpacked(place, root / file.unpack):
                planned.append(_unpacking(file, root, say))
        elif file.unpack and images_are_there(_listing(place)):
            say(f"{file.path}: its images are already here")
        else:
            planned.append(_loading(file, root, sums, say, mirror))
    return planned


def _loading(file: RemoteFile, root: Path, sums: dict[str, str], say: Say, mirror: str | None) -> Download:
    source, place = _source(file, mirror), root / file.path

    def measure() -> Size:
        size = _size(file, source)
        begun = part_of(place).stat().st_size if part_of(place).is_file() else 0
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
    licence = f" (licence: {file.licence})" if file.licence else ""
    return Download(file.path, f"{source}{licence}", root, isinstance(source, str), lacking, measure, load)


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
    if _listing(place).is_file() and not images_are_there(_listing(place)):
        raise AssetError(f"{place}: does not contain all images that {_listing(place)} names")
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


def _size(file: RemoteFile, source: str | Path) -> int | None:
    if isinstance(source, str):
        return remote_size(source)
    if not source.is_file():
        raise AssetError(f"{source} is missing, needed as {file.path}")
    return source.stat().st_size


def _source(file: RemoteFile, mirror: str | None) -> str | Path:
    if mirror is None:
        return file.url
    if mirror.startswith(("http://", "https://")):
        return f"{mirror.rstrip('/')}/{quote(file.path)}"
    return Path(os.path.expanduser(mirror), file.path)


def _fetch(file: RemoteFile, source: str | Path, place: Path, sums: dict[str, str]) -> str:
    """Load, verify and name one file; return its SHA-256."""
    part = part_of(place)
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Path):
            part.unlink(missing_ok=True)
            with open_plain(source) as content, open(part, "xb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
        else:
            download_file(source, part)
    except OSError as error:
        raise explained(error, place) from None
    digest = file_sha256(part)
    try:
        _check(place, digest, file, sums)
    except AssetError:
        forget(part)
        raise
    with open_plain(part) as written:
        os.fsync(written.fileno())
    os.replace(part, place)
    forget(part)
    return digest


def _check(place: Path, digest: str, file: RemoteFile, sums: dict[str, str]) -> None:
    for expected, known_as in (
        (file.sha256, "published"),
        (sums.get(file.path, ""), "recorded at the first fetch"),
    ):
        if not digest.startswith(expected):
            raise AssetError(
                f"{place}: sha256 is {digest[: max(len(expected), 12)]}, {known_as} is {expected}; "
                "the file is damaged or has changed: delete it (or its line in SHA256SUMS) and fetch it again"
            )


def _record(root: Path, path: str, digest: str, sums: dict[str, str]) -> None:
    if sums.get(path) != digest:
        sums[path] = digest
        atomic.write_text(root / SUMS, "".join(f"{value}  {name}\n" for name, value in sorted(sums.items())))
