"""A damaged store is one line in every command, never another number, and what can be saved of it is."""

import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sana_bench.cli.main import execute
from sana_bench.core.errors import UsageError
from sana_bench.results import database
from sana_bench.results.repair import check_store
from sana_bench.results.schema import SCHEMA_VERSION
from sana_bench.results.seal import BLOCK, SEAL_NAME, changed_blocks
from sana_bench.results.store import Store
from tests import ROOT
from tests.runner import fakes
from tests.runner import numbers_of_runs as numbers

PUT_RUN = ("r", "s", "micro", "f", "runs/r", "2026-01-01T00:00:00+00:00")


@pytest.fixture
def world(tmp_path: Path, finished_world: Path):
    shutil.copytree(finished_world, tmp_path / "world")
    with fakes.installed():
        yield tmp_path / "world"


def whole_run(output: Path) -> str:
    return next(
        run for run in numbers.run_ids(output) if all(r.complete for r in numbers.summaries(output, run))
    )


def run(world: Path) -> int:
    suite = world / "suites" / "shapes.yaml"
    return execute(["run", str(suite), "--tier", "micro", "--output", str(world / "results")])


def repair(output: Path, *options: str) -> int:
    return execute(["store", "repair", "-o", str(output), *options])


def flip(path: Path, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 16]))


def random_page(path: Path, number: int) -> None:
    with open(path, "r+b") as file:
        file.seek(number * BLOCK)
        file.write(random.Random(number).randbytes(BLOCK))


