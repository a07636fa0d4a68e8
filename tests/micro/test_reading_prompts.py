"""Prompts for judges that read: drawn again the same, countable, answerable, and within what the text encoder reads."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from sana_bench.metrics.geneval2.rules import accepted_spellings
from sana_bench.micro.dense_prompts import FORMS, DensePrompt, Group, dense_scene, stored_dense_prompts
from sana_bench.micro.reading_data import TEXT_WORDS
from sana_bench.micro.reading_prompts import (
    PER_KIND,
    AtomPrompt,
    TextPrompt,
    alignment_prompts,
    atom_prompts,
    text_prompts,
)
from sana_bench.micro.text_world import render_text, text_scene_for

# Tokens of the micro text encoder, its last one left for the end of the text.
MAX_WORDS = 15


def texts() -> dict[str, list[str]]:
    return {
        "atoms": [one.prompt.text for one in atom_prompts()],
        "alignment": [prompt.text for prompt in alignment_prompts()],
        "text": [prompt.prompt for prompt in text_prompts()],
    }


@pytest.mark.parametrize(
    ("name", "count", "digest"),
    [
        ("atoms", 72, "fc8fe4d313a0933c"),
        ("alignment", 48, "247d8a83959fe9f6"),
        ("text", 36, "0bfc293d642487d0"),
    ],
)
def test_the_sets_are_drawn_again_the_same(name, count, digest):
    """A change of prompts needs another version of the protocols that use them."""
    found = texts()[name]
    assert len(found) == len(set(found)) == count
    assert hashlib.sha256("\n".join(found).encode()).hexdigest()[:16] == digest
    assert all(len(text.split()) <= MAX_WORDS for text in found)


def test_atoms_are_objects_colours_numbers_and_places():
    one = AtomPrompt(DensePrompt((Group(2, "red", "cross"), Group(1, "", "star")), "above"))
    assert one.atom_count == 2 + 1 + 1 + 1
    assert [(question.text, question.answer, question.skill) for question in one.questions()] == [
        ("How many crosses are there?", "two", "count"),
        ("Are the crosses red?", "Yes", "attribute"),
        ("Is there a cross?", "Yes", "object"),
        ("How many stars are there?", "one", "count"),
        ("Is there a star?", "Yes", "object"),
        ("Is the cross above the star?", "Yes", "position"),
    ]


def test_every_question_can_be_scored_and_holds_in_a_scene_of_its_prompt():
    rng = np.random.default_rng(0)
    counts = Counter(one.atom_count for one in atom_prompts())
    assert counts == dict.fromkeys(range(3, 9), PER_KIND)
    for one in atom_prompts():
        scene = dense_scene(one.prompt, rng)
        for question in one.questions():
            assert accepted_spellings(question.text, question.answer)
            assert question.claim.holds(scene), (one.prompt.text, question.text)


def test_alignment_prompts_are_no_stored_ones_and_of_every_form():
    assert not {prompt.text for prompt in alignment_prompts()} & stored_dense_prompts()
    sizes = Counter((len(prompt.groups), bool(prompt.relation)) for prompt in alignment_prompts())
    assert sizes == {(2, True): PER_KIND, (2, False): PER_KIND, (3, False): PER_KIND, (3, True): PER_KIND}
    assert len(FORMS) == 4


def test_text_prompts_can_be_drawn():
    assert Counter(len(prompt.words) for prompt in text_prompts()) == dict.fromkeys((1, 2, 3), PER_KIND)
    prompt = TextPrompt(("OPEN", "CAFE"), "blue")
    assert (prompt.text, prompt.prompt) == ("OPEN CAFE", "a photo of the blue text OPEN CAFE")
    for one in text_prompts():
        assert set(one.words) <= set(TEXT_WORDS)
        scene = text_scene_for([(word, one.color) for word in one.words], np.random.default_rng(0))
        assert scene.text == one.text
        assert render_text(scene).shape == (64, 64, 3)
