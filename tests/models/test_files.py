"""Files that appear whole or not at all."""

import errno
import os

import pytest

from sana_models.files import write_whole


def test_replaces_a_file_after_its_content_is_on_the_device(tmp_path, monkeypatch) -> None:
    path = tmp_path / "new" / "file"
    order, fsync = [], os.fsync

    def record(descriptor: int) -> None:
        order.append((os.fstat(descriptor).st_size, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_whole(path, lambda stream: stream.write(b"one"))
    assert path.read_bytes() == b"one"
    assert order == [(3, False)]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(stream) -> None:
        stream.write(b"ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(path, full)
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]