def another_database(path: Path) -> None:
    path.unlink()
    (path.parent / SEAL_NAME).unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (name TEXT)")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit of the header": lambda path: flip(path, 20),
    "a bit of the schema": lambda path: flip(path, BLOCK - 9),
    "a bit in the middle": lambda path: flip(path, path.stat().st_size // 2 // BLOCK * BLOCK + BLOCK - 3),
    "a bit at the end": lambda path: flip(path, path.stat().st_size - 3),
    "random first page": lambda path: random_page(path, 0),
    "random page": lambda path: random_page(path, 5),
    "random pages": lambda path: [random_page(path, number) for number in range(3, path.stat().st_size // BLOCK, 4)],
    "half of it": truncated,
    "nothing": lambda path: os.truncate(path, 0),
    "noise": lambda path: path.write_bytes(random.Random(0).randbytes(10_000)),
    "another database": another_database,
    "sums cut short": lambda path: os.truncate(path.parent / SEAL_NAME, 40),
    "sums of nothing": lambda path: (path.parent / SEAL_NAME).write_bytes(b"{}"),
    "a bit of the sums": lambda path: flip(path.parent / SEAL_NAME, 60),
}  # fmt: skip
COMMANDS = (
    ["report", "RUN", "-o", "OUT"],
    ["compare", "RUN:fake-4", "RUN:fake-2", "-o", "OUT"],
    ["leaderboard", "-o", "OUT"],
    ["history", "OUT"],
    ["export", "--all", "--to", "OUT/../exported", "-o", "OUT"],
    ["import", "OUT", "-o", "OUT/../new"],
    ["store", "check", "-o", "OUT"],
)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_line_everywhere_and_repaired(world, capsys, damage) -> None:
    output = world / "results"
    name = whole_run(output)
    before, images = numbers.summaries(output, name), numbers.image_bytes(output)
    DAMAGE[damage](output / "store.sqlite")
    damaged = (output / "store.sqlite").read_bytes()
    for command in (*COMMANDS, None):
        capsys.readouterr()
        words = [word.replace("OUT", str(output)).replace("RUN", name) for word in command or ()]
        assert (execute(words) if command else run(world)) == 2, command
        (line,) = (line for line in capsys.readouterr().err.splitlines() if "store" in line)
        assert "crashed" not in line
        assert "store check" in line or "store repair" in line or "not a sana-bench result store" in line
    assert (output / "store.sqlite").read_bytes() == damaged
    capsys.readouterr()
    assert repair(output) in (0, 3)
    out, err = capsys.readouterr()
    found_images = "from run folders: " in out and " 0 images" not in out
    assert ("but for what images from run folders cost to make" in err) == (found_images and "is lost" in err)
    (kept,) = (
        line.rpartition(" ")[2]
        for line in out.splitlines()
        if line.startswith("the damaged store is kept as ")
    )
    assert Path(kept).read_bytes() == damaged
    assert execute(["store", "check", "-o", str(output)]) == 0
    fakes.FakeGenerator.batches.clear()
    assert run(world) == 0
    assert (
        fakes.FakeGenerator.batches == []
    )  # every image was in the store still, or found in the run's folder
    assert numbers.summaries(output, name) == before
    assert numbers.image_bytes(output) == images
    assert not list(output.glob(".tmp-*"))


def test_every_changed_block_is_found(results: Path) -> None:
    """Wherever a bit changes, in a number, a text or in free space."""
    path = results / "store.sqlite"
    whole = path.read_bytes()
    for place in range(101, len(whole), 1021):
        flip(path, place)
        assert changed_blocks(results) == [place // BLOCK]
        with pytest.raises(UsageError, match="store check"):
            Store.open_existing(results)
        path.write_bytes(whole)
    with Store.open(results) as store:
        assert store.run_ids()


def test_what_is_saved_is_what_was_written(results: Path, capsys) -> None:
    """Of a store with a changed score, that block is lost, and no changed score is saved."""
    path = results / "store.sqlite"
    with Store.open(results) as store:
        expected = {tuple(row.values()) for row in store.rows("SELECT * FROM scores")}
    content = path.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        value = connection.execute("SELECT value FROM scores").fetchone()[0]
    place = content.index(struct.pack(">d", value))
    flip(path, place + 3)
    found = check_store(results)
    assert found.changed == [place // BLOCK]
    assert found.readable["scores"] < len(expected)
    assert repair(results) == 3
    assert "which make what lacks" in capsys.readouterr().err
    with Store.open(results) as store:
        rows = {tuple(row.values()) for row in store.rows("SELECT * FROM scores")}
    assert rows < expected
    assert len(rows) == found.readable["scores"]


def test_a_store_that_another_program_changed_on_purpose(results: Path) -> None:
    with closing(sqlite3.connect(results / "store.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE runs SET suite = 'renamed'")
    with pytest.raises(UsageError, match="store check"):
        Store.open_existing(results)
    assert repair(results, "--as-is") == 0
    with Store.open(results) as store:
        assert {row["suite"] for row in store.rows("SELECT suite FROM runs")} == {"renamed"}


def test_a_store_without_sums_is_read_and_gets_them(results: Path) -> None:
    """As those of earlier versions, and one whose command was killed while it brought its log in."""
    (results / SEAL_NAME).unlink()
    with Store.open(results) as store:
        assert store.run_ids()
    assert changed_blocks(results) == []


def test_a_store_that_is_whole_is_said_to_be(results: Path, capsys) -> None:
    assert execute(["store", "check", "-o", str(results)]) == 0
    out = capsys.readouterr().out
    assert "scores: 58 rows can be read" in out
    assert out.endswith("the store is whole\n")
    assert execute(["store", "check", "-o", str(results / "nowhere")]) == 2


@pytest.mark.parametrize("place", [200, BLOCK - 5, BLOCK + 3, -5])
def test_damage_while_a_command_writes_keeps_what_it_wrote_in_the_log(tmp_path: Path, place: int) -> None:
    Store.open(tmp_path).close()
    path = tmp_path / "store.sqlite"
    store = Store.open(tmp_path)
    store.put_run(*PUT_RUN)
    flip(path, place % path.stat().st_size)
    damaged = path.read_bytes()
    with pytest.raises(UsageError, match="store check"):
        store.close()
    assert path.read_bytes() == damaged
    assert (tmp_path / "store.sqlite-wal").stat().st_size
    assert repair(tmp_path) == 3  # whatever was in that block
    with Store.open(tmp_path) as repaired:
        assert repaired.run_ids() == ["r"]


def test_a_log_that_grows_is_brought_in_with_new_sums(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(database, "_LARGEST_LOG", 10_000)
    with Store.open(tmp_path) as store:
        for number in range(30):
            store.put_run(f"r{number}", *PUT_RUN[1:])
            assert changed_blocks(tmp_path) in ([], None)
        assert (tmp_path / "store.sqlite-wal").stat().st_size < 40_000
        assert changed_blocks(tmp_path) == []
    assert changed_blocks(tmp_path) == []


def test_a_killed_command_leaves_file_and_sums_alike(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom sana_bench.results.store import Store\n"
        f"store = Store.open(Path(sys.argv[1]))\nstore.put_run(*{PUT_RUN})\nos.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], cwd=ROOT, check=False)
    assert changed_blocks(tmp_path) == []
    store = Store.open_existing(tmp_path)
    assert store is not None
    with store:
        assert store.run_ids() == ["r"]
    with Store.open(tmp_path) as store:
        assert store.run_ids() == ["r"]
    assert changed_blocks(tmp_path) == []


def test_readers_beside_a_writer_see_no_damage(tmp_path: Path) -> None:
    """A process opens, writes and closes again and again; none of its readers takes that for damage."""
    Store.open(tmp_path).close()
    script = (
        "import sys\nfrom pathlib import Path\nfrom sana_bench.results.store import Store\n"
        "for number in range(300):\n    with Store.open(Path(sys.argv[1])) as store:\n"
        f"        store.put_run(f'r{{number:03}}', *{PUT_RUN[1:]})\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=ROOT)
    seen = 0
    while writer.poll() is None:
        store = Store.open_existing(tmp_path)
        assert store is not None
        with store:
            count = len(store.run_ids())
        assert count >= seen
        seen = count
    assert writer.returncode == 0
