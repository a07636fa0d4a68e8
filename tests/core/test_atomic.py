"""Files appear whole or not at all."""

import os
from pathlib import Path

import pytest

from sana_bench.core import atomic


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


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / ".tmp-0011-00001.png").write_bytes(b"half")
    (tmp_path / "images" / "00000.png").write_bytes(b"whole")
    assert atomic.remove_leftovers(tmp_path) == 1
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["00000.png"]
