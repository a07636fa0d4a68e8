"""MJHQ-30K's archive: loaded, unpacked, gone on with, and refused where it is not what it should be."""

import hashlib
import io
import json
import shutil
import stat
import zipfile

import pytest

from sana_bench.assets.download import Size, planned_files
from sana_bench.assets.mjhq30k import Mjhq30k
from sana_bench.assets.table import RemoteFile
from sana_bench.assets.unpack import bytes_to_unpack, unpack
from sana_bench.core.errors import AssetError
from tests.assets.conftest import fetch_files

IMAGES = {"art/1.jpg": b"one" * 50, "art/2.jpg": b"two" * 60, "logo/3.jpg": b"three" * 70}
LISTING = {path[-5]: {"category": path.partition("/")[0], "prompt": "a"} for path in IMAGES}
META, ARCHIVE = "mjhq30k/meta_data.json", "mjhq30k/mjhq30k_imgs.zip"


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def files_of(server, members, listing=LISTING):
    server.files = {META: json.dumps(listing).encode(), ARCHIVE: zipped(members)}
    folder = ARCHIVE.removesuffix(".zip")
    return [
        RemoteFile(META, f"{server.url}/{META}"),
        RemoteFile(ARCHIVE, f"{server.url}/{ARCHIVE}", unpack=folder),
    ]


def unpacked(root):
    folder = root / "mjhq30k/mjhq30k_imgs"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def ignore(_):
    pass


@pytest.mark.parametrize("prefix", ["", "mjhq30k_imgs/"])
def test_both_layouts_end_where_the_benchmark_reads(server, tmp_path, prefix):
    files = files_of(server, {f"{prefix}{name}": content for name, content in IMAGES.items()})
    said = []
    fetch_files(files, tmp_path, said.append)
    assert unpacked(tmp_path) == IMAGES
    Mjhq30k(tmp_path / META).require_images()
    n_archive = len(server.files[ARCHIVE])
    assert said[1].endswith(f"from {server.url}/{ARCHIVE}, and about as much again unpacked")
    assert said[2].endswith(f"and {n_archive / 1e6:,.1f} MB unpacked")
    assert said[-1] == f"{ARCHIVE}: 3 files unpacked into {tmp_path / 'mjhq30k/mjhq30k_imgs'}"


def test_an_archive_of_other_files_needs_no_listing(server, tmp_path):
    """DreamSim's holds weights, some of them in a folder of their own, and is unpacked beside itself."""
    members = {"clip.pth.tar": b"weights" * 30, "ensemble_lora/adapter_config.json": b"{}"}
    server.files = {"dreamsim/e.zip": zipped(members)}
    files = [RemoteFile("dreamsim/e.zip", f"{server.url}/dreamsim/e.zip", unpack="dreamsim")]
    fetch_files(files, tmp_path)
    assert {name: (tmp_path / "dreamsim" / name).read_bytes() for name in members} == members
    server.requests.clear()
    fetch_files(files, tmp_path)
    assert server.requests == []
    (tmp_path / "dreamsim/clip.pth.tar").unlink()
    fetch_files(files, tmp_path)
    assert (tmp_path / "dreamsim/clip.pth.tar").read_bytes() == members["clip.pth.tar"]
    assert server.requests == []


def test_what_is_unpacked_is_not_fetched_again(server, tmp_path):
    files = files_of(server, IMAGES)
    fetch_files(files, tmp_path)
    server.requests.clear()
    fetch_files(files, tmp_path)
    (tmp_path / ARCHIVE).unlink()
    said = []
    fetch_files(files, tmp_path, said.append)
    assert server.requests == []
    assert f"{ARCHIVE}: its images are already here" in said
    # The archive is wanted again as soon as an image is gone.
    (tmp_path / "mjhq30k/mjhq30k_imgs/art/2.jpg").unlink()
    fetch_files(files, tmp_path)
    assert unpacked(tmp_path) == IMAGES


@pytest.mark.parametrize("folder", ["mjhq30k_imgs", "imgs"])
def test_images_that_somebody_unpacked_are_enough(server, tmp_path, folder):
    files = files_of(server, IMAGES)
    fetch_files(files, tmp_path)
    (tmp_path / "mjhq30k/mjhq30k_imgs").rename(tmp_path / "mjhq30k/moved")
    (tmp_path / "mjhq30k/moved").rename(tmp_path / "mjhq30k" / folder)
    assert planned_files(files, tmp_path, ignore) == []
    (tmp_path / ARCHIVE).unlink()
    assert planned_files(files, tmp_path, ignore) == []


