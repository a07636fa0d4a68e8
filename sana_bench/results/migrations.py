"""The tables of the result store, as the steps that lead to them.

A new store takes the same steps as an old one, so both end with the same tables. Each step is one transaction
that also raises `user_version`: a step that is cut short, by a kill or a full disk, leaves the version before it.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache

from sana_bench.results.schema import SCHEMA_VERSION

__all__ = ["MIGRATIONS", "columns_of", "migrate", "schema_version", "tables_of_version"]

_TABLES = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, suite TEXT NOT NULL, tier TEXT NOT NULL, fingerprint TEXT NOT NULL,
    directory TEXT NOT NULL, created TEXT NOT NULL, provenance TEXT NOT NULL
) STRICT;
CREATE TABLE images (
    image_key TEXT NOT NULL, prompt_id TEXT NOT NULL, sample_index INTEGER NOT NULL,
    prompt_sha256 TEXT NOT NULL, status TEXT NOT NULL CHECK (status IN ('ok', 'failed')),
    path TEXT, sha256 TEXT, length INTEGER, seconds REAL, batch_size INTEGER, device TEXT,
    error TEXT, run_id TEXT NOT NULL REFERENCES runs(run_id), created TEXT NOT NULL,
    PRIMARY KEY (image_key, prompt_id, sample_index)
) STRICT, WITHOUT ROWID;
CREATE TABLE metrics (
    metric_key TEXT PRIMARY KEY, name TEXT NOT NULL, protocol TEXT NOT NULL, identity TEXT NOT NULL
) STRICT;
CREATE TABLE scores (
    metric_key TEXT NOT NULL REFERENCES metrics(metric_key), image_sha256 TEXT NOT NULL, prompt_sha256 TEXT
    NOT NULL, value REAL NOT NULL, details TEXT NOT NULL, PRIMARY KEY (metric_key, image_sha256,
    prompt_sha256)
) STRICT, WITHOUT ROWID;
CREATE TABLE features (
    feature_key TEXT NOT NULL, image_sha256 TEXT NOT NULL, path TEXT NOT NULL, row INTEGER NOT NULL,
    PRIMARY KEY (feature_key, image_sha256)
) STRICT, WITHOUT ROWID;
CREATE TABLE chunks (path TEXT PRIMARY KEY, sha256 TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE summaries (
    run_id TEXT NOT NULL REFERENCES runs(run_id), position INTEGER NOT NULL, variant TEXT NOT NULL,
    benchmark TEXT NOT NULL, metric TEXT NOT NULL, key TEXT NOT NULL, metric_key TEXT NOT NULL,
    image_key TEXT NOT NULL, protocol TEXT NOT NULL, value REAL NOT NULL, low REAL, high REAL,
    n_samples INTEGER NOT NULL, n_expected INTEGER NOT NULL, n_prompts INTEGER NOT NULL,
    unit TEXT NOT NULL, higher_is_better INTEGER NOT NULL, note TEXT NOT NULL, complete INTEGER NOT NULL,
    PRIMARY KEY (run_id, variant, benchmark, metric, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (
    session_id INTEGER PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs(run_id), started TEXT NOT NULL,
    command TEXT NOT NULL, state TEXT NOT NULL, finished TEXT,
    images_generated INTEGER NOT NULL DEFAULT 0, images_reused INTEGER NOT NULL DEFAULT 0,
    images_failed INTEGER NOT NULL DEFAULT 0, scores_computed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE events (
    session_id INTEGER NOT NULL REFERENCES sessions(session_id), created TEXT NOT NULL, kind TEXT NOT NULL,
    details TEXT NOT NULL
) STRICT;
CREATE TABLE file_hashes (
    path TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (path, size, mtime_ns)
) STRICT, WITHOUT ROWID;
"""


def _create_tables(connection: sqlite3.Connection) -> None:
    _execute_all(connection, _TABLES)


