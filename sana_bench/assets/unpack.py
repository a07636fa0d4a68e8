"""Archives of images: unpacked file by file, so that the same call goes on where it was stopped."""

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from sana_bench.core.atomic import TEMPORARY_PREFIX
from sana_bench.core.errors import AssetError
from sana_bench.core.progress import megabytes
from sana_models.files import plain

__all__ = ["bytes_to_unpack", "unpack"]


def bytes_to_unpack(archive: Path, folder: Path) -> int:
    """Bytes of the members that are not in `folder` with their size; raises as `unpack`."""
    with _opened(archive) as file:
        return sum(member.file_size for member, _ in _missing(archive, file, folder))


def unpack(archive: Path, folder: Path) -> int:
    """Put the members of a zip archive below `folder` and return how many were put there now.

    A first folder of the name of `folder` is dropped. A member that is there with its size is left. Every other is
    written beside its place, checked by the archive's checksum and renamed, so nothing is ever half there.

    Raises:
        AssetError: the archive is damaged, a member's name leads out of `folder` or comes twice, a member is no plain file,
        or the space does not suffice.
    """
    from sana_bench.core.progress import Progress

    with _opened(archive) as file:
        missing = _missing(archive, file, folder)
        needed, free = sum(member.file_size for member, _ in missing), shutil.disk_usage(archive.parent).free
        if needed > free:
            raise AssetError(f"{folder}: {megabytes(needed)} are needed, {megabytes(free)} are free")
        with Progress(f"unpack {archive.name}", len(missing), "files") as progress:
            for member, place in missing:
                _write(file, member, place)
                progress.advance(1)
    # Once for all: a flush of each of 30,000 files would take longer than unpacking them.
    os.sync()
    return len(missing)


def _write(file: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    # One name for each place: what a killed process left is replaced.
    temporary = place.with_name(f"{TEMPORARY_PREFIX}{place.name}")
    temporary.unlink(missing_ok=True)
    try:
        with file.open(member) as content, open(temporary, "xb") as out:
            shutil.copyfileobj(content, out)
        os.replace(temporary, place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _missing(archive: Path, file: zipfile.ZipFile, folder: Path) -> list[tuple[zipfile.ZipInfo, Path]]:
    places: dict[Path, zipfile.ZipInfo] = {}
    for member in file.infolist():
        if member.is_dir():
            continue
        place = _place(archive, member, folder)
        if place in places:
            raise AssetError(f"{archive}: contains {member.filename!r} twice")
        places[place] = member
    return [(member, place) for place, member in places.items() if _size(place) != member.file_size]


def _place(archive: Path, member: zipfile.ZipInfo, folder: Path) -> Path:
    name = member.filename
    parts = name.split("/")
    if "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise AssetError(f"{archive}: {name!r} lies outside the folder or is not a file name")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise AssetError(f"{archive}: {name!r} is not a plain file")
    inside = parts[1:] if len(parts) > 1 and parts[0] == folder.name else parts
    return folder / PurePosixPath(*inside)


def _size(place: Path) -> int | None:
    return place.stat().st_size if place.is_file() else None


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(plain(archive)) as file:
            yield file
    # What zipfile raises for encrypted members and methods that it does not know are RuntimeErrors.
    except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error, OSError) as error:
        reason = " ".join(str(error).split())
        raise AssetError(
            f"{archive}: cannot be unpacked ({reason}); if it is damaged, delete it and fetch it again"
        ) from None
