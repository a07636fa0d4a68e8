"""A damaged store: what can be read of it, and a new one of that and of what lies in the run folders.

Blocks whose sums are wrong are taken for lost, so that what is saved is what was written.
"""

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sana_bench.core import atomic
from sana_bench.core.errors import UsageError
from sana_bench.core.fingerprint import fingerprint, sha256_bytes
from sana_bench.core.images import ImageError, load_image
from sana_bench.core.provenance import now
from sana_bench.results.database import STORE_NAME, disk_errors, writer_lock
from sana_bench.results.documents import Provenance, checked
from sana_bench.results.migrations import columns_of, schema_version, tables_of_version
from sana_bench.results.run_folder import RunFiles, image_path, open_store
from sana_bench.results.salvage import Rows, readable_copy, salvaged
from sana_bench.results.schema import SCHEMA_VERSION
from sana_bench.results.seal import BLOCK, SEAL_NAME, SealError, changed_blocks
from sana_bench.results.store import Store
from sana_bench.results.stored_suite import StoredSuite
from sana_models.files import read_bytes, read_text

__all__ = ["Condition", "Repaired", "check_store", "repair_store"]

# Messages of SQLite's own check that are shown.
_SHOWN = 5


@dataclass(frozen=True)
class Condition:
    """What is wrong with a store, a line each, and what of it can be read: rows by table."""

    problems: list[str]
    readable: dict[str, int]
    changed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Repaired:
    """What a repair saved: rows by table, and runs and images that were found in run folders.

    `lost` says whether anything could not be read, so that numbers of `again`, the runs with a folder, may be lacking. `kept` is
    where the damaged file lies now.
    """

    saved: dict[str, int]
    runs: list[str]
    images: int
    lost: bool
    again: list[str]
    kept: Path


def check_store(output: Path) -> Condition:
    """Say what is wrong with the store of an output folder; raises `UsageError` where there is none.

    A store without problems is as it was written, reads as a whole, and knows every run folder.
    """
    with tempfile.TemporaryDirectory() as scratch:
        problems, changed = _problems_of_file(output)
        copy = readable_copy(output, Path(scratch), changed)
        rows, _ = salvaged(copy)
        problems += _problems_of_content(copy)
    known = {row["run_id"] for row in rows.get("runs", [])}
    for folder in _run_folders(output):
        if folder.directory.name not in known:
            problems.append(f"the run in {folder.directory} is not in the store")
    return Condition(problems, {table: len(found) for table, found in rows.items()}, changed)


def repair_store(output: Path, *, as_is: bool = False) -> Repaired:
    """Put a new store in the place of a damaged one, of all that can be read of it and of what the run folders hold.

    The damaged file is kept beside it. `as_is` takes blocks that are not as they were written for changed on purpose. Raises
    `UsageError` where there is no store, and `BenchError` where the disk is full, with everything as it was.
    """
    with (
        disk_errors(output),
        writer_lock(output),
        tempfile.TemporaryDirectory(dir=output, prefix=".tmp-") as scratch,
    ):
        _, changed = _problems_of_file(output)
        rows, whole = salvaged(readable_copy(output, Path(scratch), [] if as_is else changed))
        new = Path(scratch) / "new"
        new.mkdir()
        with Store.open(new) as store:
            saved, found = _fill(store, rows, _run_folders(output))
        kept = _put_in_place(output, new)
    with open_store(output) as store:
        known = store.run_ids()
    again = [files.directory.name for files in _run_folders(output) if files.directory.name in known]
    return Repaired(saved, found.runs, found.images, not whole or (bool(changed) and not as_is), again, kept)


def _problems_of_file(output: Path) -> tuple[list[str], list[int]]:
    path = output / STORE_NAME
    if not os.path.lexists(path):
        raise UsageError(f"{output}: there is no result store; sana-bench run makes one")
    atomic.check_own(path)
    try:
        changed = changed_blocks(output) or []
    except SealError as error:
        return [str(error)], []
    return (
        [f"{len(changed)} blocks of {BLOCK} bytes are not as they were written"] if changed else []
    ), changed


def _problems_of_content(copy: Path) -> list[str]:
    with closing(sqlite3.connect(copy)) as connection:
        try:
            found = [str(row[0]) for row in connection.execute(f"PRAGMA integrity_check({_SHOWN})")]
            version = schema_version(connection)
            lacking = sorted(
                {table for table, _ in tables_of_version(SCHEMA_VERSION) - columns_of(connection)}
            )
        except sqlite3.Error as error:
            return [f"SQLite: {error}"]
    problems = [f"SQLite: {' '.join(line.split())}" for line in found if line != "ok"]
    if version == SCHEMA_VERSION and lacking:
        problems.append(f"it has no {', '.join(lacking)} as a result store has them")
    return problems


def _run_folders(output: Path) -> list[RunFiles]:
    """The folders of runs whose suite can be read, by name."""
    found = []
    for path in sorted((output / "runs").glob("*")):
        files = RunFiles(path)
        if path.is_dir() and not path.is_symlink() and files.suite.is_file():
            found.append(files)
    return found


