"""Manifests that somebody sent: what leads out of the folder or is no image is one line, and nothing of it is read or written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sana_bench.cli.main import execute

SECRET = "a secret of this machine"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(images / "good.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "outside.png")
    (tmp_path / "secret.txt").write_text(SECRET)
    return images


def score(folder: Path, tmp_path: Path, capsys, *entries: object) -> tuple[int, str]:
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    capsys.readouterr()
    code = execute(
        ["score", str(folder), "--metrics", "clip_score", "--tier", "micro", "-o", str(tmp_path / "out")]
    )
    out, err = capsys.readouterr()
    assert SECRET not in out + err
    told = [line for line in err.splitlines() if line.startswith("sana-bench: ")]
    assert len(told) == (1 if code == 2 else 0)
    assert not any("crashed" in line for line in told)
    return code, (told or [out])[0]


@pytest.mark.parametrize(
    "file",
    [
        "../outside.png",
        "/etc/passwd",
        "a/../../outside.png",
        "good.png\x00.txt",
        "..",
        "/dev/zero",
        "./../images/../outside.png",
    ],
)
def test_paths_that_lead_out_are_refused(folder, tmp_path, capsys, file) -> None:
    code, line = score(folder, tmp_path, capsys, {"prompt": "a red circle", "file": file})
    assert code == 2
    assert "manifest.jsonl:1: " in line
    assert "lies outside the folder" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "file", ["pipe.png", "folder.png", "link.png", "device.png", "gone.png", "x" * 4000, ".", ""]
)
def test_what_is_no_image_is_a_failed_sample_or_one_line(folder, tmp_path, capsys, file) -> None:
    {
        "pipe.png": lambda: os.mkfifo(folder / file),
        "folder.png": lambda: (folder / file).mkdir(),
        "link.png": lambda: (folder / file).symlink_to(tmp_path / "secret.txt"),
        "device.png": lambda: (folder / file).symlink_to("/dev/zero"),
        "gone.png": lambda: (folder / file).symlink_to(tmp_path / "nowhere.png"),
    }.get(file, lambda: None)()
    good = {"prompt": "a blue square", "file": "good.png"}
    code, _ = score(folder, tmp_path, capsys, {"prompt": "a red circle", "file": file}, good)
    assert code in (2, 3)


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "entry",
    [
        '{"prompt": "x", "file": "good.png", "index": -1}', '{"prompt": "x", "file": "good.png", "index": 1e400}',
        '{"prompt": "x", "file": "good.png", "index": true}', '{"prompt": 3, "file": "good.png"}', '{"prompt": "x"}',
        '{"prompt": "x", "file": "good.png", "id": ""}', "3", "null", "[]", "{", DEEP,
        '{"prompt": "\\ud800", "file": "good.png"}',
        '{"prompt": "x", "file": "\\ud800.png"}',
    ],
)  # fmt: skip
def test_entries_that_are_none_are_refused(folder, tmp_path, capsys, entry) -> None:
    code, line = score(folder, tmp_path, capsys, entry)
    assert code == 2
    assert str(folder) in line
    assert not (tmp_path / "out").exists()


def test_an_id_that_leads_out_names_a_place_inside(folder, tmp_path, capsys) -> None:
    before = set(tmp_path.rglob("*")) | {tmp_path / "out", folder / "manifest.jsonl"}
    code, _ = score(folder, tmp_path, capsys, {"prompt": "x", "file": "good.png", "id": "../../../../../x"})
    assert code == 0
    assert {path for path in tmp_path.rglob("*") if tmp_path / "out" not in path.parents} == before
