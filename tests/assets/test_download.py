"""Files by HTTP and from folders: announced, resumed, verified, cut short, tampered with, offline."""

import hashlib
from dataclasses import replace

import pytest

from sana_bench.assets.download import SUMS, read_sums
from sana_bench.assets.table import RemoteFile
from sana_bench.core.errors import AssetError
from tests.assets.conftest import fetch_files

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def remote(server, path="net/weights.bin", sha256=DIGEST):
    server.files[path] = CONTENT
    return RemoteFile(path, f"{server.url}/{path}", sha256)


def leftovers(root):
    return sorted(path.name for path in root.rglob("*") if ".part" in path.name or ".tmp-" in path.name)


def test_fetches_verifies_and_says_sizes_first(server, tmp_path):
    said = []
    fetch_files([remote(server)], tmp_path, said.append)
    assert (tmp_path / "net/weights.bin").read_bytes() == CONTENT
    assert read_sums(tmp_path) == {"net/weights.bin": DIGEST}
    assert said[0] == f"net/weights.bin: 1.0 MB, from {server.url}/net/weights.bin"
    assert said[1] == f"to fetch: 1.0 MB into {tmp_path}"
    assert leftovers(tmp_path) == []
    server.requests.clear()
    fetch_files([remote(server)], tmp_path, said.append)
    assert server.requests == []


def test_goes_on_where_it_was_cut(server, tmp_path):
    file = remote(server)
    server.cut = 300_000
    with pytest.raises(AssetError, match="stopped after 300000 of 1048576 bytes; run the command again"):
        fetch_files([file], tmp_path)
    assert not (tmp_path / file.path).exists()
    said = []
    fetch_files([file], tmp_path, said.append)
    assert server.requests[-1][2] == "bytes=300000-"
    assert "0.3 MB of it here" in said[0]
    assert (tmp_path / file.path).read_bytes() == CONTENT
    assert leftovers(tmp_path) == []


def test_a_file_that_changed_meanwhile_is_not_spliced(server, tmp_path):
    file = remote(server, sha256="")
    server.cut = 1000
    with pytest.raises(AssetError, match="stopped after 1000"):
        fetch_files([file], tmp_path)
    server.version, server.files[file.path] = '"two"', b"new" + CONTENT
    fetch_files([file], tmp_path)
    assert (tmp_path / file.path).read_bytes() == b"new" + CONTENT


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
    with pytest.raises(AssetError, match="published is 0123456789ab"):
        fetch_files([remote(server, sha256="0123456789ab")], tmp_path)
    assert not (tmp_path / "net/weights.bin").exists()
    assert leftovers(tmp_path) == []
    assert read_sums(tmp_path) == {}


def test_the_first_digits_of_a_hash_are_enough(server, tmp_path):
    fetch_files([remote(server, sha256=DIGEST[:8])], tmp_path)
    assert read_sums(tmp_path)["net/weights.bin"] == DIGEST


def test_the_first_fetch_is_held_to(server, tmp_path):
    file = remote(server, sha256="")
    fetch_files([file], tmp_path)
    (tmp_path / file.path).write_bytes(b"other")
    with pytest.raises(AssetError, match="recorded at the first fetch"):
        fetch_files([file], tmp_path)
    (tmp_path / file.path).unlink()
    server.files[file.path] = b"replaced at the source"
    with pytest.raises(AssetError, match="recorded at the first fetch"):
        fetch_files([file], tmp_path)
    assert (tmp_path / SUMS).read_text() == f"{DIGEST}  net/weights.bin\n"


def test_missing_files_are_named_before_anything_is_fetched(server, tmp_path):
    absent = RemoteFile("net/none.bin", f"{server.url}/none.bin")
    with pytest.raises(AssetError, match=r"none\.bin: .*404"):
        fetch_files([remote(server), absent], tmp_path)
    assert not (tmp_path / "net/weights.bin").exists()


def test_an_unreachable_server_is_one_line(tmp_path):
    with pytest.raises(AssetError, match="refused"):
        fetch_files([RemoteFile("a", "http://127.0.0.1:9/a")], tmp_path)


def test_a_folder_serves_as_a_copy(tmp_path):
    copy, root = tmp_path / "copy", tmp_path / "root"
    (copy / "net").mkdir(parents=True)
    (copy / "net/weights.bin").write_bytes(CONTENT)
    file = RemoteFile("net/weights.bin", "http://127.0.0.1:9/never", DIGEST)
    fetch_files([file], root, mirror=str(copy))
    assert (root / file.path).read_bytes() == CONTENT
    with pytest.raises(AssetError, match=r"copy/net/gone\.bin is missing"):
        fetch_files([RemoteFile("net/gone.bin", "")], root, mirror=str(copy))


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_offline_fetches_nothing_and_names_what_is_missing(value, server, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(AssetError, match=r"HF_HUB_OFFLINE is set.*net/weights\.bin \(from http"):
        fetch_files([remote(server)], tmp_path)
    assert server.requests == []


def test_offline_is_content_with_what_is_there(server, tmp_path, monkeypatch):
    fetch_files([remote(server)], tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fetch_files([remote(server)], tmp_path)


def test_the_licence_is_said_before_anything_is_fetched(server, tmp_path):
    said = []
    file = replace(remote(server), licence="Apache-2.0")
    fetch_files([file], tmp_path, said.append)
    assert said[0] == f"net/weights.bin: 1.0 MB, from {file.url} (licence: Apache-2.0)"
