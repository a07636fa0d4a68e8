"""Scenes drawn for prompts: as asked or with one mistake, and the same again."""

import numpy as np
import pytest

from sana_bench.micro.dense_prompts import dense_prompts
from sana_bench.micro.evaluation_set import geneval_prompts
from sana_bench.micro.prompt_claims import prompt_claims
from sana_bench.micro.reading_prompts import atom_prompts, text_prompts
from sana_bench.micro.rendered import draw, read_text_prompt
from sana_bench.micro.text_world import TextScene
from sana_bench.micro.truth import satisfies


def test_even_seeds_show_what_is_asked():
    for number, record in enumerate(geneval_prompts()):
        drawn = draw(record["prompt"], 2 * number)
        assert drawn.as_asked
        assert satisfies(drawn.scene, record)
    for number, record in enumerate(dense_prompts()):
        scene = draw(record["text"], 2 * number).scene
        assert all(claim.holds(scene) for claim in prompt_claims(record["text"]))


def test_odd_seeds_make_one_mistake():
    for number, record in enumerate(geneval_prompts()):
        drawn = draw(record["prompt"], 2 * number + 1)
        assert not drawn.as_asked
        assert not satisfies(drawn.scene, record), record["prompt"]
    for one in atom_prompts():
        scene = draw(one.prompt.text, 1).scene
        assert not all(question.claim.holds(scene) for question in one.questions())


def test_text_is_written_or_misspelled_in_one_letter():
    for number, prompt in enumerate(text_prompts()):
        right, wrong = (draw(prompt.prompt, 2 * number + odd) for odd in (0, 1))
        assert isinstance(right.scene, TextScene)
        assert isinstance(wrong.scene, TextScene)
        assert right.scene.text == prompt.text
        assert {word.color for word in right.scene.words} == {prompt.color}
        pairs = zip(prompt.text, wrong.scene.text, strict=True)
        assert sum(one != other for one, other in pairs) == 1
        assert read_text_prompt(prompt.prompt) == prompt


def test_the_same_seed_draws_the_same_and_another_one_another():
    prompt = "a photo of a red circle and a blue square"
    one, again, other = (draw(prompt, seed) for seed in (2**62, 2**62, 2**62 + 2))
    assert one == again
    np.testing.assert_array_equal(one.image, again.image)
    assert one.scene != other.scene
    assert one.image.shape == (64, 64, 3)
    assert one.image.dtype == np.uint8


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a dog", "does not begin with"),
        ("a photo of a dog", "names no shapes of the micro world"),
        ("a photo of the red text open", "names no shapes"),
        ("a photo of the red text SUNDAYS", "not one to 5 capital letters"),
        ("a photo of four circles and four squares", "no room for what"),
    ],
)
def test_prompts_of_another_world_are_refused(prompt, message):
    with pytest.raises(ValueError, match=message):
        draw(prompt, 0)
