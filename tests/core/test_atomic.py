"""Files appear whole or not at all."""

import os
from pathlib import Path

import pytest

from sana_bench.core import atomic
from sana_bench.core.errors import UsageError


def test_the_new_content_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    atomic.write_text(path, "old")
    atomic.write_text(path, "nëw")
    assert path.read_text(encoding="utf-8") == "nëw"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, failure: BaseException) -> None:
    path = tmp_path / "file.bin"
    atomic.write_bytes(path, b"old")

    def write(file) -> None:
        file.write(b"half of the new")
        raise failure

    with pytest.raises(type(failure)):
        atomic.write_with(path, write)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_content_is_flushed_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        order.append("fsync")
        fsync(descriptor)

    def record_replace(source: Path, target: Path) -> None:
        order.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    atomic.write_bytes(tmp_path / "file", b"content")
    assert order == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("mark", [atomic.LOCK_NAME, atomic.STORE_NAME])
@pytest.mark.parametrize("place", ["cache", "runs", "leaderboard", "runs/x", "cache/text/ab"])
def test_nothing_in_an_output_folder_is_written_through_a_link(tmp_path: Path, mark: str, place: str) -> None:
    output, elsewhere = tmp_path / "linked" / "out", tmp_path / "elsewhere"
    (tmp_path / "disk" / "out").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "disk")  # the way to it may be one
    elsewhere.mkdir()
    (output / mark).write_bytes(b"")
    (elsewhere / mark).write_bytes(b"")  # looks like an output folder itself
    (output / place).parent.mkdir(parents=True, exist_ok=True)
    (output / place).symlink_to(elsewhere)
    for write in (
        lambda path: atomic.write_text(path, "new"),
        lambda path: atomic.link_or_copy(output / mark, path),
        lambda path: atomic.make_folder(path),
    ):
        with pytest.raises(
            UsageError, match=f"{output / place}: is a link inside the output folder {output}"
        ):
            write(output / place / "deep" / "file")
    assert [path.name for path in elsewhere.iterdir()] == [mark]


def test_folders_that_are_no_output_folder_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    (tmp_path / atomic.STORE_NAME).write_bytes(
        b""
    )  # results in a home folder, whose other folders are not theirs
    atomic.write_text(tmp_path / "data" / "runs" / "file", "new")
    assert (tmp_path / "disk" / "runs" / "file").read_text() == "new"


def test_a_file_that_is_changed_in_its_place_may_be_shared_by_a_group(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        os.close(atomic.open_own(tmp_path / "lock", os.O_RDWR))
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o664


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / ".tmp-0011-00001.png").write_bytes(b"half")
    (tmp_path / "images" / "00000.png").write_bytes(b"whole")
    assert atomic.remove_leftovers(tmp_path) == 1
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["00000.png"]
