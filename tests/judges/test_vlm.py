"""The judges of any image-text-to-text model, with a tiny random LLaVA."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sana_bench import judges
from sana_bench.core.errors import AssetError
from sana_bench.judges.vlm import INSTRUCTION, REVIEW, VLMJudge, VLMPromptJudge
from sana_bench.suites.schema import JudgeSpec
from tests.float64 import assert_as_exact, in_float64
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
        p = torch.softmax(judge.network(**inputs).logits[0, -1].double(), dim=0)
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
    with pytest.raises(AssetError, match="not an image-text-to-text model"):
        _ = VLMJudge(tmp_path).network


@pytest.mark.parametrize("chat", [True, False], ids=["chat template", "no template"])
def test_prompts_are_judged_by_log_probabilities(tmp_path, chat):
    """A batch, whose padding on the left is masked, is judged as its images are alone and as by hand: what is left are sums
    in another order, no further from float64.
    """
    judge = judges.build(
        JudgeSpec(name="vision_language", weights=str(write_vlm(tmp_path, chat))), Path(), "cpu"
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 64, 64, 3), np.uint8)
    prompts = ["a red cat", "a cat", "a red red red dog"]

    def scores(index: int) -> list[float]:
        alone = judge.judge(prompts[index : index + 1], images[index : index + 1])[0]
        return [alone.yes, alone.no]

    together = judge.judge(prompts, images)
    assert all(answer.yes < 0 and answer.no < 0 for answer in together)
    assert len({answer.yes for answer in together}) == 3
    exact = in_float64(lambda: [scores(index) for index in range(3)])
    alone = [scores(index) for index in range(3)]
    assert_as_exact([(answer.yes, answer.no) for answer in together], alone, exact)
    # By hand for one image: yes and no are two tokens each, with and without a capital.
    text = f"<image> {REVIEW.format(prompt=prompts[0])}"
    inputs = judge.processor(text=[text], images=[images[0]], return_tensors="pt")
    with torch.inference_mode():
        logs = torch.log_softmax(judge.network(**inputs).logits[0, -1].double(), -1)
    by_hand = [float(logs[ids].exp().sum().log()) for ids in ([3, 4], [5, 6])]
    assert_as_exact((together[0].yes, together[0].no), by_hand, exact[0])


def test_a_card_changes_the_identity_of_metrics_judge_alone(folder, tmp_path):
    """Stored scores and searches hold these identities: what is hashed stays as it is."""
    copy = shutil.copytree(folder, tmp_path / "vlm")
    before = VLMJudge(copy).identity(), VLMPromptJudge(copy).identity()
    (copy / "README.md").write_text("card")
    after = VLMJudge(copy).identity(), VLMPromptJudge(copy).identity()
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True]
    assert before[0] == {
        "network": "image-text-to-text", "instruction": "Answer with Yes or No.", "precision": "fp32",
        "weights_sha256": before[0]["weights_sha256"],
    }  # fmt: skip
    assert before[1] == {
        "judge": "vision_language@1", "weights_sha256": before[0]["weights_sha256"], "precision": "fp32",
        "instruction": REVIEW,
    }  # fmt: skip


def test_a_vocabulary_without_yes_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "vlm")
    path = copy / "tokenizer.json"
    path.write_text(path.read_text().replace('"Yes"', '"Yea"').replace('"yes"', '"yea"'))
    for judge in (VLMJudge(copy), VLMPromptJudge(copy)):
        with pytest.raises(AssetError, match="its tokenizer has no single token for 'yes'"):
            judge.load()


def test_a_folder_that_is_no_judge_is_one_clear_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    judge = judges.build(JudgeSpec(name="vision_language", weights=str(tmp_path)), Path(), "cpu")
    with pytest.raises(AssetError, match="not an image-text-to-text model") as caught:
        judge.load()
    assert "\n" not in str(caught.value)
