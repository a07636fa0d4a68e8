"""`fetch --from` a folder that somebody filled: wrong, short and linked files, pipes, and links where it writes."""

import hashlib
import os
from pathlib import Path

import pytest

from sana_bench.assets.download import SUMS, _fetch, read_sums
from sana_bench.assets.http_file import part_of
from sana_bench.assets.table import RemoteFile
from sana_bench.core.errors import AssetError, IncompleteError
from tests.assets.conftest import fetch_files
from tests.small_disk import small_disk

CONTENT = bytes(range(256)) * 64
FILE = RemoteFile(
    "net/weights.bin", "https://nowhere.example/weights.bin", hashlib.sha256(CONTENT).hexdigest()
)
UNPUBLISHED = RemoteFile("net/weights.bin", "https://nowhere.example/weights.bin", "")
PRECIOUS = b"precious"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    (tmp_path / "mirror" / "net").mkdir(parents=True)
    return tmp_path / "mirror"


@pytest.fixture
def root(tmp_path: Path):
    (tmp_path / "victim").write_bytes(PRECIOUS)
    (tmp_path / "root" / "net").mkdir(parents=True)
    yield tmp_path / "root"
    assert (tmp_path / "victim").read_bytes() == PRECIOUS


def test_wrong_and_short_files_are_refused_and_leave_nothing(mirror, root) -> None:
    for content in (CONTENT[:-1], CONTENT[:100], b"", b"x" + CONTENT[1:], CONTENT + b"x"):
        (mirror / FILE.path).write_bytes(content)
        with pytest.raises(AssetError, match=r"sha256 is [0-9a-f]+, published is"):
            fetch_files([FILE], root, mirror=str(mirror))
        assert not [path for path in root.rglob("*") if path.is_file()]
    (mirror / FILE.path).write_bytes(CONTENT)
    fetch_files([FILE], root, mirror=str(mirror))
    assert (root / FILE.path).read_bytes() == CONTENT


def test_a_file_whose_hash_was_recorded_is_not_replaced_by_another(mirror, root) -> None:
    (mirror / FILE.path).write_bytes(CONTENT)
    fetch_files([UNPUBLISHED], root, mirror=str(mirror))
    (root / FILE.path).unlink()
    (mirror / FILE.path).write_bytes(CONTENT[:-1])
    with pytest.raises(AssetError, match="recorded at the first fetch"):
        fetch_files([UNPUBLISHED], root, mirror=str(mirror))
    assert read_sums(root) == {FILE.path: FILE.sha256}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a link to nowhere", "a link to a pipe", "nothing"])
def test_what_is_no_file_is_missing(mirror, root, tmp_path, kind) -> None:
    path = mirror / FILE.path
    os.mkfifo(tmp_path / "pipe")
    {
        "a pipe": lambda: os.mkfifo(path),
        "a folder": path.mkdir,
        "a link to nowhere": lambda: path.symlink_to(tmp_path / "nowhere"),
        "a link to a pipe": lambda: path.symlink_to(tmp_path / "pipe"),
        "nothing": lambda: None,
    }[kind]()
    with pytest.raises(AssetError, match=f"{path} is missing, needed as {FILE.path}"):
        fetch_files([FILE], root, mirror=str(mirror))


@pytest.mark.parametrize("source", ["mirror", "server"])
def test_a_disk_that_fills_while_a_file_comes(mirror, server, tmp_path, source) -> None:
    """After the look at the free space: the line names the file here, not the address, and what came is gone on with."""
    content = CONTENT * 64
    (mirror / FILE.path).write_bytes(content)
    server.files[FILE.path] = content
    with small_disk(tmp_path / "disk", 512) as disk:
        file = RemoteFile(FILE.path, f"{server.url}/{FILE.path}", hashlib.sha256(content).hexdigest())
        place = disk / FILE.path
        place.parent.mkdir()
        with pytest.raises(
            IncompleteError, match=f"{place}.*: No space left on device: .* are free, free some space"
        ):
            _fetch(file, mirror / FILE.path if source == "mirror" else file.url, place, {})
        assert not place.exists()


def test_a_link_in_the_mirror_is_read(mirror, root, tmp_path) -> None:
    """As the hub's cache and other stores of files by content have them; a copy of what it leads to comes here."""
    (tmp_path / "blob").write_bytes(CONTENT)
    (mirror / FILE.path).symlink_to(tmp_path / "blob")
    fetch_files([FILE], root, mirror=str(mirror))
    assert not (root / FILE.path).is_symlink()
    assert (root / FILE.path).read_bytes() == CONTENT


def test_nothing_is_written_through_a_link(mirror, root, tmp_path) -> None:
    (mirror / FILE.path).write_bytes(CONTENT)
    for place in (part_of(root / FILE.path), root / SUMS):
        place.symlink_to(tmp_path / "victim")
    (root / FILE.path).symlink_to(tmp_path / "new")
    fetch_files([FILE], root, mirror=str(mirror))
    assert (root / FILE.path).read_bytes() == CONTENT
    assert not (tmp_path / "new").exists()
    assert read_sums(root) == {FILE.path: FILE.sha256}


def test_nothing_is_downloaded_through_a_link(server, root, tmp_path) -> None:
    server.files[FILE.path] = CONTENT
    file = RemoteFile(FILE.path, f"{server.url}/{FILE.path}", FILE.sha256)
    part_of(root / FILE.path).symlink_to(tmp_path / "victim")
    fetch_files([file], root)
    assert (root / FILE.path).read_bytes() == CONTENT
