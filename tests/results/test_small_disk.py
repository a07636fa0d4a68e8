"""A disk that is really full or read-only: one line that names the path and the need, and the same command goes on."""

import re
import shutil
from pathlib import Path

import pytest

from sana_bench.cli.main import execute
from tests.runner import fakes
from tests.runner import numbers_of_runs as numbers
from tests.small_disk import fill, read_only, small_disk


@pytest.fixture
def disk(tmp_path: Path):
    with small_disk(tmp_path / "disk", 4096) as folder:
        yield folder


@pytest.fixture
def world(disk: Path, finished_world: Path):
    """A finished run on a small disk."""
    shutil.copytree(finished_world, disk / "world")
    with fakes.installed():
        yield disk / "world"


def run(world: Path, *more: str) -> int:
    suite = world / "suites" / "shapes.yaml"
    return execute(
        ["run", str(suite), "--tier", "micro", "--batch-size", "4", "-o", str(world / "results"), *more]
    )


def whole_run(output: Path) -> str:
    return next(
        run for run in numbers.run_ids(output) if all(r.complete for r in numbers.summaries(output, run))
    )


def one_line(capsys) -> str:
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("sana-bench: "))
    assert "crashed" not in line
    return line


def test_a_finished_run_on_a_full_disk(world, disk, capsys) -> None:
    before = numbers.summaries(world / "results", whole_run(world / "results"))
    filler = fill(disk)
    assert run(world) == 3
    line = one_line(capsys)
    assert "No space left on device" in line
    assert str(world / "results") in line
    assert "cannot be used" not in line
    assert re.search(r"0\.\d MB are free", line)
    filler.unlink()
    assert run(world) == 0
    assert numbers.summaries(world / "results", whole_run(world / "results")) == before


@pytest.mark.parametrize("leave", [2_000, 40_000, 90_000, 150_000, 250_000])
def test_a_run_that_fills_the_disk(world, disk, capsys, leave) -> None:
    output = world / "results"
    name = whole_run(output)
    before, images = numbers.summaries(output, name), numbers.image_bytes(output)
    shutil.rmtree(output)
    filler = fill(disk, leave)
    assert run(world) == 3
    line = one_line(capsys)
    assert "No space left on device" in line
    assert "free some space" in line
    assert "what is finished is kept, run the same command again to continue" in line
    assert not list(disk.rglob(".tmp-*"))
    filler.unlink()
    assert run(world) == 0
    assert numbers.summaries(output, name) == before
    assert {path: content for path, content in images.items() if name in path} == numbers.image_bytes(output)


COMMANDS = {
    "report": ["report", "RUN", "-o", "OUT"],
    "export": ["export", "--all", "-o", "OUT", "--to", "DISK/exported", "--format", "json"],
    "leaderboard": ["leaderboard", "-o", "OUT"],
    "gate": [
        "gate",
        "RUN:fake-2",
        "--baseline",
        "known",
        "-o",
        "OUT",
        "--junit",
        "DISK/j.xml",
        "--policy",
        "POLICY",
    ],
    "baseline": ["baseline", "set", "b", "RUN:fake-4", "-o", "OUT"],
    "store repair": ["store", "repair", "-o", "OUT"],
    "import": ["import", "OUT", "-o", "DISK/new"],
}


@pytest.mark.parametrize("state", ["full", "read-only"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_words_it_alike(world, disk, tmp_path, capsys, command, state) -> None:
    name = whole_run(world / "results")
    (tmp_path / "policy.yaml").write_text("schema_version: 1\nmetrics:\n  redness: {worse_by: 100}\n")
    words = {
        "RUN": name,
        "OUT": str(world / "results"),
        "DISK": str(disk),
        "POLICY": str(tmp_path / "policy.yaml"),
    }
    arguments = COMMANDS[command]
    for key, word in words.items():
        arguments = [argument.replace(key, word) for argument in arguments]
    assert execute(["baseline", "set", "known", f"{name}:fake-4", "-o", str(world / "results")]) == 0
    capsys.readouterr()
    fill(disk) if state == "full" else read_only(disk, on=True)
    code = execute(arguments)
    assert code == (3 if state == "full" else 2)
    line = one_line(capsys)
    assert ("No space left on device: " if state == "full" else "Read-only file system: ") in line
    assert str(disk) in line
    assert "[Errno" not in line
    read_only(disk, on=False)
    (disk / "filler").unlink(missing_ok=True)
    assert execute(arguments) in (0, 4)


def test_a_run_on_a_read_only_disk(world, disk, capsys) -> None:
    read_only(disk, on=True)
    assert run(world) == 2
    assert "Read-only file system" in one_line(capsys)
    read_only(disk, on=False)
    assert run(world) == 0
