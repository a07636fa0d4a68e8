"""Noise seeds and fingerprints: what they depend on, and that they stay what they are."""

import hashlib
import os
import struct
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sana_bench.cli.doctor import changed_files
from sana_bench.core import fingerprint as fingerprints
from sana_bench.core.fingerprint import (
    FileHashes,
    ManyHashes,
    canonical_json,
    directory_sha256,
    file_sha256,
    fingerprint,
)
from sana_bench.generators.noise import sample_noise
from sana_bench.results.schema import ImageRow, SummaryRecord
from sana_bench.results.store import Store
from sana_bench.suites.cells import noise_seed

SAMPLE = st.tuples(st.integers(0, 2**63 - 1), st.text(max_size=8), st.text(max_size=8), st.integers(0, 999))


def test_the_noise_seed_is_the_documented_one() -> None:
    """Written out from docs/suites.md: a change here makes every stored image another image."""
    parts = ("sana-bench noise v1", "0", "geneval", "00003", "2")
    content = b"".join(struct.pack("<Q", len(part)) + part.encode() for part in parts)
    expected = int.from_bytes(hashlib.sha256(content).digest()[:8], "little") & (2**63 - 1)
    assert noise_seed(0, "geneval", "00003", 2) == expected


@given(SAMPLE, SAMPLE)
def test_different_samples_have_different_seeds(one, other) -> None:
    assert (noise_seed(*one) == noise_seed(*other)) == (one == other)
    assert 0 <= noise_seed(*one) < 2**63


def test_noise_ignores_the_global_generator_and_leaves_it_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    noise = sample_noise(5, (8, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(sample_noise(5, (8, 8, 8)), noise)
    assert noise.dtype == torch.float32
    assert not torch.equal(sample_noise(6, (8, 8, 8)), noise)


def test_noise_is_standard_normal() -> None:
    """Of 2^20 draws, mean and variance lie within 5 standard errors: 5 / 2^10 and 5 * sqrt(2) / 2^10."""
    noise = sample_noise(0, (1, 1024, 1024)).double()
    assert abs(noise.mean().item()) < 5 / 2**10
    assert abs(noise.var().item() - 1) < 5 * 2**0.5 / 2**10


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.booleans(), max_size=5))
def test_fingerprints_ignore_key_order(value) -> None:
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)


def test_fingerprints_refuse_what_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"value": float("nan")})


def test_directory_hash_sees_names_and_content_and_not_the_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "weights").write_bytes(b"1")
        (tmp_path / name / "README.md").write_text(name)
    first = directory_sha256(tmp_path / "a", ignore=("README.md",))
    assert directory_sha256(tmp_path / "b", ignore=("README.md",)) == first
    assert directory_sha256(tmp_path / "a") != directory_sha256(tmp_path / "b")
    (tmp_path / "b" / "sub" / "weights").rename(tmp_path / "b" / "sub" / "other")
    assert directory_sha256(tmp_path / "b", ignore=("README.md",)) != first


def test_file_hashes_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    monkeypatch.setattr(fingerprints, "_SETTLED_NS", 0)
    cache = FileHashes()
    assert file_sha256(path, cache) == hashlib.sha256(b"one").hexdigest()
    assert file_sha256(path, FileHashes(dict.fromkeys(cache.learnt, "remembered"))) == "remembered"
    path.write_bytes(b"three")
    assert file_sha256(path, cache) == hashlib.sha256(b"three").hexdigest()


