"""Another store's runs into this one: from a results folder with its images, or from an export without them."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from sana_bench.core import atomic
from sana_bench.core.errors import IncompleteError, UsageError
from sana_bench.core.fingerprint import sha256_bytes
from sana_bench.core.provenance import now
from sana_bench.core.samples import Prompt
from sana_bench.results.database import STORE_NAME, disk_errors, writer_lock
from sana_bench.results.exchange.collect import collect_runs, image_target, left_out
from sana_bench.results.exchange.export import read_export, table_file
from sana_bench.results.exchange.merge import RunMerge, add_features, apply_merge, plan_merge
from sana_bench.results.exchange.tables import Tables
from sana_bench.results.exchange.validation import check_tables
from sana_bench.results.run_folder import RunFiles
from sana_bench.results.store import Store
from sana_models.files import is_there, read_bytes

__all__ = ["ImportedRun", "import_runs"]

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+\[\]-]{0,200}")


@dataclass(frozen=True)
class ImportedRun:
    """What an import did for one run; `absent` counts images whose files this store does not have."""

    run_id: str
    rows: int
    copied: int
    absent: int

    @property
    def line(self) -> str:
        """One line for the user."""
        changed = self.rows or self.copied
        done = (
            f"{self.rows} rows, {self.copied} images copied" if changed else "already there, nothing changed"
        )
        absent = f"; the files of {self.absent} images are absent" if self.absent else ""
        return f"run {self.run_id}: {done}{absent}"


def import_runs(source: Path, output: Path, report: Callable[[ImportedRun], object]) -> int:
    """Bring every run of `source` into the store of `output`; call `report` after each; return their number.

    `source` is a results folder, one run directory of it, or an export. Again, it changes nothing.

    Raises:
        UsageError: `source` is none of these, is damaged, holds what does not fit its table or its run, or is `output` itself.
        IncomparableError: a run contradicts what the store has; runs before it are imported.
        IncompleteError: interrupted, the same command continues; or damaged runs of a results folder were left out.
        BenchError: the disk is full; the same command continues.
    """
    damaged: dict[str, str] = {}
    tables, files_root = _read_source(source, output, damaged)
    check_tables(tables, partial(_place, source, files_root))
    runs = [_only(tables, row["run_id"]) for row in tables["runs"]]
    try:
        with disk_errors(output):
            atomic.make_folder(output)
            with writer_lock(output), Store.open(output) as store:
                for run in runs:
                    report(_import_run(store, run, source, files_root))
    except KeyboardInterrupt:
        raise IncompleteError("interrupted; what was copied is kept, run the same command again") from None
    if damaged:
        raise IncompleteError(left_out(damaged))
    return len(runs)


def _read_source(source: Path, output: Path, damaged: dict[str, str]) -> tuple[Tables, Path | None]:
    """Return the tables of the source and, for a results folder, where its files are; `damaged` gets runs left out."""
    folder, only = source, None
    if is_there(RunFiles(source).suite, Path.is_file):
        folder, only = source.resolve().parents[1], source.resolve().name
    if not is_there(folder / STORE_NAME, Path.is_file):
        return read_export(source)[0], None
    if folder.resolve() == output.resolve():
        raise UsageError(f"{source}: is part of the store to import into, {output}")
    store = Store.open_existing(folder)
    if store is None:
        raise UsageError(f"{source}: the result store in {folder} is empty")
    with store:
        if only is not None:
            return collect_runs(store, [only]), folder
        return collect_runs(store, store.run_ids(), damaged), folder


def _place(source: Path, files_root: Path | None, table: str) -> str:
    """Where a table of the source is, for messages."""
    return table_file(source, table) if files_root is None else f"{files_root / STORE_NAME}: table {table}"


def _only(tables: Tables, run_id: str) -> Tables:
    return {name: [row for row in rows if row["run_id"] == run_id] for name, rows in tables.items()}


def _import_run(store: Store, run: Tables, source: Path, files_root: Path | None) -> ImportedRun:
    merge = plan_merge(store, run)
    files = RunFiles(store.output / "runs" / merge.run_id)
    _write_run_files(files, run)
    copied = _copy_images(store, files, run, merge, files_root)
    if files_root is not None:
        _copy_features(store, run, files_root)
    if merge.n_rows:
        directory = files.directory.relative_to(store.output).as_posix()
        apply_merge(
            store, merge, directory=directory, source=str(source.resolve()), created=now(), files=copied
        )
    images = [row for row in run["images"] if row["status"] == "ok"]
    present = sum(_target(files, run, row).is_file() for row in images)
    return ImportedRun(merge.run_id, merge.n_rows, copied, len(images) - present)


def _write_run_files(files: RunFiles, run: Tables) -> None:
    """Write what the report needs beside the store, unless it is there."""
    described = run["runs"][0]["suite_resolved"]
    atomic.remove_leftovers(files.directory)
    for benchmark in described["benchmarks"]:
        rows = [row for row in run["prompts"] if row["benchmark"] == benchmark["name"]]
        if not files.has_prompts(benchmark["name"]):
            prompts = [Prompt(row["prompt_id"], row["text"], row["tag"], row["metadata"]) for row in rows]
            files.write_prompts(benchmark["name"], prompts)
    for variant in run["variants"]:
        for name, texts in (variant["prompt_rewrites"] or {}).items():
            files.write_rewrites(variant["variant"], name, texts)
    document: dict[str, Any] = next((row["document"] for row in run["provenance"]), {})
    if document and not files.provenance.is_file():
        atomic.write_text(files.provenance, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    # Last: a directory counts as a run once it has this file.
    if not files.suite.is_file():
        atomic.write_text(files.suite, yaml.safe_dump(described, sort_keys=False, allow_unicode=True))


def _target(files: RunFiles, run: Tables, row: dict[str, Any]) -> Path:
    variant = next(variant for variant in run["variants"] if variant["variant"] == row["variant"])
    return image_target(files.directory, variant, row)


def _copy_images(store: Store, files: RunFiles, run: Tables, merge: RunMerge, files_root: Path | None) -> int:
    """Bring in the intact image files of the source, and set or clear the path of each new row."""
    new = {(row["image_key"], row["prompt_id"], row["sample_index"]): row for row in merge.images}
    copied = 0
    for row in run["images"]:
        key = (row["image_key"], row["prompt_id"], row["sample_index"])
        target = _target(files, run, row)
        there = row["status"] == "ok" and _is_intact(target, row)
        if row["status"] == "ok" and not there and files_root is not None:
            there = _copy_image(_candidates(files_root, run, row), target, row)
            copied += there
        path = target.relative_to(store.output).as_posix() if there else None
        if key in new:
            new[key].update(path=path, run_id=merge.run_id)
        elif path is not None and store.images(row["image_key"])[key[1:]].path is None:
            merge.paths.append({**row, "path": path})
    return copied


def _candidates(files_root: Path, run: Tables, row: dict[str, Any]) -> list[Path]:
    own = RunFiles(files_root / "runs" / run["runs"][0]["run_id"])
    found = [_target(own, run, row)]
    if row["path"] is not None and not os.path.isabs(row["path"]) and ".." not in Path(row["path"]).parts:
        found.append(files_root / row["path"])
    return found


def _copy_image(candidates: list[Path], target: Path, row: dict[str, Any]) -> bool:
    for candidate in candidates:
        try:
            content = read_bytes(candidate)
        except OSError:  # not there, not a file, or not to be read: the image counts as absent
            continue
        if sha256_bytes(content) == row["sha256"]:
            atomic.write_bytes(target, content)
            return True
    return False


def _copy_features(store: Store, run: Tables, files_root: Path) -> None:
    """Bring in intact chunks of feature vectors, so that nothing has to be computed again to compare sets."""
    images = {row["sha256"] for row in run["images"] if row["status"] == "ok"}
    source = Store.open_existing(files_root)
    if source is None:
        return
    with source:
        chunks = source.chunks_of(images)
    for chunk in chunks:
        parts = Path(chunk.path).parts
        if len(parts) < 3 or parts[0] != "runs" or not all(map(_SAFE_NAME.fullmatch, parts)):
            continue  # not a place that a run writes features to
        known = store.chunk_sha256(chunk.path)
        if known is not None and known != chunk.sha256:
            continue  # the same vectors from other batches; those that are here stay
        target = store.output / chunk.path
        if not (target.is_file() and sha256_bytes(read_bytes(target)) == chunk.sha256):
            file = files_root / chunk.path
            content = read_bytes(file) if file.is_file() else b""
            if sha256_bytes(content) != chunk.sha256:
                continue
            atomic.write_bytes(target, content)
        add_features(store, chunk)


def _is_intact(path: Path, row: dict[str, Any]) -> bool:
    return path.is_file() and sha256_bytes(read_bytes(path)) == row["sha256"]
