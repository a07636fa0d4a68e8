"""The CLIP score and ImageReward as judges: their numbers are the metrics' networks'."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sana_bench import judges
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.generators.best_of_n.metric_judges import ClipJudge, ImageRewardJudge
from sana_bench.generators.best_of_n.tournament import beats
from sana_bench.metrics.image_reward.metric import RewardFiles
from sana_bench.suites.schema import JudgeSpec
from tests.float64 import assert_as_exact, in_float64
from tests.metrics.image_reward.test_network import CONFIG, GOLDEN, SHARED, VISION, weights


@pytest.fixture(scope="module")
def reward_judge(tmp_path_factory) -> ImageRewardJudge:
    folder = tmp_path_factory.mktemp("image_reward")
    paths = [folder / name for name in ("ImageReward.pt", "med_config.json", "vocab.txt")]
    torch.save(weights(), paths[0])
    paths[1].write_text(json.dumps(CONFIG))
    paths[2].write_text("\n".join(SHARED.vocabulary()) + "\n", encoding="utf-8")
    return ImageRewardJudge(RewardFiles(*paths, VISION), "cpu")


@pytest.mark.parametrize("picture", SHARED.IMAGES, ids=lambda picture: picture[0])
def test_rewards_are_those_of_the_original_package(reward_judge, picture):
    name, width, height = picture
    images = np.stack([SHARED.image(name, width, height)] * len(SHARED.PROMPTS))
    answers = reward_judge.judge(SHARED.PROMPTS, images)
    # 1e-4 as for the metric: fp32 sums in another order, amplified by five layers.
    expected = GOLDEN["scores"]["png"][name]
    assert [answer.yes for answer in answers] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    for (one, first), (two, second) in itertools.permutations(enumerate(answers), 2):
        assert beats(first, second) == (expected[one] > expected[two])


def test_a_reward_does_not_depend_on_the_batch(reward_judge):
    """Batches are padded to one size; a row's place in it may change the order of sums, not their error against float64."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (11, 48, 40, 3), np.uint8)
    prompts = [SHARED.PROMPTS[place % len(SHARED.PROMPTS)] for place in range(11)]
    together = reward_judge.judge(prompts, images)
    assert len(together) == 11
    alone = [
        reward_judge.judge([prompt], image[None])[0] for prompt, image in zip(prompts, images, strict=True)
    ]
    exact = in_float64(lambda: [answer.yes for answer in reward_judge.judge(prompts, images)])
    assert_as_exact([answer.yes for answer in alone], [answer.yes for answer in together], exact)


def test_missing_files_of_image_reward_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    with pytest.raises(
        AssetError, match=r"^judge image_reward: .*ImageReward\.pt is missing.*hf download"
    ) as caught:
        judges.build(JudgeSpec(name="image_reward"), tmp_path, "cpu")
    assert "med_config.json" in str(caught.value)
    assert "vocab.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_files_are_found_where_the_metric_finds_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_DATA", str(tmp_path))
    (tmp_path / "image_reward").mkdir()
    for name in ("med_config.json", "vocab.txt"):
        (tmp_path / "image_reward" / name).write_text(name)
    torch.save({}, tmp_path / "image_reward" / "ImageReward.pt")
    judge = judges.build(JudgeSpec(name="image_reward"), tmp_path, "cpu")
    assert len(judge.identity()["weights_sha256"]) == 64
    with pytest.raises(AssetError):
        judge.load()


def test_the_micro_reward_model_is_a_judge_too(tmp_path, monkeypatch):
    monkeypatch.setenv("SANA_BENCH_MICRO_WEIGHTS", str(tmp_path))
    spec = JudgeSpec(name="image_reward", weights="micro://reward")
    with pytest.raises(AssetError, match=r"configs/train/reward_micro\.yaml"):
        judges.build(spec, tmp_path, "cpu")
    (tmp_path / "reward").mkdir()
    for name in ("model.safetensors", "med_config.json", "vocab.txt", "vision_config.json"):
        (tmp_path / "reward" / name).write_text(name)
    named = judges.build(spec, tmp_path, "cpu").identity()
    assert (
        named == judges.build(JudgeSpec(name="image_reward", weights="./reward"), tmp_path, "cpu").identity()
    )
    assert len(named["vision_sha256"]) == 64


def test_the_clip_judge_ranks_as_the_clip_score_does(tiny_weights_root: Path):
    from sana_bench.metrics.clip.micro_features import ClipFeatures

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 64, 64, 3), np.uint8)
    prompts = ["a photo of a red circle"] * 5
    answers = ClipJudge(tiny_weights_root / "clip").judge(prompts, images)
    features = ClipFeatures(tiny_weights_root / "clip")
    cosines = features.network.encode_images(images) @ features.of_texts(prompts[:1])[0]
    assert [answer.yes for answer in answers] == pytest.approx(100 * cosines, abs=1e-4)
    for first, second in itertools.permutations(range(5), 2):
        assert beats(answers[first], answers[second]) == (answers[first].yes > answers[second].yes)
    with pytest.raises(SuiteError, match="32x32"):
        ClipJudge(tiny_weights_root / "clip").judge(prompts, images[:, :32, :32])
