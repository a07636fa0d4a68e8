"""The judge of any image-text-to-text model, with a tiny random LLaVA."""

import numpy as np
import pytest
import torch

from sana_bench.core.errors import AssetError
from sana_bench.judges.vlm import INSTRUCTION, VLMJudge, vlm_protocol
from tests.judges.vlm_cases import write_vlm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_vlm(tmp_path_factory.mktemp("vlm"))


PICTURES = [np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8) for i in range(2)]
QUESTIONS = ["Is a cat red ?", "Is a dog ?"]


def test_probability_is_that_of_yes_against_no(folder):
    judge = VLMJudge(folder)
    assert judge.word_ids == ([3, 4], [5, 6])
    answers = judge.answers(PICTURES[0], QUESTIONS)
    inputs = judge.processor(
        images=[PICTURES[0]], text=[f"<image> {QUESTIONS[1]} {INSTRUCTION}"], return_tensors="pt"
    )
    with torch.inference_mode():
        p = torch.softmax(judge.model(**inputs).logits[0, -1].double(), dim=0)
    expected = float((p[3] + p[4]) / (p[3] + p[4] + p[5] + p[6]))
    # The same network on the same input; only the last softmax is written otherwise.
    assert answers[1].p_yes == pytest.approx(expected, rel=1e-9)
    for answer in answers:
        assert answer.text == ("yes" if answer.p_yes > 0.5 else "no")


def test_answers_depend_on_image_and_question_alone(folder):
    judge = VLMJudge(folder)
    together = judge.answers(PICTURES[0], QUESTIONS)
    assert [judge.answers(PICTURES[0], [q])[0] for q in QUESTIONS] == together
    assert judge.answers(PICTURES[1], QUESTIONS) != together
    assert len({answer.p_yes for answer in together}) == 2


def test_what_does_not_load_is_refused(folder, tmp_path):
    with pytest.raises(AssetError, match=r"config\.json is missing"):
        VLMJudge(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(AssetError, match="cannot be loaded"):
        _ = VLMJudge(tmp_path).model


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("Qwen/Qwen3-VL-8B-Instruct", "dpg/vlm-qwen3-vl-8b-instruct@1"),
        ("llava_1.5", "dpg/vlm-llava-1.5@1"),
    ],
)
def test_the_judge_is_part_of_the_protocol(name, protocol):
    assert vlm_protocol(name) == protocol
