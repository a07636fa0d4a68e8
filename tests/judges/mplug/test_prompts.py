"""mPLUG as the judge of a search: log-odds of its answers, and the rule that makes one pair of scores of them."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sana_bench import judges
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.generators.best_of_n.files import total_cost
from sana_bench.generators.best_of_n.tournament import beats
from sana_bench.judges.mplug.judge import MAX_QUESTION_TOKENS, MPlugJudge, image_to_pixels
from sana_bench.judges.mplug.network import START
from sana_bench.judges.mplug.prompts import VQAJudge, claim_questions, whole_question, yes_no
from sana_bench.suites.schema import JudgeSpec
from tests.float64 import assert_as_exact, in_float64
from tests.suite_files import FEW_STEPS, write_suite, write_variant
from tests.tiny_weights import write_tiny_vqa

PROMPT = "a photo of a red circle left of a blue square"


@pytest.fixture(scope="module")
def vqa(tmp_path_factory) -> MPlugJudge:
    return MPlugJudge(write_tiny_vqa(tmp_path_factory.mktemp("judge") / "vqa", seed=0))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)


def losses(vqa: MPlugJudge, image: np.ndarray, question: str, word: str) -> float:
    """Minus the log-probability of one word as the answer, by the loss that the network is trained with."""
    asked = vqa.tokenizer(
        question.lower(), padding="max_length", max_length=MAX_QUESTION_TOKENS, return_tensors="pt"
    )
    seen = vqa.network.encode_images(image_to_pixels(image, 64)[None])
    answer = torch.tensor([[START, vqa.tokenizer.convert_tokens_to_ids(word)]])
    known = vqa.network.known(seen, asked["input_ids"], asked["attention_mask"])
    return float(vqa.network.answer_loss(answer, *known))


@torch.inference_mode()
def test_log_odds_are_the_difference_of_the_training_losses(vqa, images):
    """In float64 to 1e-12, a hundred roundings of losses around 6. In float32 the batch of questions changes the order of
    sums, and odds are held to the error of the losses.
    """
    questions = claim_questions(PROMPT)

    def by_losses() -> list[float]:
        return [losses(vqa, images[0], q, "no") - losses(vqa, images[0], q, "yes") for q in questions]

    odds, exact = vqa.log_odds(images[0], questions), in_float64(by_losses)
    np.testing.assert_allclose(
        in_float64(lambda: vqa.log_odds(images[0], questions)), exact, rtol=0, atol=1e-12
    )
    assert_as_exact(odds, by_losses(), exact)
    assert np.ptp(odds) > 1e-3


def test_the_answer_is_the_geometric_mean_of_yes(vqa, images):
    judge = VQAJudge(vqa, claim_questions, "claims@1")
    answers = judge.judge([PROMPT] * len(images), images)
    for image, answer in zip(images, answers, strict=True):
        chances = [1 / (1 + math.exp(-odds)) for odds in vqa.log_odds(image, claim_questions(PROMPT))]
        assert len(chances) == 5
        mean = math.prod(chances) ** (1 / 5)
        # float64 of the same numbers: 1 - mean loses up to four digits where the network is sure.
        assert math.exp(answer.yes) == pytest.approx(mean, rel=1e-12)
        assert math.exp(answer.no) == pytest.approx(1 - mean, rel=1e-8)
    # Exact: every image goes through the network alone.
    assert judge.judge([PROMPT], images[2:3]) == answers[2:3]


# Means nearer than 1e-9 may change places by the rounding of float64 logarithms.
@given(st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=1, max_size=5))
def test_the_larger_mean_always_wins(pairs):
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    means = [float(np.mean(-np.log1p(np.exp(-side)))) for side in (first, second)]
    if abs(means[0] - means[1]) > 1e-9:
        assert beats(yes_no(first), yes_no(second)) == (means[0] > means[1])


@pytest.mark.parametrize("odds", [[0.0], [1e4], [-1e4], [800.0, 800.0], [1e4, -1e4]])
def test_answers_are_finite_however_sure(odds):
    answer = yes_no(np.array(odds))
    assert math.isfinite(answer.yes)
    assert math.isfinite(answer.no)
    assert answer.says_yes == (min(odds) > 0)


def test_published_weights_are_asked_one_question(vqa, images, tmp_path):
    write_tiny_vqa(tmp_path / "mplug", seed=0)
    judge = judges.build(JudgeSpec(name="vqa", weights="./mplug"), tmp_path, "cpu")
    assert whole_question("a cat. ") == ["Does the image show a cat?"]
    answer = judge.judge(["A cat."], images[:1])[0]
    odds = vqa.log_odds(images[0], ["does the image show a cat?"])[0]
    assert answer.yes == pytest.approx(-math.log1p(math.exp(-odds)), rel=1e-9)
    assert judge.identity()["questions"] == "Does the image show {prompt}?"


def test_micro_weights_judge_micro_prompts_only(vqa, images):
    judge = VQAJudge(vqa, claim_questions, "claims@1")
    with pytest.raises(SuiteError, match="prompts of the micro world only: 'a dog' names no shapes"):
        judge.judge(["a photo of a dog"], images[:1])


def test_missing_weights_of_mplug_are_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    published = "xingjianleng/mplug_visual-question-answering_coco_large_en"
    for weights_, message in (
        (
            None,
            r"^judge vqa: micro weights 'vqa' are not in .*sana-bench train configs/train/vqa_micro\.yaml",
        ),
        (published, rf"^judge vqa: .*hf download {published}"),
        ("./none", "there is no folder"),
    ):
        with pytest.raises(AssetError, match=message) as caught:
            judges.build(JudgeSpec(name="vqa", weights=weights_), tmp_path, "cpu")
        assert "\n" not in str(caught.value)


def test_a_whole_micro_run_judged_by_questions(tmp_path, tiny_weights_root, monkeypatch, capsys):
    from sana_bench.cli.main import execute

    root = tmp_path / "weights"
    shutil.copytree(tiny_weights_root, root)
    write_tiny_vqa(root / "vqa", seed=0)
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(root))
    search = ("generator: best_of_n", "best_of_n: {candidates: 2, judge: {name: vqa}}")
    write_variant(tmp_path, "small", *search, FEW_STEPS, tier="micro", weights="micro://sana-micro")
    benchmark = "{name: geneval, images_per_prompt: 1, metrics: [clip_score]}"
    suite = write_suite(tmp_path, benchmark, ["small"], tier="micro")
    output = tmp_path / "results"
    # A limit leaves the result incomplete, which the exit code says.
    assert execute(["run", str(suite), "--limit", "6", "--tier", "micro", "-o", str(output)]) == 3
    assert "6 images to generate" in capsys.readouterr().out
    cost = total_cost(output / "cache" / "search")
    assert cost.images == 12
    assert cost.judge_seconds > 0
    for path in Path(output / "cache" / "search").rglob("search.json"):
        for yes, no in json.loads(path.read_text())["answers"]:
            # The two are a probability and its rest; 1e-9 is rounding.
            assert math.exp(yes) + math.exp(no) == pytest.approx(1, abs=1e-9)
