"""Training captions and the evaluation set: forms, vocabulary, determinism, and what training never shows."""

import json
from importlib.resources import files

import numpy as np
import pytest

from sana_bench.micro import templates
from sana_bench.micro.captions import (
    TASK_WEIGHTS,
    VOCABULARY,
    is_held_out,
    sample_record,
    sample_training_batch,
    sample_training_pair,
    scene_for,
)
from sana_bench.micro.evaluation_set import PROMPTS_PER_TASK, generate_prompts, geneval_prompts
from sana_bench.micro.truth import satisfies
from sana_bench.micro.world import COLORS, SHAPES

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


def of_task(tag):
    return [record for record in geneval_prompts() if record["tag"] == tag]


@pytest.fixture(scope="module")
def sampled_pairs():
    rng = np.random.default_rng(2)
    return [sample_training_pair(rng) for _ in range(20_000)]


def test_records_follow_genevals_sentences_and_key_order():
    assert json.dumps(templates.position_record("circle", "left of", "square")) == (
        '{"tag": "position", "include": [{"class": "square", "count": 1}, {"class": "circle", "count": 1, '
        '"position": ["left of", 0]}], "prompt": "a photo of a circle left of a square"}'
    )
    assert json.dumps(templates.counting_record("cross", 3)) == (
        '{"tag": "counting", "include": [{"class": "cross", "count": 3}], "exclude": [{"class": "cross", '
        '"count": 4}], "prompt": "a photo of three crosses"}'
    )
    assert templates.colors_record("orange", "ring")["prompt"] == "a photo of an orange ring"
    both = templates.color_attr_record(("red", "circle"), ("orange", "square"))
    assert both["prompt"] == "a photo of a red circle and an orange square"


def test_the_stored_prompts_are_what_their_seed_draws():
    stored = (files("sana_bench.micro") / "data" / "geneval_prompts.jsonl").read_bytes()
    drawn = "".join(json.dumps(record) + "\n" for record in generate_prompts())
    assert drawn.encode() == stored


@pytest.mark.parametrize("tag", TASKS)
def test_every_task_has_its_prompts(tag):
    records = of_task(tag)
    assert len(records) == PROMPTS_PER_TASK >= 20
    # Eight shapes, three times each: the only task whose prompts repeat.
    assert len({record["prompt"] for record in records}) == (
        8 if tag == "single_object" else PROMPTS_PER_TASK
    )
    for record in records:
        for clause in record["include"]:
            assert clause["class"] in SHAPES
            assert clause.get("color", "red") in COLORS


def test_prompts_stand_task_by_task_in_genevals_order():
    assert list(dict.fromkeys(record["tag"] for record in geneval_prompts())) == list(TASKS)


def test_training_never_shows_a_held_out_caption(sampled_pairs):
    forbidden = {r["prompt"] for tag in ("two_object", "position", "color_attr") for r in of_task(tag)}
    assert len(forbidden) == 3 * PROMPTS_PER_TASK
    assert all(is_held_out(prompt) for prompt in forbidden)
    captions = {caption for _, caption in sampled_pairs}
    assert not captions & forbidden
    assert not any(is_held_out(caption) for caption in captions)
    # The sampler would have hit them: it shows every other two-object sentence.
    others = {
        f"a photo of {templates.article(a)} and {templates.article(b)}"
        for a in SHAPES
        for b in SHAPES
        if a != b
    }
    assert captions >= others - forbidden


def test_the_mirrored_sentence_is_held_out_too():
    position = of_task("position")[0]
    anchor, subject = position["include"]
    mirrored = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    relation = mirrored[subject["position"][0]]
    assert is_held_out(templates.position_record(anchor["class"], relation, subject["class"])["prompt"])
    first, second = ((c["color"], c["class"]) for c in of_task("color_attr")[0]["include"])
    assert is_held_out(templates.color_attr_record(second, first)["prompt"])


def test_vocabulary_is_exactly_the_words_of_captions(sampled_pairs):
    assert len(VOCABULARY) == len(set(VOCABULARY))
    words = {word for _, caption in sampled_pairs for word in caption.split()}
    words |= {word for record in geneval_prompts() for word in record["prompt"].split()}
    assert words == set(VOCABULARY)


def test_all_caption_kinds_turn_up_as_often_as_their_weights_say(sampled_pairs):
    counting = sum(any(word in caption for word in ("two", "three", "four")) for _, caption in sampled_pairs)
    relations = sum(any(word in caption for word in templates.RELATIONS) for _, caption in sampled_pairs)
    # Held-out draws (24 of 56 two-object, 48 of 224 position sentences) are repeated, which lifts the other
    # kinds by 11 %. Five standard errors of 20,000 draws are 0.014.
    assert counting / 20_000 == pytest.approx(TASK_WEIGHTS["counting"], abs=0.2 * 0.12 + 0.014)
    assert relations / 20_000 == pytest.approx(TASK_WEIGHTS["position"] + TASK_WEIGHTS["dense"], abs=0.03)
    assert sum(TASK_WEIGHTS.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("task", list(TASK_WEIGHTS))
def test_scenes_show_exactly_what_their_record_names(task):
    rng = np.random.default_rng(6)
    for _ in range(150):
        record = sample_record(task, rng)
        scene = scene_for(record, rng)
        assert satisfies(scene, record)
        named = sorted(clause["class"] for clause in record["include"] for _ in range(clause["count"]))
        assert sorted(item.shape for item in scene.objects) == named
        if task == "counting":
            assert len({item.color for item in scene.objects}) == 1


def test_batches_depend_on_seed_and_index_alone():
    images, captions = sample_training_batch(4, 9, 8)
    assert images.shape == (8, 64, 64, 3)
    assert images.dtype == np.uint8
    again, same_captions = sample_training_batch(4, 9, 8)
    np.testing.assert_array_equal(images, again)
    assert captions == same_captions
    assert captions != sample_training_batch(4, 10, 8)[1]
    assert captions != sample_training_batch(5, 9, 8)[1]
