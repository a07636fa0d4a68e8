"""The judge that a metric's parameters name."""

from pathlib import Path

import numpy as np
import pytest

from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.judges.choice import PARAMETERS, choose, model_label
from sana_bench.judges.vlm import VisionLanguageModel
from tests.tiny_qwen import write_qwen

IMAGE = np.zeros((56, 56, 3), np.uint8)


def test_a_folder_is_an_image_text_to_text_model(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    write_qwen(tmp_path / "models" / "Qwen" / "Tiny-VL_Instruct", "qwen3_vl")
    chosen = choose("metric 'x'", {**PARAMETERS, "judge": "Qwen/Tiny-VL_Instruct"}, tmp_path / "cache", "cpu")
    assert chosen.label == "tiny-vl-instruct"
    model = VisionLanguageModel(tmp_path / "models" / "Qwen" / "Tiny-VL_Instruct")
    assert chosen.judge.identity() == model.identity()
    said = chosen.judge.probabilities(IMAGE, ["Is it?", "Or not?"], [["Yes"], ["No"]])
    assert said == model.probabilities(IMAGE, ["Is it?", "Or not?"], [["Yes"], ["No"]])
    (kept,) = (tmp_path / "cache" / "answers").rglob("*.json")
    assert "Is it?" in kept.read_text()


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ({}, SuiteError, "metric 'x' needs the parameter judge: a hub id or folder"),
        ({"judge": "clip_score"}, SuiteError, "judge 'clip_score' scores images and answers no questions"),
        ({"judge": "a/b", "precision": "int8"}, SuiteError, "precision is 'int8'; one of fp32, bf16, fp16"),
        ({"judge": "./"}, SuiteError, r"metric 'x': judge './' names no model"),
        ({"judge": "Qwen/Absent"}, AssetError, "Absent"),
    ],
)
def test_what_is_no_judge_is_refused(tmp_path, monkeypatch, parameters, kind, message):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    with pytest.raises(kind, match=message):
        choose("metric 'x'", {**PARAMETERS, **parameters}, tmp_path, "cpu")


def test_labels():
    assert model_label("Qwen/Qwen3-VL-8B-Instruct") == "qwen3-vl-8b-instruct"
