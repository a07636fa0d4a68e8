"""What can be read of a damaged store: a copy without its damaged blocks, and the rows in it.

SQLite's own `.recover` is no part of Python's module; tables are read from their beginning and from their end instead, up to the
first page that is broken.
"""

import json
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sana_bench.core.atomic import STORE_NAME
from sana_bench.results.migrations import migrate, tables_of_version
from sana_bench.results.schema import SCHEMA_VERSION
from sana_bench.results.seal import BLOCK
from sana_models.files import read_bytes

__all__ = ["Rows", "readable_copy", "salvaged"]

#: Rows by table.
Rows = dict[str, list[dict[str, Any]]]
# Columns that hold JSON, whatever their table.
_JSON = ("provenance", "identity", "details", "search")
# Bytes of the file's own header on the first page, and where it says how many pages there are and which are free.
_HEADER, _PAGES = 100, slice(28, 40)


def readable_copy(output: Path, folder: Path, changed: Sequence[int]) -> Path:
    """A copy of a store and its log in `folder`, in which blocks that were changed are empty and so no rows at all.

    Of blocks that say where tables are, those of a new store stand in, if the others are as in one.
    """
    content = bytearray(read_bytes(output / STORE_NAME))
    new = _new_store(folder) if changed else b""
    listing = _listing(new) if changed else []
    others = [number for number in listing if number not in changed]
    is_alike = bool(others) and all(_block(content, number) == _block(new, number) for number in others)
    for number in (number for number in changed if number * BLOCK < len(content)):
        place = slice(number * BLOCK, min((number + 1) * BLOCK, len(content)))
        whole = is_alike and number in listing and place.stop - place.start == BLOCK
        content[place] = new[place] if whole else bytes(place.stop - place.start)
    if is_alike and 0 in changed and len(content) >= BLOCK:
        content[_PAGES] = struct.pack(">III", len(content) // BLOCK, 0, 0)
    copy = folder / STORE_NAME
    copy.write_bytes(content)
    log = output / f"{STORE_NAME}-wal"
    if log.is_file():
        copy.with_name(log.name).write_bytes(read_bytes(log))
    return copy


def _new_store(folder: Path) -> bytes:
    path = folder / "new.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        migrate(connection)
    return read_bytes(path)


def _listing(store: bytes) -> list[int]:
    """The blocks of an intact store that hold the list of its tables: the first page, and those below it."""
    first = store[_HEADER:BLOCK]
    if first[0] != 5:  # no page of pointers: all of the list is here
        return [0]
    count, (last,) = struct.unpack(">H", first[3:5])[0], struct.unpack(">I", first[8:12])
    cells = struct.unpack(f">{count}H", first[12 : 12 + 2 * count])
    return [0, *(struct.unpack(">I", store[cell : cell + 4])[0] - 1 for cell in cells), last - 1]


def _block(content: bytes | bytearray, number: int) -> bytes:
    """A block without the header of the file, which counts pages."""
    return bytes(content[number * BLOCK + (_HEADER if number == 0 else 0) : (number + 1) * BLOCK])


def salvaged(copy: Path) -> tuple[Rows, bool]:
    """All rows that can be read, by table, and whether these are all."""
    found: Rows = {}
    whole = True
    tables: dict[str, list[str]] = {}
    for table, column in sorted(tables_of_version(SCHEMA_VERSION)):
        tables.setdefault(table, []).append(column)
    with closing(sqlite3.connect(copy)) as connection:
        for table, columns in tables.items():
            try:
                there = [row[1:6:4] for row in connection.execute(f"PRAGMA table_info({table})")]
            except sqlite3.Error:
                there = []
            names = [name for name, _ in there if name in columns]
            key = [name for name, place in sorted(there, key=lambda column: column[1]) if place]
            rows, read = _rows(connection, table, names, key) if names else ([], False)
            found[table] = [row for row in rows if _is_json(row)]
            whole = whole and read and len(found[table]) == len(rows)
    return found, whole


def _rows(
    connection: sqlite3.Connection, table: str, names: list[str], key: list[str]
) -> tuple[list[dict[str, Any]], bool]:
    """The rows from the beginning up to a broken page, and those from the end up to one; and whether there was none."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    place = len(key) or 1
    for order in ("", " DESC"):
        by = ", ".join(f"{name}{order}" for name in key or ["rowid"])
        identity = ", ".join(key or ["rowid"])
        try:
            for row in connection.execute(
                f"SELECT {identity}, {', '.join(names)} FROM {table} ORDER BY {by}"
            ):
                found.setdefault(row[:place], dict(zip(names, row[place:], strict=True)))
            return list(found.values()), not order
        except sqlite3.Error:
            continue
    return list(found.values()), False


def _is_json(row: Mapping[str, Any]) -> bool:
    try:
        for name in _JSON:
            if row.get(name) is not None:
                json.loads(row[name])
    except (TypeError, ValueError, RecursionError):
        return False
    return True
