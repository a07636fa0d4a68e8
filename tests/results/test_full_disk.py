"""A full disk ends a run with one line; what is recorded stays, and the same command goes on."""

import errno
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sana_bench.cli.main import execute
from sana_bench.core import atomic
from sana_bench.results.database import STORE_NAME
from sana_bench.results.store import Store
from tests.runner import fakes
from tests.runner import numbers_of_runs as numbers

N = 2 * 4 * fakes.N_PROMPTS


@pytest.fixture
def command(tmp_path: Path):
    with fakes.installed():
        suite = fakes.write_suite(tmp_path)
        yield [
            "run",
            str(suite),
            "--tier",
            "micro",
            "--batch-size",
            "4",
            "--output",
            str(tmp_path / "results"),
        ]


def expected_numbers(command: list[str], folder: Path):
    assert execute([*command[:-1], str(folder / "whole")]) == 0
    return numbers.summaries(folder / "whole")


def only_line(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sana-bench: ")]
    assert len(lines) == 1
    return lines[0]


def n_recorded(output: Path) -> int:
    with closing(sqlite3.connect(output / STORE_NAME)) as connection:
        return int(connection.execute("SELECT count(*) FROM images WHERE status = 'ok'").fetchone()[0])


@pytest.mark.parametrize("pages", [0, 1, 3, 6])
def test_a_store_that_cannot_grow(command, tmp_path, monkeypatch, capsys, pages) -> None:
    """SQLite reports SQLITE_FULL when the file may not grow by more than `pages` pages."""
    expected = expected_numbers(command, tmp_path)
    output = tmp_path / "results"
    output.mkdir()
    Store.open(output).close()
    original = Store.open.__func__

    def cramped(cls, folder: Path) -> Store:
        store = original(cls, folder)
        used = store.rows("PRAGMA page_count")[0]["page_count"]
        store.rows(f"PRAGMA max_page_count = {used + pages}")
        return store

    capsys.readouterr()
    monkeypatch.setattr(Store, "open", classmethod(cramped))
    assert execute(command) == 3
    line = only_line(capsys)
    assert "disk is full" in line
    assert "run the same command again to continue" in line
    monkeypatch.undo()
    fakes.FakeGenerator.batches.clear()
    before = n_recorded(output)
    assert execute(command) == 0
    assert sum(fakes.FakeGenerator.batches) == N - before
    assert numbers.summaries(output) == expected


@pytest.mark.parametrize("n_written", [0, 2, 5, 30, 48])
def test_files_that_cannot_be_written(command, tmp_path, monkeypatch, capsys, n_written) -> None:
    expected = expected_numbers(command, tmp_path)
    output = tmp_path / "results"
    original, count = atomic.os.fsync, [0]

    def fsync(descriptor: int) -> None:
        count[0] += 1
        if count[0] > 2 * n_written:  # each file is flushed, and then its directory
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    capsys.readouterr()
    monkeypatch.setattr(atomic.os, "fsync", fsync)
    assert execute(command) == 3
    line = only_line(capsys)
    assert "No space left on device" in line
    assert "run the same command again to continue" in line
    monkeypatch.undo()
    assert not list(output.rglob(f"{atomic.TEMPORARY_PREFIX}*"))
    before = n_recorded(output)
    assert bool(re.search(r"\d+ missing images will take about", line)) == (0 < before < N)
    fakes.FakeGenerator.batches.clear()
    assert execute(command) == 0
    assert sum(fakes.FakeGenerator.batches) == N - before
    assert numbers.summaries(output) == expected


@pytest.mark.parametrize(
    ("number", "code", "advice"),
    [
        (errno.ENOSPC, 3, r"\d MB are free, free some space"),
        (errno.EDQUOT, 3, r"\d MB are free, your quota on this file system is used up"),
        (errno.EFBIG, 3, "`ulimit -f` or the file system allows no longer file"),
        (errno.EIO, 3, ""),
        (errno.EROFS, 2, "choose a folder that can be written"),
        (errno.EACCES, 2, "change the permissions or choose another folder"),
        (errno.EPERM, 2, "change the permissions or choose another folder"),
    ],
)
@pytest.mark.parametrize("command_", ["run", "report", "export", "import"])
def test_what_the_system_refuses_is_worded_alike(
    results, tmp_path, monkeypatch, capsys, number, code, advice, command_
) -> None:
    """The path, the system's word and what to do, whatever is refused and whichever command asked."""
    (run, *_) = numbers.run_ids(results)
    suite = results.parent / "suite"
    with fakes.installed():
        arguments = {
            "run": ["run", str(fakes.write_suite(suite)), "--tier", "micro", "-o", str(tmp_path / "new")],
            "report": ["report", run, "-o", str(results)],
            "export": ["export", "--all", "-o", str(results), "--to", str(tmp_path / "new")],
            "import": ["import", str(results), "-o", str(tmp_path / "new")],
        }[command_]

        def replace(source: object, target: object) -> None:
            raise OSError(number, os.strerror(number), str(source), None, str(target))

        monkeypatch.setattr(os, "replace", replace)
        capsys.readouterr()
        assert execute(arguments) == code
    line = only_line(capsys)
    assert os.strerror(number) in line
    assert re.search(advice, line)
    assert str(tmp_path) in line
    assert "[Errno" not in line
    assert atomic.TEMPORARY_PREFIX not in line


def test_a_new_store_on_a_full_disk(tmp_path, monkeypatch) -> None:
    """The file system refuses the first page of the write-ahead log."""
    from sana_bench.core.errors import BenchError
    from sana_bench.results import database as module

    original = module.migrate

    def cramped(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 2")
        original(connection)

    monkeypatch.setattr(module, "migrate", cramped)
    with pytest.raises(
        BenchError, match="full; what is finished is kept, run the same command again"
    ) as caught:
        Store.open(tmp_path)
    assert caught.value.exit_code == 3
    monkeypatch.undo()
    with Store.open(tmp_path) as store:
        assert store.run_ids() == []