def _add_origin(connection: sqlite3.Connection) -> None:
    """Mark runs that came from another store, and find images and scores without reading whole tables."""
    _execute_all(
        connection,
        """
        ALTER TABLE runs ADD COLUMN origin TEXT;
        CREATE TABLE imports (
            import_id INTEGER PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs(run_id),
            source TEXT NOT NULL, created TEXT NOT NULL, rows_added INTEGER NOT NULL,
            files_copied INTEGER NOT NULL
        ) STRICT;
        CREATE INDEX images_of_run ON images (run_id);
        CREATE INDEX scores_of_image ON scores (image_sha256);
        CREATE INDEX sessions_of_run ON sessions (run_id);
        CREATE INDEX summaries_of_metric ON summaries (metric, protocol, key);
        """,
    )


def _add_search(connection: sqlite3.Connection) -> None:
    """Keep what the search behind an image cost, as JSON."""
    _execute_all(connection, "ALTER TABLE images ADD COLUMN search TEXT")


def _distrust_file_hashes(connection: sqlite3.Connection) -> None:
    """Forget hashes that were kept by size and modification time alone, and keep one a path, by inode and change time too."""
    _execute_all(
        connection,
        """
        DROP TABLE file_hashes;
        CREATE TABLE file_hashes (
            path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
            inode INTEGER NOT NULL, sha256 TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
        """,
    )


def _add_sequences(connection: sqlite3.Connection) -> None:
    """Keep every look of the sequences that runs stopped by; images and summaries say nothing of them."""
    _execute_all(
        connection,
        """
        CREATE TABLE sequences (
            run_id TEXT NOT NULL REFERENCES runs(run_id), sequence_key TEXT NOT NULL, look INTEGER NOT NULL,
            benchmark TEXT NOT NULL, metric TEXT NOT NULL, metric_key TEXT NOT NULL, variant TEXT NOT NULL,
            against TEXT, effect REAL, width REAL, error REAL NOT NULL, n_prompts INTEGER NOT NULL,
            n_images INTEGER NOT NULL, n_expected INTEGER NOT NULL, value REAL NOT NULL, low REAL NOT NULL,
            high REAL NOT NULL, verdict TEXT NOT NULL, tasks TEXT NOT NULL,
            PRIMARY KEY (run_id, sequence_key, look)
        ) STRICT, WITHOUT ROWID;
        """,
    )


def _add_workers(connection: sqlite3.Connection) -> None:
    """Keep with images and scores who made them: a key of the new table, whose descriptions are JSON."""
    _execute_all(
        connection,
        """
        CREATE TABLE workers (worker TEXT PRIMARY KEY, description TEXT NOT NULL) STRICT, WITHOUT ROWID;
        ALTER TABLE images ADD COLUMN worker TEXT;
        ALTER TABLE scores ADD COLUMN worker TEXT;
        """,
    )


# Entry i leads from version i to version i + 1. Entries are never changed, only added.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _create_tables,
    _add_origin,
    _add_search,
    _distrust_file_hashes,
    _add_sequences,
    _add_workers,
)

if len(MIGRATIONS) != SCHEMA_VERSION:
    raise AssertionError("every schema version needs the step that leads to it")


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the version of the store behind a connection; 0 before the first step."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def columns_of(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    """Return table and column of everything that a store holds."""
    found = connection.execute(
        "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'"
    )
    return {(str(table), str(column)) for table, column in found}


@cache
def tables_of_version(version: int) -> frozenset[tuple[str, str]]:
    """Return table and column of everything that a store of a version holds at least."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for step in MIGRATIONS[:version]:
            step(connection)
        return frozenset(columns_of(connection))


def migrate(connection: sqlite3.Connection) -> None:
    """Take the steps that a store lacks, each in a transaction of its own; the caller is the only writer."""
    for version in range(schema_version(connection), SCHEMA_VERSION):
        try:
            connection.execute("BEGIN IMMEDIATE")
            MIGRATIONS[version](connection)
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _execute_all(connection: sqlite3.Connection, script: str) -> None:
    # `executescript` would commit the transaction that the steps run in.
    for statement in script.split(";"):
        if statement.strip():
            connection.execute(statement)
