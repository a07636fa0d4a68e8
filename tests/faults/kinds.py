"""The kinds of faults: what each does to a folder, to a file of it or to the command at work, and how it is lifted."""

import os
import random
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests import small_disk
from tests.faults.commands import Running

__all__ = ["KINDS", "Fault", "strike"]

KINDS = (
    "kill", "truncate", "bit flip", "link", "directory", "pipe", "fill the disk", "forbid", "rename", "swap",
)  # fmt: skip
#: What a kind changes without a trace in names: inputs that a person gave are left out, whose change asks for other numbers.
SILENT = ("truncate", "bit flip", "swap")
PRECIOUS = b"what nobody may touch\n"


@dataclass
class Fault:
    """What was done, if anything; `lift` undoes what a person would undo who reads the line, such as a full disk."""

    kind: str
    what: str
    lift: Callable[[], object] | None = None
    limit: int | None = None
    struck: bool = True

    def prepare(self) -> None:
        """What the fault does to a command's own process: a limit of the length of files."""
        if self.limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.RLIM_INFINITY))


def strike(
    kind: str, folder: Path, victim: Path, rng: random.Random, running: Running | None, *, has_disk: bool
) -> Fault:
    """Let a fault happen now to the folder, or to the command that is at work in it; `has_disk` says that the folder lies on a
    small disk of its own, which can be filled.
    """
    if kind == "kill":
        number = rng.choice([signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT])
        return Fault(kind, number.name, struck=running is not None and running.send(number))
    if kind == "fill the disk":
        return _fill(folder, rng, has_disk)
    places = _places(folder, kind, at_work=running is not None)
    if kind == "swap":
        return _swap(places, rng)
    if kind in ("rename", "forbid"):
        places += [path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink()]
    if not places:
        return Fault(kind, "nothing there", struck=False)
    place = _chosen(places, rng)
    try:
        return _BY_KIND[kind](place, victim, rng, folder)
    except (FileNotFoundError, NotADirectoryError):  # the command was quicker
        return Fault(kind, f"{place.relative_to(folder)} was gone", struck=False)


def _places(folder: Path, kind: str, *, at_work: bool) -> list[Path]:
    """Files that a fault may strike.

    While a command has them open, SQLite's log and its index are its working memory, which it does not check.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name == "filler" or (at_work and path.name.endswith(("-wal", "-shm"))):
            continue
        if kind in SILENT and path.relative_to(folder).parts[0] == "images":
            continue
        found.append(path)
    return found


def _chosen(places: list[Path], rng: random.Random) -> Path:
    """One of the places, each sort of file as likely as the others, however many there are of it."""
    sorts: dict[str, list[Path]] = {}
    for path in places:
        sorts.setdefault(
            path.suffix + path.name[:6] if path.suffix not in (".png", ".safetensors") else path.suffix, []
        ).append(path)
    return rng.choice(sorts[rng.choice(sorted(sorts))])


def _truncate(place: Path, victim: Path, rng: random.Random, folder: Path) -> Fault:
    size = place.stat().st_size
    length = rng.randrange(size) if size else 0
    os.truncate(place, length)
    return Fault("truncate", f"{place.relative_to(folder)} to {length} of {size} bytes")


def _flip(place: Path, victim: Path, rng: random.Random, folder: Path) -> Fault:
    size = place.stat().st_size
    if not size:
        return Fault("bit flip", f"{place.relative_to(folder)} is empty", struck=False)
    at, bit = rng.randrange(size), 1 << rng.randrange(8)
    with open(place, "r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ bit]))
    return Fault("bit flip", f"{place.relative_to(folder)} at byte {at}")


def _link(place: Path, victim: Path, rng: random.Random, folder: Path) -> Fault:
    place.unlink()
    hard = rng.random() < 0.3 and os.stat(folder).st_dev == os.stat(victim).st_dev
    os.link(victim, place) if hard else place.symlink_to(victim)
    return Fault("link", f"{place.relative_to(folder)} {'by a second name' if hard else 'by a link'}")


def _directory(place: Path, victim: Path, rng: random.Random, folder: Path) -> Fault:
    place.unlink()
    place.mkdir()
    if rng.random() < 0.5:
        (place / "kept").write_bytes(PRECIOUS)
    return Fault("directory", str(place.relative_to(folder)))


def _pipe(place: Path, victim: Path, rng: random.Random, folder: Path) -> Fault:
    place.unlink()
    os.mkfifo(place)
    return Fault("pipe", str(place.relative_to(folder)))


def _fill(folder: Path, rng: random.Random, has_disk: bool) -> Fault:
    leave = rng.choice([0, 4096, 20_000, 60_000, 120_000])
    if not has_disk:
        return Fault("fill the disk", f"files of at most {leave} bytes", limit=leave)
    filler = small_disk.fill(folder, leave)
    return Fault("fill the disk", f"{leave} bytes left", lambda: filler.unlink(missing_ok=True))


def _forbid(place: Path, victim: Path, rng: random.Random, folder: Path) -> Fault:
    mode = place.lstat().st_mode
    if place.is_symlink():
        return Fault("forbid", "a link", struck=False)
    forbidden = rng.choice([0, 0o444, 0o555]) if place.is_dir() else rng.choice([0, 0o444])
    place.chmod(forbidden)

    def lift() -> None:
        if place.exists():
            place.chmod(mode & 0o7777)

    return Fault("forbid", f"{place.relative_to(folder)} with mode {forbidden:03o}", lift)


def _rename(place: Path, victim: Path, rng: random.Random, folder: Path) -> Fault:
    renamed = place.with_name(f"{place.name}.renamed")
    place.rename(renamed)

    def lift() -> None:
        if not os.path.lexists(place) and renamed.exists():
            renamed.rename(place)

    return Fault("rename", str(place.relative_to(folder)), lift)


def _swap(places: list[Path], rng: random.Random) -> Fault:
    """Two files of one size change places, or two of one sort."""
    files = [path for path in places if path.is_file() and not path.is_symlink()]
    alike: dict[object, list[Path]] = {}
    by_size = rng.random() < 0.7
    for path in files:
        alike.setdefault(path.stat().st_size if by_size else path.suffix, []).append(path)
    pairs = [group for group in alike.values() if len(group) > 1]
    if not pairs:
        return Fault("swap", "no two files of one size", struck=False)
    one, other = rng.sample(rng.choice(pairs), 2)
    between = one.with_name(f"{one.name}.between")
    try:
        one.rename(between)
        other.rename(one)
        between.rename(other)
    except FileNotFoundError:
        return Fault("swap", f"{one.name} was gone", struck=False)
    return Fault("swap", f"{one.name} and {other.name}")


_BY_KIND: dict[str, Callable[[Path, Path, random.Random, Path], Fault]] = {
    "truncate": _truncate, "bit flip": _flip, "link": _link, "directory": _directory, "pipe": _pipe,
    "forbid": _forbid, "rename": _rename,
}  # fmt: skip
