"""Prompts read back into claims: right on every evaluation prompt, and refused where they mean something else."""

import numpy as np
import pytest

from sana_bench.micro.captions import sample_record, scene_for
from sana_bench.micro.claims import Claim
from sana_bench.micro.dense_prompts import dense_scene, generate_dense_prompts, one_mistake
from sana_bench.micro.evaluation_set import geneval_prompts
from sana_bench.micro.prompt_claims import prompt_claims
from sana_bench.micro.vqa_data import VOCABULARY


def test_one_prompt_of_each_form():
    assert [claim.question for claim in prompt_claims("a photo of two red circles and an orange heart")] == [
        "Is there a circle?",
        "Is there a heart?",
        "Are the circles red?",
        "Is the heart orange?",
        "Are there exactly two circles?",
    ]
    assert prompt_claims("a photo of a circle left of a cross") == [
        Claim("entity", "circle"),
        Claim("entity", "cross"),
        Claim("relation", "circle", relation="left of", other="cross"),
    ]
    assert prompt_claims("a photo of three crosses")[1].question == "Are there exactly three crosses?"


def test_every_claim_of_an_evaluation_prompt_is_true_of_a_scene_that_shows_it():
    rng = np.random.default_rng(0)
    for record in geneval_prompts():
        scene = scene_for(record, rng)
        for claim in prompt_claims(record["prompt"]):
            assert claim.holds(scene), (record["prompt"], claim)


def test_every_training_caption_is_read():
    rng = np.random.default_rng(1)
    for kind in ("single_object", "two_object", "counting", "colors", "position", "color_attr", "dense"):
        for _ in range(20):
            record = sample_record(kind, rng)
            assert all(claim.holds(scene_for(record, rng)) for claim in prompt_claims(record["prompt"]))


def test_the_questions_of_a_dense_prompt_are_among_its_own():
    rng = np.random.default_rng(2)
    noticed = []
    for prompt in generate_dense_prompts():
        own = [claim for claim, _ in prompt.claims()]
        read = prompt_claims(prompt.text)
        # One object's number, and that of a group beside two others, is not asked for here or there.
        assert all(claim in own for claim in read if claim.kind != "count")
        assert {claim.kind for claim in read} >= {"entity", "color"}
        scene = dense_scene(prompt, rng)
        assert all(claim.holds(scene) for claim in read)
        wrong = dense_scene(one_mistake(prompt, rng), rng)
        noticed.append(not all(claim.holds(wrong) for claim in read))
    # What stays unseen is a second object where one was asked for, which GenEval's rules let pass too.
    assert np.mean(noticed) > 0.75


def test_questions_use_only_words_that_the_micro_judge_knows():
    words = {
        word
        for record in geneval_prompts()
        for claim in prompt_claims(record["prompt"])
        for word in claim.question.lower().removesuffix("?").split()
    }
    assert words <= set(VOCABULARY)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a red circle", "does not begin with"),
        ("a photo of a dog", "names no shapes"),
        ("a photo of a circles", "names no shapes"),
        ("a photo of two circle", "names no shapes"),
        ("a photo of five circles", "names no shapes"),
        ("a photo of a red circle and a blue circle", "a shape twice"),
        ("a photo of ", "names no shapes"),
    ],
)
def test_other_texts_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        prompt_claims(text)
