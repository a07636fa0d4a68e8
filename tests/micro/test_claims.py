"""Questions about scenes and dense prompts: their truth, their stored set, and the stream that trains the judge."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import sana_bench.micro
from sana_bench.benchmarks.dpg_bench import DPGBench
from sana_bench.metrics.dpg.rules import broad_category, check_graph
from sana_bench.micro.captions import VOCABULARY as CAPTION_WORDS
from sana_bench.micro.claims import Claim, direction, related_pairs, sample_claim
from sana_bench.micro.dense_prompts import (
    DensePrompt,
    Group,
    dense_prompts,
    dense_scene,
    generate_dense_prompts,
    one_mistake,
    sample_dense_prompt,
)
from sana_bench.micro.vqa_data import VOCABULARY, _quarter, sample_scene, sample_vqa_batch
from sana_bench.micro.world import COLORS, SHAPES, Scene, SceneObject

GREY = (190, 190, 190)


def scene(*objects):
    """A scene of (shape, colour, x, y)."""
    return Scene(tuple(SceneObject(s, c, x, y, 8.0, COLORS[c]) for s, c, x, y in objects), GREY)


PAIR = scene(("circle", "red", 16, 30), ("square", "blue", 46, 32))
MIXED = scene(("circle", "red", 12, 12), ("circle", "blue", 50, 12), ("star", "red", 12, 50))


@pytest.mark.parametrize(
    ("claim", "shown", "truth"),
    [
        (Claim("entity", "circle"), PAIR, True),
        (Claim("entity", "star"), PAIR, False),
        (Claim("color", "circle", color="red"), PAIR, True),
        (Claim("color", "circle", color="blue"), PAIR, False),
        (Claim("color", "star", color="red"), PAIR, False),
        (Claim("color", "circle", color="red", count=2), MIXED, False),
        (Claim("count", "circle", count=2), MIXED, True),
        (Claim("count", "circle", count=1), MIXED, False),
        (Claim("relation", "circle", relation="left of", other="square"), PAIR, True),
        (Claim("relation", "circle", relation="right of", other="square"), PAIR, False),
        (Claim("relation", "circle", relation="above", other="square"), PAIR, False),
        (Claim("relation", "star", relation="left of", other="square"), PAIR, False),
    ],
)
def test_truth_of_claims(claim, shown, truth):
    assert claim.holds(shown) is truth


@pytest.mark.parametrize(
    ("claim", "question"),
    [
        (Claim("entity", "circle"), "Is there a circle?"),
        (Claim("color", "cross", color="red"), "Is the cross red?"),
        (Claim("color", "cross", color="red", count=2), "Are the crosses red?"),
        (Claim("count", "ring", count=1), "Is there exactly one ring?"),
        (Claim("count", "ring", count=3), "Are there exactly three rings?"),
        (Claim("relation", "ring", relation="above", other="star"), "Is the ring above the star?"),
    ],
)
def test_questions_of_claims(claim, question):
    assert claim.question == question


def test_diagonal_places_are_unclear():
    diagonal = scene(("circle", "red", 12, 12), ("square", "blue", 48, 48))
    assert not Claim("relation", "circle", relation="left of", other="square").is_clear(diagonal)
    assert direction(diagonal, "circle", "square") is None
    assert direction(PAIR, "circle", "square") == "left of"
    assert direction(MIXED, "circle", "star") is None  # there are two circles, on two sides


def test_stored_prompts_are_those_drawn():
    path = Path(sana_bench.micro.__file__).parent / "data" / "dense_prompts.jsonl"
    drawn = [p.record(f"dense{i:03d}") for i, p in enumerate(generate_dense_prompts())]
    assert path.read_text() == "".join(json.dumps(record) + "\n" for record in drawn)


def test_prompts_fit_the_micro_world():
    records = dense_prompts()
    assert len({record["text"] for record in records}) == len(records) == 100
    for record in records:
        # SANA's micro text encoder takes 16 tokens with the start token.
        assert len(record["text"].split()) <= 15
        assert set(record["text"].split()) <= set(CAPTION_WORDS)
        assert check_graph(record["questions"])
    kinds = Counter(broad_category(q) for record in records for q in record["questions"])
    assert set(kinds) == {"entity", "attribute", "other", "relation"}
    assert sum(kinds.values()) == 700


def test_benchmark_hands_out_the_stored_prompts():
    benchmark = DPGBench()
    prompts = benchmark.prompts("micro")
    assert [prompt.id for prompt in prompts] == [record["item_id"] for record in dense_prompts()]
    assert prompts[0].metadata["questions"] == dense_prompts()[0]["questions"]


def test_scenes_show_their_prompt_and_mistakes_do_not():
    rng = np.random.default_rng(3)
    for prompt in generate_dense_prompts():
        claims = [claim for claim, _ in prompt.claims()]
        assert all(claim.holds(dense_scene(prompt, rng)) for claim in claims), prompt.text
        wrong = one_mistake(prompt, rng)
        shown = dense_scene(wrong, rng)
        assert not all(claim.holds(shown) for claim in claims), (prompt.text, wrong)


def test_dependencies_are_those_of_the_objects_named():
    prompt = DensePrompt((Group(2, "red", "cross"), Group(1, "blue", "star")))
    assert prompt.text == "a photo of two red crosses and a blue star"
    assert [parents for _, parents in prompt.claims()] == [[], [], [1], [2], [1], [2]]
    related = sample_dense_prompt("related pair", np.random.default_rng(0))
    assert related.claims()[-1][1] == [1, 2]
    with pytest.raises(ValueError, match="unknown form"):
        sample_dense_prompt("quartet", np.random.default_rng(0))


def test_sampled_claims_are_clear_and_as_asked():
    rng = np.random.default_rng(1)
    for turn in range(200):
        shown = sample_scene(rng)
        claim = sample_claim(shown, rng, truth=turn % 2 == 0)
        assert claim.is_clear(shown)
        assert claim.holds(shown) == (turn % 2 == 0)


def test_the_kind_of_a_question_does_not_tell_its_answer():
    batch = sample_vqa_batch(0, 0, 300, 8, 8)
    answers = {"Is there": [], "Are the": [], "of the": [], "exactly": []}
    for question, answer in zip(batch.questions, batch.answers, strict=True):
        for words, found in answers.items():
            if words in question and answer in ("yes", "no"):
                found.append(answer == "yes")
    for words, found in answers.items():
        assert len(found) > 50, words
        # Four standard deviations of the mean of as many fair coins, and a tenth for colours, which
        # a shape in several colours can only have wrongly.
        assert abs(np.mean(found) - 0.5) < 2 / np.sqrt(len(found)) + (0.1 if words == "Are the" else 0), words


def test_related_pairs_are_all_that_clearly_holds():
    assert related_pairs(PAIR) == [("circle", "left of", "square"), ("square", "right of", "circle")]
    both = scene(("circle", "red", 12, 12), ("circle", "blue", 12, 50), ("square", "red", 34, 31))
    assert direction(both, "circle", "square") is None  # both stand at about forty degrees
    row = scene(("circle", "red", 10, 30), ("circle", "blue", 30, 34), ("square", "red", 54, 32))
    assert related_pairs(row) == [("circle", "left of", "square"), ("square", "right of", "circle")]


@pytest.mark.parametrize(
    ("cx", "cy", "place"),
    [(12, 12, "left above"), (50, 33, "right"), (30, 50, "below"), (31, 33, ""), (50, 50, "right below")],
)
def test_where_a_shape_is(cx, cy, place):
    assert _quarter(scene(("ring", "red", cx, cy)), "ring") == place
    assert _quarter(scene(("ring", "red", cx, cy), ("ring", "blue", 60 - cx, cy)), "ring") == ""


def test_training_batches_are_repeatable_and_known_to_the_vocabulary():
    batch, again = (sample_vqa_batch(5, 2, 12, 4, 8) for _ in range(2))
    assert batch.questions == again.questions
    assert batch.answers == again.answers
    assert (batch.images == again.images).all()
    assert batch.images.shape == (12, 64, 64, 3)
    # 8 x 8 patches of 8 pixels, of which every picture has some that show a shape.
    assert batch.shapes.shape == batch.colors.shape == (12, 64)
    assert (batch.shapes > 0).any(axis=1).all()
    assert ((batch.shapes > 0) == (batch.colors > 0)).all()
    assert len(batch.questions) == len(batch.answers) == 48
    known = set(VOCABULARY)
    words = {
        w for text in [*batch.questions, *batch.answers] for w in text.lower().replace("?", " ?").split()
    }
    assert words <= known
    assert VOCABULARY[101:103] == ("[CLS]", "[SEP]")
    assert {*COLORS, *SHAPES} <= known