def test_unpacking_goes_on_where_it_was_stopped(server, tmp_path, monkeypatch):
    files = files_of(server, IMAGES)
    real, done = shutil.copyfileobj, []

    def stops(source, target):
        if done:
            target.write(b"half")
            raise KeyboardInterrupt
        done.append(real(source, target))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", stops)
        with pytest.raises(KeyboardInterrupt):
            fetch_files(files, tmp_path)
    assert unpacked(tmp_path) == {"art/1.jpg": IMAGES["art/1.jpg"]}
    first = (tmp_path / "mjhq30k/mjhq30k_imgs/art/1.jpg").stat()
    # A file of another size, as a killed unzip leaves it.
    (tmp_path / "mjhq30k/mjhq30k_imgs/logo").mkdir()
    (tmp_path / "mjhq30k/mjhq30k_imgs/logo/3.jpg").write_bytes(b"thr")
    server.requests.clear()
    said = []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fetch_files(files, tmp_path, said.append)
    assert server.requests == []
    assert f"{ARCHIVE}: 0.0 MB to unpack" in said
    assert said[-1].startswith(f"{ARCHIVE}: 2 files unpacked")
    assert unpacked(tmp_path) == IMAGES
    assert (tmp_path / "mjhq30k/mjhq30k_imgs/art/1.jpg").stat().st_mtime_ns == first.st_mtime_ns


def test_the_space_for_archive_and_images_is_counted(server, tmp_path, monkeypatch):
    files = files_of(server, IMAGES)
    assert planned_files(files, tmp_path, ignore)[1].measure() == Size(
        len(server.files[ARCHIVE]), 0, len(server.files[ARCHIVE])
    )
    needed = len(server.files[META]) + 2 * len(server.files[ARCHIVE])
    usage = shutil.disk_usage(tmp_path)
    server.requests.clear()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(AssetError, match=r"MB are needed, .* MB are free"):
        fetch_files(files, tmp_path)
    assert {command for command, *_ in server.requests} == {"HEAD"}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    fetch_files(files, tmp_path)
    # Once the archive is here, its directory says exactly what its members take.
    (tmp_path / "mjhq30k/mjhq30k_imgs/art/1.jpg").unlink()
    assert planned_files(files, tmp_path, ignore)[0].measure() == Size(0, 0, len(IMAGES["art/1.jpg"]))


def test_an_archive_of_other_images_is_said(server, tmp_path):
    listing = {**LISTING, "4": {"category": "art", "prompt": "b"}}
    with pytest.raises(
        AssetError, match=r"mjhq30k_imgs\.zip: does not contain all images that .*meta_data\.json names"
    ):
        fetch_files(files_of(server, IMAGES, listing), tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.jpg",
        "/outside.jpg",
        "art/../../outside.jpg",
        "mjhq30k_imgs/../../outside.jpg",
        "a\\..\\x.jpg",
        "a//x.jpg",
    ],
)
def test_no_member_leads_out_of_the_folder(tmp_path, name):
    # A name that zipfile would clean when writing is put in afterwards.
    (tmp_path / "a.zip").write_bytes(zipped({"art/1.jpg": b"first", name: b"x"}))
    with pytest.raises(AssetError, match="lies outside the folder") as caught:
        unpack(tmp_path / "a.zip", tmp_path / "inside/mjhq30k_imgs")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]


def test_no_member_is_a_link_or_comes_twice(tmp_path):
    link = zipfile.ZipInfo("art/1.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(AssetError, match=r"'art/1\.jpg' is not a plain file"):
        unpack(tmp_path / "a.zip", tmp_path / "imgs")
    (tmp_path / "b.zip").write_bytes(zipped({"art/1.jpg": b"one", "imgs/art/1.jpg": b"other"}))
    with pytest.raises(AssetError, match=r"contains 'imgs/art/1\.jpg' twice"):
        unpack(tmp_path / "b.zip", tmp_path / "imgs")


def test_a_damaged_archive_leaves_no_damaged_image(tmp_path):
    content = bytearray(zipped(IMAGES))
    content[content.index(b"threethree") + 1] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(AssetError, match=r"a\.zip: cannot be unpacked \(Bad CRC-32"):
        unpack(tmp_path / "a.zip", tmp_path / "imgs")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["1.jpg", "2.jpg", "a.zip"]
    (tmp_path / "a.zip").write_bytes(zipped(IMAGES)[:-30])
    with pytest.raises(AssetError, match="delete it and fetch it again"):
        bytes_to_unpack(tmp_path / "a.zip", tmp_path / "imgs")


def test_an_archive_of_another_hash_is_not_unpacked(server, tmp_path):
    meta, archive = files_of(server, IMAGES)
    other = RemoteFile(archive.path, archive.url, hashlib.sha256(b"other").hexdigest(), archive.unpack)
    with pytest.raises(AssetError, match="published is"):
        fetch_files([meta, other], tmp_path)
    assert unpacked(tmp_path) == {}
