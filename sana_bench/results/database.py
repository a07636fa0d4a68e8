"""The file behind a result store: who may write, opening, transactions and what SQLite's errors mean."""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from sana_bench.core.atomic import LOCK_NAME, STORE_NAME, check_own, in_the_way, open_own
from sana_bench.core.errors import BenchError, IncompleteError, UsageError
from sana_bench.core.storage import GO_ON, explained, why_not_writable
from sana_bench.results.migrations import columns_of, migrate, schema_version, tables_of_version
from sana_bench.results.schema import SCHEMA_VERSION

__all__ = ["STORE_NAME", "Database", "check_files", "disk_errors", "writer_lock"]

_MAX_VARIABLES = 500
# Files that SQLite keeps beside a store.
_BESIDE = ("-wal", "-shm", "-journal")
# Errors behind which the disk may be: full, read-only, without permission.
_OF_THE_DISK = (
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
)  # fmt: skip
# Bytes of a path that SQLite takes on Unix, with room for the names of the files beside.
_LONGEST_PATH = 500


@contextmanager
def writer_lock(output: Path) -> Iterator[None]:
    """Hold the single-writer lock of an output folder; the kernel releases it when the process dies.

    Raises `UsageError` when another process holds it, when the file system has no locks, and for anything but a plain file in
    its place.
    """
    descriptor = open_own(output / LOCK_NAME, os.O_RDWR)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise UsageError(
                f"{output}: another sana-bench (process {owner}) is writing here; "
                "wait for it or choose another --output"
            ) from None
        except OSError as error:
            raise UsageError(
                f"{output}: its file system gives no locks ({error.strerror}), without which two commands could write at once; "
                "choose an --output on another disk"
            ) from None
        with suppress(OSError):  # the number helps people alone; a full disk refuses it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def check_files(output: Path) -> None:
    """Raise `UsageError` where anything but a plain file, such as a link, stands for the store, its log or the lock."""
    for end in ("", *_BESIDE):
        check_own(output / f"{STORE_NAME}{end}")
    check_own(output / LOCK_NAME)


@contextmanager
def disk_errors(output: Path) -> Iterator[None]:
    """Turn a full disk, or one that fails, into one line that says how to go on."""
    try:
        yield
    except OSError as error:
        raise explained(error, output, GO_ON) from error
    except sqlite3.Error as error:
        if not _is_of_the_file(error):
            raise
        raise _unusable(output / STORE_NAME, error) from error


class Database:
    """The SQLite file of one output folder."""

    def __init__(self, connection: sqlite3.Connection, output: Path) -> None:
        self._connection = connection
        self.output = output

    @classmethod
    def open(cls, output: Path) -> Self:
        """Open for writing, creating or migrating the file when needed; the caller holds `writer_lock(output)`.

        Raises `UsageError` for a file that is no store or one of a newer version, and `BenchError` when the
        disk is full; the file is then as it was.
        """
        path = output / STORE_NAME
        check_files(output)
        connection = _connect(path, str(path))
        try:
            _check_usable(connection, path)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            migrate(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise _unusable(path, error) from None
        except BaseException:
            connection.close()
            raise
        return cls(connection, output)

    @classmethod
    def open_existing(cls, output: Path) -> Self | None:
        """Open for reading without creating anything; None when there is no store yet.

        A store of an older version is read as a migrated copy in memory, and stays as it is on disk. Raises
        `UsageError` for a file that is no store or one of a newer version.
        """
        path = output / STORE_NAME
        if not os.path.lexists(path):
            return None
        if not path.is_file():
            raise in_the_way(path, path.lstat().st_mode)
        # Without a write-ahead log there is no writer, and `immutable` keeps the reader from creating one.
        log = path.with_name(f"{path.name}-wal")
        mode = "mode=ro" if log.exists() else "immutable=1"
        connection = _connect(path, f"file:{quote(str(path.resolve()))}?{mode}", uri=True)
        try:
            _check_usable(connection, path)
            version = schema_version(connection)
            if version == 0:
                connection.close()
                return None
            if version < SCHEMA_VERSION:
                connection = _migrated_copy(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise _unusable(path, error) from None
        except BaseException:
            connection.close()
            raise
        return cls(connection, output)

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if isinstance(error, sqlite3.Error) and _is_of_the_file(error):
            raise _unusable(self.output / STORE_NAME, error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All writes inside become durable together, or none does."""
        # A Ctrl-C can strike between any two instructions, so also between BEGIN and the block that would undo it.
        self._roll_back()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        """Return the rows of a reading query by column name."""
        cursor = self._connection.execute(query, parameters)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every read inside see the store at one moment, whatever a writer does meanwhile."""
        self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._roll_back()

    def select_in(self, query: str, key: str, values: Iterable[str]) -> Iterator[Any]:
        """Yield the rows of `query`, which ends in IN, for `key` and any number of values."""
        distinct = sorted(set(values))
        for start in range(0, len(distinct), _MAX_VARIABLES):
            part = distinct[start : start + _MAX_VARIABLES]
            yield from self._connection.execute(f"{query} ({', '.join('?' * len(part))})", (key, *part))


def _migrated_copy(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Return a copy in memory with the tables of this version, and close the original."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    with closing(connection):
        connection.backup(copy)
    migrate(copy)
    return copy


def _connect(path: Path, target: str, *, uri: bool = False) -> sqlite3.Connection:
    try:
        return sqlite3.connect(target, uri=uri, isolation_level=None, timeout=30)
    except sqlite3.Error as error:
        raise _unusable(path, error) from None


def _check_usable(connection: sqlite3.Connection, path: Path) -> None:
    version = schema_version(connection)
    if version > SCHEMA_VERSION:
        raise UsageError(
            f"{path}: store version {version} is newer than this sana-bench, which reads up to "
            f"{SCHEMA_VERSION}: update it or choose another --output"
        )
    found = columns_of(connection)
    if not tables_of_version(version) <= found or (version == 0 and found):
        raise UsageError(f"{path}: not a sana-bench result store; choose another --output")


def _is_of_the_file(error: sqlite3.Error) -> bool:
    """Whether an error is about the file and not about a statement of ours."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError
    )


def _unusable(path: Path, error: sqlite3.Error) -> BenchError:
    """The error to raise for one of SQLite's: what the disk says, if it is the disk, or how to have the store checked."""
    # Errors of the module itself, in contrast to those of SQLite, carry no code; the low byte is the kind.
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in _OF_THE_DISK and (reason := why_not_writable(path.parent)) is not None:
        reason.filename = str(path)
        return explained(reason, kept=GO_ON)
    if code == sqlite3.SQLITE_FULL:
        return IncompleteError(f"{path}: {error}; {GO_ON}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS):
        return UsageError(
            f"{path}: {error}: another program holds it, or its file system gives no locks; "
            "wait, or choose an --output on another disk"
        )
    if code == sqlite3.SQLITE_CANTOPEN and len(os.fsencode(path.absolute())) > _LONGEST_PATH:
        return UsageError(
            f"{path}: the path is longer than the {_LONGEST_PATH} bytes that SQLite takes; choose a shorter --output"
        )
    return UsageError(
        f"{path}: cannot be used as the result store: {error}; "
        f"`sana-bench store check -o {path.parent}` says what can be read"
    )
