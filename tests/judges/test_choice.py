"""The judge that a metric's parameters name."""

from pathlib import Path

import numpy as np
import pytest

from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.judges.choice import PARAMETERS, choose, judge_label
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
        (
            {"judge": "a/b", "precision": "int8"},
            SuiteError,
            "metric 'x': precision is 'int8'; one of fp32, bf16, fp16",
        ),
        ({"judge": "./"}, SuiteError, r"metric 'x': judge './' names no model"),
        ({"judge": "Qwen/Absent"}, AssetError, "Absent"),
        (
            {"judge": "a/b", "at_once": 3},
            SuiteError,
            "judge 'a/b' is on this machine; at_once belongs to a server",
        ),
        ({"judge": "./served-b"}, SuiteError, "judge './served-b' has the name of a served one"),
        (
            {"judge": "b", "server": "localhost:80"},
            SuiteError,
            "metric 'x': address: must be an address such as",
        ),
        (
            {"judge": "b", "server": "http://me:secret@a/v1"},
            SuiteError,
            "address: must hold no key or password",
        ),
        (
            {"judge": "b", "server": "http://a/v1?key=secret"},
            SuiteError,
            "address: must hold no key or password",
        ),
        (
            {"judge": "b", "server": "http://a", "at_once": 0},
            SuiteError,
            "at_once: Input should be greater than",
        ),
        ({"judge": "b", "server": "http://a", "precision": "bf16"}, SuiteError, "leave precision out"),
    ],
)
def test_what_is_no_judge_is_refused(tmp_path, monkeypatch, parameters, kind, message):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    with pytest.raises(kind, match=message) as caught:
        choose("metric 'x'", {**PARAMETERS, **parameters}, tmp_path, "cpu")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "label"),
    [("Qwen/Qwen3-VL-8B-Instruct", "qwen3-vl-8b-instruct"), ("llava_1.5", "llava-1.5")],
)
def test_labels(name, label):
    assert judge_label({"judge": name}) == label
    assert judge_label({"judge": name, "server": "http://a"}) == f"served-{label}"


def test_a_served_judge_is_another_than_the_same_model_here(tmp_path):
    """By its label, and so by its protocol; building it asks nothing, so a server may be down."""
    parameters = {**PARAMETERS, "judge": "Qwen/Qwen3-VL-8B-Instruct", "server": "http://localhost:1/v1/"}
    chosen = choose("metric 'x'", parameters, tmp_path, "cpu")
    assert chosen.label == "served-qwen3-vl-8b-instruct"
    assert chosen.judge.identity() == {
        "judge": "served@1", "model": "Qwen/Qwen3-VL-8B-Instruct", "server": "http://localhost:1/v1",
        "top_logprobs": 20, "thinking": True,
    }  # fmt: skip
    quick = choose("metric 'x'", {**parameters, "at_once": 64, "timeout_s": 5}, tmp_path, "cpu")
    assert quick.judge.identity() == chosen.judge.identity()
    assert not list(tmp_path.iterdir())
