"""What the file of a store guarantees: a write-ahead log, foreign keys, one writer, readers at any time."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from sana_bench.cli.main import execute
from sana_bench.results.database import writer_lock
from sana_bench.results.schema import ImageRow, ScoreRecord
from sana_bench.results.store import Store

IMAGE = ImageRow("0", 0, "p", "ok", "a.png", "s", 1, 0.1, 1, "cpu")


def test_the_log_is_written_ahead_and_flushed(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        assert store.rows("PRAGMA journal_mode") == [{"journal_mode": "wal"}]
        assert store.rows("PRAGMA synchronous") == [{"synchronous": 2}]  # FULL: a commit is on the device


def test_rows_without_their_parent_are_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        assert store.rows("PRAGMA foreign_keys") == [{"foreign_keys": 1}]
        store.put_run("r", "s", "micro", "f", "runs/r", "now")
        session = store.start_session("r", "now", "run")
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            store.put_images("k", "no such run", [IMAGE], "now", session)
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            store.put_scores("no such metric", [ScoreRecord("s", "p", 1.0, {})], session)
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            store.start_session("no such run", "now", "run")
        assert store.images("k") == {}
        assert store.sessions("r")[0]["images_generated"] == 0  # the whole transaction is undone


def test_a_reader_sees_the_last_commit_while_a_writer_works(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, store.transaction() as connection:
        connection.execute("INSERT INTO runs VALUES ('r', 's', 'micro', 'f', 'd', 'now', '{}', NULL)")
        reader = Store.open_existing(tmp_path)
        assert reader is not None
        with reader:
            assert reader.run_ids() == []


def test_a_second_writer_in_another_process_is_refused(tmp_path: Path, capsys) -> None:
    Store.open(tmp_path).close()
    hold = (
        "import sys\nfrom pathlib import Path\nfrom sana_bench.results.store import writer_lock\n"
        "with writer_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", hold, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    (tmp_path / "baselines.json").write_text('{"x": {"run": "r", "variant": "v"}}')
    assert execute(["baseline", "remove", "x", "-o", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"another sana-bench (process {holder.pid}) is writing here" in line
    holder.kill()  # the kernel releases the lock of a process that dies
    holder.wait(timeout=60)
    with writer_lock(tmp_path):
        pass
