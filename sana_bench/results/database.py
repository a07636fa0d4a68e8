"""The file behind a result store: who may write, opening, transactions and what SQLite's errors mean."""

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from sana_bench.core.atomic import LOCK_NAME, STORE_NAME, check_own, in_the_way, open_own
from sana_bench.core.errors import BenchError, IncompleteError, UsageError
from sana_bench.core.storage import GO_ON, explained, why_not_writable
from sana_bench.results.migrations import columns_of, migrate, schema_version, tables_of_version
from sana_bench.results.schema import SCHEMA_VERSION
from sana_bench.results.seal import BLOCK, SEAL_NAME, SealError, changed_blocks, take_away, write_seal
from sana_models.files import open_plain

__all__ = ["STORE_NAME", "Database", "check_files", "check_sums", "disk_errors", "writer_lock"]

_MAX_VARIABLES = 500
# Bytes of the log from which on it is brought into the file before the end.
_LARGEST_LOG = 64 << 20
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

    def __init__(
        self, connection: sqlite3.Connection, output: Path, written: BufferedReader | None = None
    ) -> None:
        """`written` is the file, where the connection may write to it."""
        self._connection = connection
        self._written = written
        self.output = output

    @classmethod
    def open(cls, output: Path) -> Self:
        """Open for writing, creating or migrating the file when needed; the caller holds `writer_lock(output)`.

        Raises `UsageError` for a file that is no store, is damaged or of a newer version, and `BenchError` when the
        disk is full; the file is then as it was.
        """
        path = output / STORE_NAME
        check_files(output)
        if path.exists():
            _check(output)
        # SQLite would make a file that a group cannot write, whatever the umask.
        os.close(open_own(path, os.O_RDWR))
        connection = _connect(path, str(path))
        try:
            if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                take_away(output)  # a file system without logs: every transaction changes the file
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            # The file changes where its sums do, and nowhere else.
            connection.execute("PRAGMA wal_autocheckpoint=0")
            migrate(connection)
        except sqlite3.DatabaseError as error:
            _close_leaving_the_log(connection, path)
            raise _unusable(path, error) from None
        except BaseException:
            _close_leaving_the_log(connection, path)
            raise
        return cls(connection, output, open_plain(path))

    @classmethod
    def open_existing(cls, output: Path) -> Self | None:
        """Open for reading without creating anything; None when there is no store yet.

        A store of an older version is read as a migrated copy in memory, and stays as it is on disk. Raises
        `UsageError` for a file that is no store, is damaged or of a newer version.
        """
        path = output / STORE_NAME
        if not os.path.lexists(path):
            return None
        if not path.is_file():
            raise in_the_way(path, path.lstat().st_mode)
        version = _check(output)
        if version == 0:
            return None
        connection = _connect(path, _to_read(path), uri=True)
        try:
            return cls(connection if version == SCHEMA_VERSION else _migrated_copy(connection), output)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise _unusable(path, error) from None

    def close(self) -> None:
        """Close the connection; safe to call twice. What was written is brought into the file, and its sums beside it.

        Raises `UsageError` where the file was changed meanwhile by anything else: then what was written stays in the log.
        """
        written, self._written = self._written, None
        if written is None:
            self._connection.close()
            return
        try:
            self._fold_log_in(written)
        except BaseException:
            _close_leaving_the_log(self._connection, self.output / STORE_NAME)
            raise
        finally:
            self._connection.close()
            written.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # On a full disk even this cannot be written; the error in flight is the one to tell.
        with suppress(sqlite3.Error, OSError, BenchError) if error is not None else nullcontext():
            self.close()
        if isinstance(error, sqlite3.Error) and _is_of_the_file(error):
            raise _unusable(self.output / STORE_NAME, error) from error

    def _log_size(self) -> int:
        log = self.output / f"{STORE_NAME}-wal"
        return log.stat().st_size if log.exists() else 0

    def _fold_log_in(self, written: BufferedReader) -> None:
        if self._log_size():
            check_sums(self.output, written)
            take_away(self.output)
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:
                raise _unusable(self.output / STORE_NAME, error) from error
        elif (self.output / SEAL_NAME).exists():
            return
        with suppress(OSError):  # without sums, a store is as good as one of before there were any
            write_seal(self.output, written)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All writes inside become durable together, or none does."""
        # A Ctrl-C can strike between any two instructions, so also between BEGIN and the block that would undo it.
        self._roll_back()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
            if self._written is not None and self._log_size() > _LARGEST_LOG:
                self._fold_log_in(self._written)
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


def check_sums(output: Path, file: BufferedReader | None = None) -> None:
    """Raise `UsageError` unless the store, which `file` has open, is as it was written, so far as it has sums."""
    path = output / STORE_NAME
    try:
        changed = changed_blocks(output, file)
    except SealError as error:
        raise _damaged(path, str(error)) from None
    if changed:
        raise _damaged(
            path,
            f"{len(changed)} blocks of {BLOCK} bytes are not as sana-bench wrote them: damaged, or changed by another program",
        )


def _damaged(path: Path, reason: str) -> UsageError:
    return UsageError(f"{path}: {reason}; `sana-bench store check -o {path.parent}` says what can be read")


def _to_read(path: Path) -> str:
    """The address of a store for reading. Without a log there is no writer, and `immutable` keeps a reader from creating one."""
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    return f"file:{quote(str(path.resolve()))}?{mode}"


def _close_leaving_the_log(connection: sqlite3.Connection, path: Path) -> None:
    """Close a connection that may write, and keep SQLite from bringing the log into the file, whose sums would not fit then."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(_to_read(path), uri=True)) as reader:
        # While this one reads, the other is not the last. The version stands before the tables, which may be damaged.
        reader.execute("BEGIN")
        reader.execute("PRAGMA user_version").fetchone()
        connection.close()
    connection.close()


def _connect(path: Path, target: str, *, uri: bool = False) -> sqlite3.Connection:
    try:
        return sqlite3.connect(target, uri=uri, isolation_level=None, timeout=30)
    except sqlite3.Error as error:
        raise _unusable(path, error) from None


def _check(output: Path) -> int:
    """Return the version of a store; raises `UsageError` for a file that is none, of a newer version, or damaged."""
    path = output / STORE_NAME
    try:
        with closing(_connect(path, _to_read(path), uri=True)) as connection:
            version = schema_version(connection)
            if version > SCHEMA_VERSION:
                raise UsageError(
                    f"{path}: store version {version} is newer than this sana-bench, which reads up to "
                    f"{SCHEMA_VERSION}: update it or choose another --output"
                )
            found = columns_of(connection)
            if not tables_of_version(version) <= found or (version == 0 and found):
                raise UsageError(f"{path}: not a sana-bench result store; choose another --output")
    except sqlite3.DatabaseError as error:
        raise _unusable(path, error) from None
    # With no connection open: closing a file takes away all locks that this process has on it.
    check_sums(output)
    return version


def _is_of_the_file(error: sqlite3.Error) -> bool:
    """Whether an error is about the file and not about a statement of ours."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError
    )


def _unusable(path: Path, error: sqlite3.Error) -> BenchError:
    """The error to raise for one of SQLite's: what the disk says, if it is the disk, or how to have the store checked."""
    # Errors of the module itself, in contrast to those of SQLite, carry no code; the low byte is the kind.
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_READONLY and not os.access(path, os.W_OK):
        return explained(PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)))
    if code in _OF_THE_DISK and (reason := why_not_writable(path.parent)) is not None:
        reason.filename = str(path)
        for note in getattr(error, "__notes__", ()):
            reason.add_note(note)
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
    return _damaged(path, f"cannot be used as the result store: {error}")
