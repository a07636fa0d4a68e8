"""Stores of earlier versions: read as they are, migrated whole, and left alone when a step is cut short."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from sana_bench.core.errors import BenchError, UsageError
from sana_bench.results import migrations
from sana_bench.results.database import STORE_NAME
from sana_bench.results.schema import SCHEMA_VERSION
from sana_bench.results.store import Store

SCHEMAS = Path(__file__).parent / "schemas"
OLD_VERSIONS = range(1, SCHEMA_VERSION)
ROWS = {
    "runs": [("r1", "suite", "micro", "f" * 64, "runs/r1", "2026-01-01T00:00:00+00:00", '{"seed": 0}')],
    "images": [
        ("k", "00000", 0, "p", "ok", "runs/r1/a.png", "s", 9, 0.1 + 0.2, 4, "cpu", None, "r1", "now"),
        ("k", "00001", 0, "p", "failed", None, None, None, None, None, None, "not finite", "r1", "now"),
    ],
    "metrics": [("m", "clip", "clip@1", "{}")],
    "scores": [("m", "s", "p", 1 / 3, '{"correct":true}')],
    "features": [("fk", "s", "runs/r1/f.npz", 0)],
    "chunks": [("runs/r1/f.npz", "c")],
    "summaries": [
        ("r1", 0, "v", "b", "clip", "overall", "m", "k", "clip@1", 1 / 3, None, 0.5, 1, 2, 1, "", 1, "", 0)
    ],
    "sessions": [(1, "r1", "then", "sana-bench run", "done", None, 1, 0, 1, 1)],
    "events": [(1, "then", "batch_halved", '{"batch_size":2}')],
    "file_hashes": [("/w", 1, 2, "h")],
}
# The first version that keeps hashes by inode and time of change too; those of others are not trusted.
TRUSTED_FROM = 4


def rows_of(version: int) -> dict[str, list[tuple[object, ...]]]:
    """What a store of an earlier version is filled with."""
    return {**ROWS, "file_hashes": [("/w", 1, 2, 3, 4, "h")]} if version >= TRUSTED_FROM else ROWS


def old_store(folder: Path, version: int) -> Path:
    """Write a store of an earlier version with a row in every table."""
    path = folder / STORE_NAME
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript((SCHEMAS / f"v{version}.sql").read_text())
    for table, rows in rows_of(version).items():
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")][: len(rows[0])]
        values = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})", rows)
    connection.close()
    return path


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(path)
    found = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in ROWS}
    connection.close()
    return found


def version_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    connection.close()
    return version


def tables_of(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    ).fetchall()
    connection.close()
    return rows


def test_every_earlier_version_has_its_schema_on_file() -> None:
    assert {path.name for path in SCHEMAS.glob("v*.sql")} == {f"v{version}.sql" for version in OLD_VERSIONS}


@pytest.mark.parametrize("version", OLD_VERSIONS)
def test_opening_for_writing_migrates_and_loses_nothing(tmp_path: Path, version: int) -> None:
    path = old_store(tmp_path, version)
    Store.open(tmp_path).close()
    assert version_of(path) == SCHEMA_VERSION
    found, given = contents(path), rows_of(version)
    if version < TRUSTED_FROM:
        # Hashes of files are only remembered: those kept by size and modification time alone are not trusted.
        assert found.pop("file_hashes") == []
    for table, rows in found.items():
        assert [row[: len(given[table][0])] for row in rows] == given[table], table
    with Store.open(tmp_path) as store:
        run = store.run("r1")
        assert run is not None
        assert run["origin"] is None
        assert store.rows("PRAGMA foreign_key_check") == []
        assert store.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


@pytest.mark.parametrize("version", OLD_VERSIONS)
def test_a_migrated_store_has_the_tables_of_a_new_one(tmp_path: Path, version: int) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    path = old_store(tmp_path / "old", version)
    for name in ("old", "new"):
        Store.open(tmp_path / name).close()
    assert tables_of(path) == tables_of(tmp_path / "new" / STORE_NAME)


@pytest.mark.parametrize("version", OLD_VERSIONS)
def test_reading_an_earlier_version_changes_nothing_on_disk(tmp_path: Path, version: int) -> None:
    path = old_store(tmp_path, version)
    before = path.read_bytes()
    store = Store.open_existing(tmp_path)
    assert store is not None
    with store:
        run = store.run("r1")
        assert run is not None
        assert (run["provenance"], run["origin"]) == ({"seed": 0}, None)
        assert store.summaries("r1")[0].value == 1 / 3
        assert store.images("k")["00000", 0].seconds == 0.1 + 0.2
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [STORE_NAME]


def test_a_newer_version_is_refused_in_one_line_and_left_alone(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    path = tmp_path / STORE_NAME
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    for opening in (Store.open, Store.open_existing):
        with pytest.raises(UsageError, match=f"store version {SCHEMA_VERSION + 1} is newer") as caught:
            opening(tmp_path)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_another_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / STORE_NAME
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (a)")
    connection.close()
    before = path.read_bytes()
    for opening in (Store.open, Store.open_existing):
        with pytest.raises(UsageError, match="not a sana-bench result store"):
            opening(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("failure", [sqlite3.OperationalError("disk I/O error"), KeyboardInterrupt()])
def test_a_step_that_fails_leaves_the_version_before(tmp_path: Path, monkeypatch, failure) -> None:
    path = old_store(tmp_path, 1)
    before, tables = contents(path), tables_of(path)

    def fail_late(connection: sqlite3.Connection) -> None:
        migrations._add_origin(connection)
        raise failure

    steps = (*migrations.MIGRATIONS[:1], fail_late, *migrations.MIGRATIONS[2:])
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)
    with pytest.raises((BenchError, KeyboardInterrupt)):
        Store.open(tmp_path)
    assert (version_of(path), contents(path), tables_of(path)) == (1, before, tables)
    monkeypatch.undo()
    Store.open(tmp_path).close()
    assert version_of(path) == SCHEMA_VERSION


KILLED = """
import os, signal, sys
from pathlib import Path
from sana_bench.results import migrations
from sana_bench.results.store import Store

def die(connection):
    migrations._add_origin(connection)
    connection.execute("PRAGMA user_version = 2")
    os.kill(os.getpid(), signal.SIGKILL)

migrations.MIGRATIONS = (migrations.MIGRATIONS[0], die)
Store.open(Path(sys.argv[1]))
"""


def test_a_killed_migration_leaves_the_version_before(tmp_path: Path) -> None:
    path = old_store(tmp_path, 1)
    before, tables = contents(path), tables_of(path)
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env={**os.environ}, timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert (version_of(path), contents(path), tables_of(path)) == (1, before, tables)
    Store.open(tmp_path).close()
    assert version_of(path) == SCHEMA_VERSION


def test_the_queries_of_a_leaderboard_read_no_whole_table(tmp_path: Path) -> None:
    queries = {
        "SELECT * FROM images WHERE run_id = 'r'": "images",
        "SELECT * FROM sessions WHERE run_id = 'r'": "sessions",
        "SELECT * FROM summaries WHERE metric = 'm' AND protocol = 'p' AND key = 'overall'": "summaries",
        "SELECT * FROM scores WHERE image_sha256 = 's'": "scores",
    }
    with Store.open(tmp_path) as store:
        for query, table in queries.items():
            plan = " ".join(row["detail"] for row in store.rows(f"EXPLAIN QUERY PLAN {query}"))
            assert f"SEARCH {table}" in plan, plan