@dataclass
class _Found:
    """What was found in run folders and not in the store."""

    runs: list[str] = field(default_factory=list)
    images: int = 0


def _fill(store: Store, rows: Rows, folders: Sequence[RunFiles]) -> tuple[dict[str, int], _Found]:
    found = _Found()
    saved = {table: _insert(store, table, rows[table]) for table in ("runs", "metrics")}
    for files in folders:
        try:
            suite = StoredSuite.read(files.suite)
            suite.check_run(files.directory.name, str(files.suite))
        except UsageError:
            continue  # damaged too: what the store has of it is all there is
        if store.run(files.directory.name) is None:
            _add_run(store, files, suite)
            found.runs.append(files.directory.name)
    # Sessions before their events; the other tables rest on runs and metrics alone.
    others = sorted(
        (table for table in rows if table not in saved), key=lambda table: (table == "events", table)
    )
    saved |= {table: _insert(store, table, rows[table]) for table in others}
    for files in folders:
        if store.run(files.directory.name) is not None:
            found.images += sum(_insert(store, "images", [row]) for row in _images_of(files, store))
    return saved, found


def _insert(store: Store, table: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Insert rows, those left out that do not fit the table or belong to nothing; return how many there are now."""
    count = 0
    with store.transaction() as connection:
        for row in rows:
            values = ", ".join(f":{name}" for name in row)
            try:
                cursor = connection.execute(
                    f"INSERT OR IGNORE INTO {table} ({', '.join(row)}) VALUES ({values})", dict(row)
                )
            except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError):
                continue
            count += max(cursor.rowcount, 0)
    return count


def _add_run(store: Store, files: RunFiles, suite: StoredSuite) -> None:
    """Register a run as its folder describes it: its suite, where its numbers come from, its metrics and sessions."""
    run_id = files.directory.name
    try:
        provenance = checked(Provenance, json.loads(read_text(files.provenance)), str(files.provenance))
    except (OSError, ValueError, RecursionError, UsageError):
        provenance = {}
    sessions = provenance.get("sessions", [])
    started = next((str(row["started"]) for row in sessions if "started" in row), now())
    directory = files.directory.relative_to(files.directory.parents[1]).as_posix()
    store.put_run(run_id, suite.name, suite.tier, suite.fingerprint, directory, started)
    store.set_provenance(run_id, provenance)
    for name, identity in provenance.get("metrics", {}).items():
        if name not in provenance.get("protocols", {}):
            continue
        protocol = provenance["protocols"][name]
        key = fingerprint({"name": name, "protocol": protocol, "identity": identity})
        store.put_metric(key, name, protocol, identity)
    known = {column for table, column in tables_of_version(SCHEMA_VERSION) if table == "sessions"}
    _insert(
        store,
        "sessions",
        ({k: v for k, v in row.items() if k in known and k != "session_id"} for row in sessions),
    )


def _images_of(files: RunFiles, store: Store) -> Iterator[dict[str, Any]]:
    """Rows for the whole images in a run folder that the store does not have."""
    suite = StoredSuite.read(files.suite)
    output = files.directory.parents[1]
    for benchmark in suite.benchmarks:
        try:
            prompts = files.read_prompts(benchmark.name)
        except UsageError:
            continue
        for variant in suite.variants:
            key = benchmark.image_key(variant)
            have = store.images(key)
            for prompt in prompts.values():
                for index in range(benchmark.images_per_prompt):
                    place = image_path(variant.name, variant.fingerprint, benchmark.name, prompt.id, index)
                    path = files.directory / place
                    if (prompt.id, index) in have or not path.is_file() or path.is_symlink():
                        continue
                    try:
                        load_image(path)
                    except ImageError:
                        continue
                    content = read_bytes(path)
                    yield {
                        "image_key": key,
                        "prompt_id": prompt.id,
                        "sample_index": index,
                        "prompt_sha256": prompt.sha256,
                        "status": "ok",
                        "path": path.relative_to(output).as_posix(),
                        "sha256": sha256_bytes(content),
                        "length": len(content),
                        "run_id": files.directory.name,
                        "created": now(),
                    }


def _put_in_place(output: Path, new: Path) -> Path:
    """Let the new store take the place of the damaged one, which is kept under another name."""
    path = output / STORE_NAME
    stamp = now().replace(":", "").partition("+")[0]
    taken = len(list(output.glob(f"{STORE_NAME}.damaged-{stamp}*")))
    kept = output / f"{STORE_NAME}.damaged-{stamp}{f'-{taken}' if taken else ''}"
    os.link(path, kept)
    (output / SEAL_NAME).unlink(missing_ok=True)
    # The log belongs to the damaged file, and would be read into the new one.
    for end in ("-wal", "-shm"):
        beside = path.with_name(f"{STORE_NAME}{end}")
        if os.path.lexists(beside):
            beside.rename(kept.with_name(f"{kept.name}{end}"))
    os.replace(new / STORE_NAME, path)
    os.replace(new / SEAL_NAME, output / SEAL_NAME)
    return kept
