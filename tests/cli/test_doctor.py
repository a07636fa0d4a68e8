"""`sana-bench doctor` on the full tier's files: found where their readers find them, lacking ones with the command."""

import json

import pytest

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
def line_of(root):
    def found(start):
        lines, _ = diagnose({})
        (line,) = [line for line in lines if line.startswith(start)]
        return line

    return found


def test_the_table_of_dpg_bench(root, line_of):
    start = "the prompts and questions of dpg_bench"
    assert f"lacks {root / 'dpg_bench/dpg_bench.csv'} (`sana-bench fetch dpg_bench` downloads it" in line_of(
        start
    )
    (root / "dpg_bench/data").mkdir(parents=True)
    (root / "dpg_bench/data/test.parquet").write_bytes(b"")
    assert line_of(start).endswith(": is there")


@pytest.mark.parametrize("is_cached", [False, True])
def test_the_judge_of_dpg_bench(root, line_of, tmp_path, is_cached):
    assert f"lacks {root / 'mplug'} (`sana-bench fetch dpg_bench` downloads it" in line_of("dpg (")
    folder = root / "mplug"
    if is_cached:
        folder = tmp_path / "hub" / f"models--{MPLUG_ID.replace('/', '--')}" / "snapshots/main"
    write_tiny_vqa(folder, seed=0)
    assert line_of("dpg (").endswith(": is there")
    (folder / "vocab.txt").unlink()
    assert f"lacks {folder / 'vocab.txt'} (" in line_of("dpg (")


def test_judges_that_metrics_take_from_the_hub(root, line_of):
    start = "geneval2 (full tier), Qwen/Qwen3-VL-8B-Instruct"
    line = line_of(start)
    assert f"{start}: lacking" in line
    assert "hf download Qwen/Qwen3-VL-8B-Instruct" in line
    (root / "models/Qwen/Qwen3-VL-8B-Instruct").mkdir(parents=True)
    assert line_of(start).endswith(": is there")


def test_the_images_of_mjhq30k(root, line_of):
    start = "the prompts of mjhq30k"
    assert f"lacks {root / 'mjhq30k/meta_data.json'} (`sana-bench fetch mjhq30k` downloads it" in line_of(
        start
    )
    (root / "mjhq30k/mjhq30k_imgs/art").mkdir(parents=True)
    (root / "mjhq30k/meta_data.json").write_text(json.dumps({"1": {"category": "art", "prompt": "a"}}))
    line = line_of(start)
    assert "1 of 1 MJHQ-30K images are missing" in line
    assert "`sana-bench fetch mjhq30k` downloads mjhq30k_imgs.zip from huggingface.co/datasets/" in line
    (root / "mjhq30k/mjhq30k_imgs/art/1.jpg").write_bytes(b"")
    assert line_of(start).endswith(": is there")


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
        ": cannot be used: ",
        "not ready",
    ):
        assert word in out
