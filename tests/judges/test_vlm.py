"""The judges of any image-text-to-text model, with a tiny random LLaVA."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sana_bench import judges
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.core.registry import JUDGES, Entry
from sana_bench.judges.base import FirstToken, PromptJudge
from sana_bench.judges.review import REVIEW
from sana_bench.judges.vlm import INSTRUCTION, VisionLanguageModel, VLMJudge
from sana_bench.suites.schema import JudgeSpec
from tests.float64 import assert_as_exact, in_float64
from tests.judges.vlm_cases import write_vlm
from tests.tiny_qwen import write_qwen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_vlm(tmp_path_factory.mktemp("vlm"))


def _search_judge(folder: Path) -> PromptJudge:
    return judges.build(JudgeSpec(name="vision_language", weights=str(folder)), Path(), "cpu")


PICTURES = [np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8) for i in range(2)]
QUESTIONS = ["Is a cat red ?", "Is a dog ?"]


def test_probability_is_that_of_yes_against_no(folder):
    judge = VLMJudge(folder)
    assert judge.word_ids == ([3, 4], [5, 6])
    answers = judge.answers(PICTURES[0], QUESTIONS)
    by_hand = [_p_yes(judge.model, question) for question in QUESTIONS]
    exact = in_float64(lambda: [_p_yes(judge.model, question) for question in QUESTIONS])
    # Both are the network's numbers but for the order of its sums.
    assert_as_exact([answer.p_yes for answer in answers], by_hand, exact)
    for answer in answers:
        assert answer.text == ("yes" if answer.p_yes > 0.5 else "no")


def _p_yes(model: VisionLanguageModel, question: str) -> float:
    inputs = model.processor(
        images=[PICTURES[0]], text=[f"<image> {question} {INSTRUCTION}"], return_tensors="pt"
    )
    with torch.inference_mode():
        p = torch.softmax(model.network(**inputs).logits[0, -1].double(), dim=0)
    return float((p[3] + p[4]) / (p[3] + p[4] + p[5] + p[6]))


def test_answers_depend_on_image_and_question_alone(folder):
    judge = VLMJudge(folder)

    def alone() -> list[float | None]:
        return [judge.answers(PICTURES[0], [question])[0].p_yes for question in QUESTIONS]

    together = judge.answers(PICTURES[0], QUESTIONS)
    # Side by side the sums are taken in another order, no further from float64.
    assert_as_exact([answer.p_yes for answer in together], alone(), in_float64(alone))
    assert judge.answers(PICTURES[1], QUESTIONS) != together
    assert len({answer.p_yes for answer in together}) == 2


def test_what_does_not_load_is_refused(folder, tmp_path):
    with pytest.raises(AssetError, match=r"config\.json is missing"):
        VLMJudge(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(AssetError, match="not an image-text-to-text model"):
        VLMJudge(tmp_path).load()


@pytest.mark.parametrize("left", [0, 4, 200, -1])
def test_damaged_weights_are_one_clear_line(folder, tmp_path, left):
    copy = shutil.copytree(folder, tmp_path / "vlm")
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(AssetError, match="not an image-text-to-text model") as caught:
        VisionLanguageModel(copy).load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chat", [True, False], ids=["chat template", "no template"])
def test_prompts_are_judged_by_log_probabilities(tmp_path, chat):
    """Images are judged as each alone and as by hand: what is left are sums in another order, no further from float64."""
    judge = _search_judge(write_vlm(tmp_path, chat))
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
    model = VisionLanguageModel(tmp_path)
    inputs = model.processor(text=[text], images=[images[0]], return_tensors="pt")
    with torch.inference_mode():
        logs = torch.log_softmax(model.network(**inputs).logits[0, -1].double(), -1)
    by_hand = [float(logs[ids].exp().sum().log()) for ids in ([3, 4], [5, 6])]
    assert_as_exact((together[0].yes, together[0].no), by_hand, exact[0])


def test_a_card_changes_the_identity_of_metrics_judge_alone(folder, tmp_path):
    """Stored scores and searches hold these identities: what is hashed stays as it is."""
    copy = shutil.copytree(folder, tmp_path / "vlm")
    before = VLMJudge(copy).identity(), _search_judge(copy).identity()
    (copy / "README.md").write_text("card")
    after = VLMJudge(copy).identity(), _search_judge(copy).identity()
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
    for judge in (VLMJudge(copy), _search_judge(copy)):
        with pytest.raises(AssetError, match="its tokenizer has no single token for 'yes'"):
            judge.load()


def test_a_folder_that_is_no_judge_is_one_clear_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    judge = _search_judge(tmp_path)
    with pytest.raises(AssetError, match="not an image-text-to-text model") as caught:
        judge.load()
    assert "\n" not in str(caught.value)


def test_a_model_that_can_think_aloud_does_not(tmp_path):
    """It would begin every answer with its thoughts; what it is told is part of its identity."""
    judge = VisionLanguageModel(write_qwen(tmp_path, "qwen3_5"))
    assert judge.turn("Is it?").endswith("assistant\n<think>\n</think>\n\n")
    assert judge.identity()["thinking"] is False
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content[1].text }}")
    plain = VisionLanguageModel(tmp_path)
    assert plain.turn("Is it?") == "Is it?"
    assert "thinking" not in plain.identity()


def test_a_judge_that_reads_steers_a_search_whatever_it_is():
    """Yes and no are sums over spellings that are one token each; what is the beginning of a longer word does not count."""

    class Judge:
        def load(self): ...

        def identity(self):
            return {"judge": "mine"}

        def answer(self, image, questions, *, max_tokens=16): ...

        def read_text(self, image, request, *, max_tokens=1024): ...

        def probabilities(self, image, questions, spellings):
            assert questions == [REVIEW.format(prompt="a cat")]
            shares = {"yes": 0.2, "Yes": 0.3, " yes": 0.3, "no": 0.1, " no": 0.0}
            tokens = {"yes": 1, "Yes": 2, " yes": 2, "no": 3, " no": 4}
            return [
                [FirstToken(tokens.get(one, 9), shares.get(one, 0.9), one in tokens) for one in spellings[0]]
            ]

    with JUDGES.added(Entry("mine", lambda *_: Judge())):
        judge = judges.build(JudgeSpec(name="mine"), Path(), "cpu")
    assert judge.identity() == {"judge": "mine", "instruction": REVIEW}
    (found,) = judge.judge(["a cat"], np.zeros((1, 8, 8, 3), np.uint8))
    # Logarithms of two exact sums: one rounding each.
    assert (found.yes, found.no) == pytest.approx((np.log(0.5), np.log(0.1)), rel=1e-15)


def test_what_is_no_judge_is_refused():
    class Nothing:
        def load(self): ...

        def identity(self): ...

    with JUDGES.added(Entry("nothing", lambda *_: Nothing())):
        with pytest.raises(SuiteError, match="judge 'nothing' has no judge"):
            judges.build(JudgeSpec(name="nothing"), Path(), "cpu")
        with pytest.raises(SuiteError, match="judge 'nothing' scores images and answers no questions"):
            judges.build_reading(JudgeSpec(name="nothing"), Path(), "cpu")