@pytest.mark.parametrize("age_s", [0, 3600])
def test_a_file_replaced_in_place_at_equal_size_and_time_has_another_hash(
    tmp_path: Path, monkeypatch, age_s
) -> None:
    """As rsync -t, tar and image builds do: also within one tick of the file system's clock."""
    path, cache = tmp_path / "weights", FileHashes()
    monkeypatch.setattr(fingerprints, "_now_ns", lambda: time.time_ns() + age_s * 10**9)

    def put(content: bytes) -> str:
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
        return file_sha256(path, cache)

    assert put(b"A" * 99) == hashlib.sha256(b"A" * 99).hexdigest()
    if age_s:
        time.sleep(0.05)  # a tick of the clock is 10 ms or less
    assert put(b"B" * 99) == hashlib.sha256(b"B" * 99).hexdigest()
    other = tmp_path / "other"
    other.write_bytes(b"C" * 99)
    os.utime(other, ns=(10**18, 10**18))
    other.rename(path)
    assert file_sha256(path, cache) == hashlib.sha256(b"C" * 99).hexdigest()


def test_a_hash_is_remembered_once_the_file_can_no_longer_change_unseen(tmp_path: Path, monkeypatch) -> None:
    path, cache = tmp_path / "file", FileHashes()
    path.write_bytes(b"one")
    file_sha256(path, cache)
    assert cache.learnt == {}
    monkeypatch.setattr(fingerprints, "_now_ns", lambda: path.stat().st_ctime_ns + 2 * 10**9)
    assert file_sha256(path, cache) == hashlib.sha256(b"one").hexdigest()
    assert list(cache.learnt) == [fingerprints.FileKey.of(path)]


@pytest.mark.parametrize("change", ["nothing", "copied", "written again", "made now"])
def test_a_file_keeps_its_hash_under_a_second_name(tmp_path: Path, monkeypatch, change) -> None:
    first, second, hashes = tmp_path / "first", tmp_path / "second", ManyHashes()
    first.write_bytes(b"one")
    later = first.stat().st_ctime_ns + 10 * 10**9
    monkeypatch.setattr(fingerprints, "_now_ns", lambda: later)
    digest = file_sha256(first, hashes)
    before = fingerprints.FileKey.of(first)
    if change == "copied":
        second.write_bytes(b"one")
    else:
        os.link(first, second)
    if change == "written again":
        second.write_bytes(b"two")
        os.utime(second, ns=(later, later))
    if change == "made now":
        monkeypatch.setattr(fingerprints, "_now_ns", lambda: before.mtime_ns + 10**9)
    fingerprints.keep_hash(before, second, hashes)
    kept = digest if change == "nothing" else None
    assert hashes.get(fingerprints.FileKey.of(second)) == kept


def test_hashes_of_very_many_files_are_those_that_were_put(tmp_path: Path) -> None:
    hashes = ManyHashes()
    key = fingerprints.FileKey("images/\udc80.png", 1, 2, 3, 4)
    assert hashes.get(key) is None
    hashes.put(key, "ab" * 32)
    assert hashes.get(key) == "ab" * 32
    assert hashes.get(key._replace(ctime_ns=4)) is None


def test_changed_weights_are_told_from_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"1")
    (tmp_path / "bad").write_bytes(b"2")
    digest = hashlib.sha256(b"1").hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  ./good\n{digest}  bad\n{digest}  gone\n")
    assert changed_files(tmp_path) == ["bad", "gone"]


def test_the_store_gives_back_what_it_was_given(tmp_path: Path) -> None:
    image = ImageRow("00001", 2, "p" * 64, "ok", "runs/r/x.png", "s" * 64, 10, 0.5, 4, "cpu", None)
    summary = SummaryRecord(
        "v", "b", "m", "overall", "k", "i", "m@1", 0.1 + 0.2, None, 1.0, 3, 4, 2, "fraction", True, "", False
    )
    with Store.open(tmp_path) as store:
        store.put_run("r", "suite", "micro", "f", "runs/r", "now")
        session = store.start_session("r", "now", "command")
        store.put_images("key", "r", [image], "now", session)
        store.put_summaries("r", ["v"], [summary])
    reader = Store.open_existing(tmp_path)
    assert reader is not None
    with reader:
        assert reader.images("key") == {("00001", 2): image}
        assert reader.summaries("r") == [summary]
        assert reader.sessions("r")[0]["images_generated"] == 1
