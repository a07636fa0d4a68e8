"""`sana-bench doctor` on the full tier's files: found where their readers find them, lacking ones with the command."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from sana_bench.cli.doctor import diagnose
from sana_bench.cli.main import execute
from sana_bench.judges.mplug.judge import MPLUG_ID
from tests.tiny_weights import write_tiny_vqa


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "data"


@pytest.fixture
def state_of(root):
    """What the table says of an item, `here` and how to get it, and the line about what it lacks."""

    def found(item):
        lines, _ = diagnose({})
        (row,) = [line for line in lines if line.startswith(f"{item} ")]
        cells = re.split(r" {2,}", row)
        told = [line for line in lines if line.startswith(f"! {item}: ")]
        return cells[4], cells[5] if len(cells) > 5 else "", told

    return found


def test_the_table_of_dpg_bench(root, state_of):
    assert state_of("dpg_bench_questions") == ("no", "sana-bench fetch dpg_bench", [])
    (root / "dpg_bench/data").mkdir(parents=True)
    (root / "dpg_bench/data/test.parquet").write_bytes(b"")
    assert state_of("dpg_bench_questions") == ("yes", "", [])


@pytest.mark.parametrize("is_cached", [False, True])
def test_the_judge_of_dpg_bench(root, state_of, tmp_path, is_cached):
    assert state_of("mplug") == ("no", "sana-bench fetch dpg_bench", [])
    folder = root / "mplug"
    if is_cached:
        folder = tmp_path / "hub" / f"models--{MPLUG_ID.replace('/', '--')}" / "snapshots/main"
    write_tiny_vqa(folder, seed=0)
    assert state_of("mplug") == ("yes", "", [])
    (folder / "vocab.txt").unlink()
    lacks = f"! mplug: lacks {folder / 'vocab.txt'}"
    assert state_of("mplug") == ("partly", "sana-bench fetch dpg_bench", [lacks])


def test_judges_that_metrics_take_from_the_hub(root, state_of):
    name = "Qwen/Qwen3-VL-8B-Instruct"
    assert state_of(name) == ("no", "sana-bench fetch geneval2", [])
    folder = root / "models" / name
    folder.mkdir(parents=True)
    state, _, (told,) = state_of(name)
    assert (state, told) == ("partly", f"! {name}: {folder}: missing weights, *.safetensors")
    save_file({"a": torch.zeros(2)}, folder / "model.safetensors")
    assert state_of(name) == ("yes", "", [])


def test_the_images_of_mjhq30k(root, state_of):
    assert state_of("mjhq30k_images") == ("no", "sana-bench fetch mjhq30k", [])
    (root / "mjhq30k/mjhq30k_imgs/art").mkdir(parents=True)
    (root / "mjhq30k/meta_data.json").write_text(json.dumps({"1": {"category": "art", "prompt": "a"}}))
    state, how, (told,) = state_of("mjhq30k_images")
    assert (state, how) == ("partly", "sana-bench fetch mjhq30k")
    assert "1 of 1 MJHQ-30K images are missing" in told
    (root / "mjhq30k/mjhq30k_imgs/art/1.jpg").write_bytes(b"")
    assert state_of("mjhq30k_images") == ("yes", "", [])


def test_doctor_reports_environment_and_gaps(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tmp_path / "none"))
    assert execute(["doctor"]) == 2
    out = capsys.readouterr().out
    for word in (
        "python ",
        "torch ",
        "cpu: ",
        "memory: ",
        "! micro weights sana-micro",
        "Efficient-Large-Model/SANA1.5_4.8B_1024px_diffusers",
        "about 16.0 GB",
        "not ready",
    ):
        assert word in out
