"""What stands in the place of an output folder's files: a link is never written through, and a line says what to remove."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sana_bench.cli.main import execute
from tests.runner import fakes
from tests.runner import numbers_of_runs as numbers

PRECIOUS = b"precious"


@pytest.fixture
def world(tmp_path: Path, finished_world: Path):
    """A finished run that the command of its suite goes on with, and a file and a folder that nobody may touch."""
    shutil.copytree(finished_world, tmp_path / "world")
    (tmp_path / "victim").write_bytes(PRECIOUS)
    (tmp_path / "elsewhere").mkdir()
    with fakes.installed():
        yield tmp_path / "world"
    assert (tmp_path / "victim").read_bytes() == PRECIOUS
    assert not list((tmp_path / "elsewhere").iterdir())


def run(world: Path) -> int:
    suite = world / "suites" / "shapes.yaml"
    return execute(["run", str(suite), "--tier", "micro", "--output", str(world / "results")])


def run_folder(world: Path) -> Path:
    output = world / "results"
    whole = (
        run for run in numbers.run_ids(output) if all(r.complete for r in numbers.summaries(output, run))
    )
    return output / "runs" / next(whole)


def report(world: Path) -> int:
    return execute(["report", run_folder(world).name, "-o", str(world / "results")])


def one_line(capsys) -> str:
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("sana-bench: "))
    return line


def clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def link(path: Path, victim: Path, elsewhere: Path) -> None:
    path.symlink_to(victim)


def hard_link(path: Path, victim: Path, elsewhere: Path) -> None:
    os.link(victim, path)


def link_to_folder(path: Path, victim: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def dangling(path: Path, victim: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere / "new")


def folder(path: Path, victim: Path, elsewhere: Path) -> None:
    path.mkdir()
    (path / "kept").write_bytes(PRECIOUS)


def pipe(path: Path, victim: Path, elsewhere: Path) -> None:
    os.mkfifo(path)


Kind = Callable[[Path, Path, Path], None]
KINDS: tuple[Kind, ...] = (link, hard_link, link_to_folder, dangling, folder, pipe)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [".writer.lock", "store.sqlite", "store.sqlite-wal", "store.sqlite-shm"])
def test_files_that_are_changed_in_their_place(world, tmp_path, capsys, name, kind) -> None:
    path = world / "results" / name
    clear(path)
    kind(path, tmp_path / "victim", tmp_path / "elsewhere")
    capsys.readouterr()
    assert run(world) == 2
    line = one_line(capsys)
    assert f"{path}: " in line
    assert "remove it" in line or "put a copy of the file in its place" in line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("provenance.json", run),
        ("report/report.html", run),
        ("report/report.html", report),
        ("prompts/shapes.jsonl", run),
        ("log.txt", run),
    ],
)
def test_files_that_are_replaced(world, tmp_path, capsys, name, kind, command) -> None:
    """What holds a file is replaced; a folder, whatever is in it, is the user's to remove."""
    path = run_folder(world) / name
    clear(path)
    kind(path, tmp_path / "victim", tmp_path / "elsewhere")
    if name == "log.txt":  # of messages of libraries: there were none, and none of ours depends on it
        assert command(world) == 0
        return
    capsys.readouterr()
    if kind is folder:
        assert command(world) == 2
        assert f"{path}: is a folder where a file belongs; remove it" in one_line(capsys)
        assert (path / "kept").read_bytes() == PRECIOUS
        clear(path)
    assert command(world) == 0
    assert path.is_file()
    assert not path.is_symlink()


@pytest.mark.parametrize("kind", [link_to_folder, dangling, link, pipe])
@pytest.mark.parametrize("place", ["runs", "run", "images", "report", "prompts"])
def test_folders_are_not_reached_through_links(world, tmp_path, capsys, place, kind) -> None:
    at = run_folder(world)
    path = {"runs": at.parent, "run": at}.get(place, at / place)
    clear(path)
    kind(path, tmp_path / "victim", tmp_path / "elsewhere")
    capsys.readouterr()
    assert run(world) == 2
    line = one_line(capsys)
    assert f"{path}: is " in line or f"{path} stands where a folder belongs" in line
    assert "remove it" in line


@pytest.mark.parametrize("kind", [folder, pipe, dangling])
@pytest.mark.parametrize("name", ["baselines.json", "store.sums", "suite.resolved.yaml"])
def test_files_that_are_only_read_are_named(world, tmp_path, capsys, name, kind) -> None:
    """What a command reads first: a line that names it, and no other file that it would be taken for."""
    output, at = world / "results", run_folder(world)
    assert execute(["baseline", "set", "known", f"{at.name}:fake-4", "-o", str(output)]) == 0
    path = (at if name.startswith("suite") else output) / name
    clear(path)
    kind(path, tmp_path / "victim", tmp_path / "elsewhere")
    capsys.readouterr()
    code = execute(["gate", f"{at.name}:fake-2", "--baseline", "known", "-o", str(output)])
    if name == "store.sums" and kind is dangling:  # as if there were none
        assert code in (0, 4, 5)
        return
    assert code == 2
    line = one_line(capsys)
    assert str(path) in line
    assert "remove it" in line or "store check" in line


def test_an_output_folder_may_be_a_link(world, tmp_path) -> None:
    at = run_folder(world)
    before = numbers.summaries(world / "results", at.name)
    (world / "results").rename(tmp_path / "disk")
    (world / "results").symlink_to(tmp_path / "disk")
    shutil.rmtree(at / "images")
    assert run(world) == 0
    assert numbers.summaries(world / "results", at.name) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", ["images/**/*.png", "features/**/*.npz"])
def test_images_and_features_are_made_again(world, tmp_path, capsys, pattern, kind) -> None:
    """Whatever stands in their place: at once, or once what the line says is done."""
    output, at = world / "results", run_folder(world)
    before, images = numbers.summaries(output, at.name), numbers.image_bytes(output)
    path = sorted(at.glob(pattern))[0]
    clear(path)
    kind(path, tmp_path / "victim", tmp_path / "elsewhere")
    capsys.readouterr()
    if kind is folder:
        assert run(world) == 2
        assert (
            f"{path}: is a folder where a file belongs; remove it, then run the same command again"
            in one_line(capsys)
        )
        clear(path)
    assert run(world) == 0
    assert numbers.summaries(output, at.name) == before
    assert numbers.image_bytes(output) == images


def test_a_folder_in_the_place_of_an_image_is_told_before_any_work(world, capsys) -> None:
    at = run_folder(world)
    *_, last = sorted(at.glob("images/**/*.png"))
    shutil.rmtree(at / "images")
    last.mkdir(parents=True)
    fakes.FakeGenerator.batches.clear()
    assert run(world) == 2
    assert fakes.FakeGenerator.batches == []


def test_a_file_in_the_place_of_a_folder_is_named(world, capsys) -> None:
    at = run_folder(world)
    path = sorted(at.glob("images/*"))[0]
    shutil.rmtree(path)
    path.write_bytes(PRECIOUS)
    assert run(world) == 2
    line = one_line(capsys)
    assert f"{path} stands where a folder belongs; remove it" in line or f"{path}: is a file where" in line
    assert path.read_bytes() == PRECIOUS
