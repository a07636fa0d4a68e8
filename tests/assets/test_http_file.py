"""One file by HTTP: what was begun is gone on with, or begun anew where it cannot be."""

import pytest

from sana_bench.assets.http_file import download_file, remote_size
from sana_bench.core.errors import AssetError

CONTENT = bytes(range(256)) * 64


@pytest.fixture
def begun(server, tmp_path):
    """A download that was cut after 1,000 bytes: the address, and the part."""
    server.files["weights.bin"], server.cut = CONTENT, 1000
    url, part = f"{server.url}/weights.bin", tmp_path / "weights.bin.part"
    with pytest.raises(
        AssetError, match=r"stopped after 1000 of 16384 bytes; run the command again to continue$"
    ):
        download_file(url, part)
    server.requests.clear()
    return url, part


def test_the_rest_alone_is_loaded(begun, server):
    url, part = begun
    assert remote_size(url) == len(CONTENT)
    download_file(url, part)
    assert part.read_bytes() == CONTENT
    assert [asked for *_, asked in server.requests] == [None, "bytes=1000-"]


def test_a_part_that_was_whole_is_loaded_anew(begun, server):
    url, part = begun
    part.write_bytes(b"x" * len(CONTENT))
    download_file(url, part)
    assert part.read_bytes() == CONTENT
    assert [asked for *_, asked in server.requests] == [f"bytes={len(CONTENT)}-", None]


@pytest.mark.parametrize("version", ['"two"', 'W/"one"'])
def test_another_or_a_vague_version_is_not_gone_on_with(begun, server, version):
    url, part = begun
    server.version, server.files["weights.bin"], server.cut = version, CONTENT[::-1], 2000
    with pytest.raises(AssetError, match="stopped after 2000"):
        download_file(url, part)
    download_file(url, part)
    assert part.read_bytes() == CONTENT[::-1]
    # What is weak promises no bytes, so nothing but the whole is asked for.
    assert server.requests[-1][2] == ("bytes=2000-" if version == '"two"' else None)


def test_a_server_that_says_no_is_one_line(server, tmp_path):
    with pytest.raises(AssetError, match=r"none\.bin: the server answers 404 Not Found$"):
        download_file(f"{server.url}/none.bin", tmp_path / "none.bin.part")
    assert list(tmp_path.iterdir()) == []
