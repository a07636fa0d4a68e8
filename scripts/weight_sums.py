"""`SHA256SUMS` of the shipped weights, as `sha256sum` writes and checks it."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from sana_bench.core.text import lines, read_text


def write_sums(weights: Path, folders: Iterable[str]) -> None:
    """Renew the lines of `folders` below `weights`; other lines stay. What explains weights is not summed."""
    path = weights / "SHA256SUMS"
    earlier = lines(read_text(path)) if path.is_file() else []
    folders = tuple(folders)
    kept = [
        line
        for line in earlier
        if not line.split(maxsplit=1)[1].startswith(tuple(f"./{f}/" for f in folders))
    ]
    files = [file for folder in folders for file in (weights / folder).rglob("*") if _is_summed(file)]
    kept += [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  ./{file.relative_to(weights)}" for file in files
    ]
    kept.sort(key=lambda line: line.split(maxsplit=1)[1])
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _is_summed(file: Path) -> bool:
    explains = file.name == "README.md" or file.suffix == ".png" or file.name.startswith("curve")
    return file.is_file() and not explains
