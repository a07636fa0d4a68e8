"""A list of things to load: every size is said, and the free space checked, before the first byte of any is fetched."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sana_bench.assets import is_offline
from sana_bench.errors import AssetError

__all__ = ["Download", "Say", "Size", "carry_out", "megabytes"]

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


def megabytes(size: int | None) -> str:
    """A size for people, in millions of bytes."""
    return "unknown size" if size is None else f"{size / 1e6:,.1f} MB"


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
