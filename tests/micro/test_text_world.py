"""Text in the micro world: exact pixels, letters that differ and stay apart, and the stream that teaches to read it."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from sana_bench.micro.captions import sample_training_batch
from sana_bench.micro.claims import COUNT_WORDS
from sana_bench.micro.reading_data import (
    EXTRA_LABELS,
    READ,
    TEXT_WORDS,
    VOCABULARY,
    counted_question,
    sample_reading_batch,
    sample_shape_scene,
    sample_text_scene,
    spelled,
)
from sana_bench.micro.text_world import (
    LETTERS,
    MAX_LETTERS,
    MAX_WORDS,
    TextScene,
    Word,
    glimpses,
    letter_labels,
    render_text,
    text_scene_for,
)
from sana_bench.micro.vqa_data import VOCABULARY as VQA_VOCABULARY
from sana_bench.micro.vqa_data import sample_vqa_batch
from sana_bench.micro.world import COLORS, IMAGE_SIZE

GREY = (180, 180, 180)


def scene(*words: tuple[str, int, int]) -> TextScene:
    return TextScene(tuple(Word(text, "red", x, y, COLORS["red"]) for text, x, y in words), GREY)


def test_a_letter_is_dots_of_two_by_two_pixels():
    found = render_text(scene(("L", 12, 20)))
    expected = np.full((64, 64, 3), GREY, np.uint8)
    expected[20:34, 12:14] = COLORS["red"]
    expected[32:34, 12:22] = COLORS["red"]
    np.testing.assert_array_equal(found, expected)


def test_letters_of_a_word_stand_twelve_pixels_apart():
    found = render_text(scene(("LL", 12, 20)))
    one, other = render_text(scene(("L", 12, 20))), render_text(scene(("L", 24, 20)))
    grey = np.array(GREY, np.uint8)
    np.testing.assert_array_equal(found != grey, (one != grey) | (other != grey))


def test_letters_differ_in_many_dots():
    drawn = {letter: (render_text(scene((letter, 4, 4)))[..., 0] != GREY[0]) for letter in LETTERS}
    assert len(drawn) == 26
    for one in LETTERS:
        for other in LETTERS:
            if one < other:
                assert (drawn[one] != drawn[other]).sum() >= 2 * 4, (one, other)  # two dots of four pixels


def test_words_stay_inside_and_apart_and_no_two_letters_share_a_patch():
    rng = np.random.default_rng(1)
    seen = Counter()
    for _ in range(400):
        drawn = sample_text_scene(rng)
        seen[len(drawn.words)] += 1
        labels = letter_labels(drawn, 8)
        text = "".join(word.text for word in drawn.words)
        order = labels["places"].argsort(kind="stable")[-len(text) :]
        assert [LETTERS[index - 1] for index in labels["letters"][order]] == list(text)
        assert sorted(labels["places"][labels["places"] > 0]) == list(range(1, len(text) + 1))
        assert ((labels["letters"] > 0) == (labels["colors"] > 0)).all()
        places = glimpses(drawn, 8)
        assert [LETTERS[labels["letters"][where] - 1] for line in places for where in line] == list(text)
        for line, (word, of_word) in enumerate(zip(drawn.words, places, strict=True), start=1):
            assert 0 <= word.x <= IMAGE_SIZE - (12 * len(word.text) - 2)
            assert 0 <= word.y <= IMAGE_SIZE - 14
            assert word.x % 4 == word.y % 4 == 0
            assert set(labels["lines"][of_word]) == {line}
            assert labels["spots"][of_word].tolist() == list(range(1, len(word.text) + 1))
        for above, below in zip(drawn.words, drawn.words[1:], strict=False):
            assert below.y >= above.y + 16
    # A third each: five standard deviations of a binomial of 400.
    assert all(abs(seen[n] - 400 / 3) < 5 * np.sqrt(400 * 2 / 9) for n in range(1, MAX_WORDS + 1))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "0 words; one to 3 have room"),
        ([("A", "red")] * 4, "4 words"),
        ([("SUNDAY", "red")], "'SUNDAY' is not one to 5 capital letters"),
        ([("sun", "red")], "'sun' is not"),
        ([("", "red")], "'' is not"),
    ],
)
def test_what_has_no_room_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        text_scene_for(words, np.random.default_rng(0))


def test_scenes_of_shapes_are_those_that_the_shipped_weights_saw():
    """Captions and questions to the letter; of pixels two sums, since a sample on an edge may fall otherwise on another
    processor: each moves a sum by less than a millionth, and four of them are allowed for.
    """
    images, captions = sample_training_batch(0, 0, 64)
    batch = sample_vqa_batch(0, 0, 32, 8, 8)
    texts = [*captions, *batch.questions, *batch.answers]
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16] == "fd3cd9cc8f6f23e5"
    for pictures, sums in ((images, (140791767, 701163724426)), (batch.images, (70287422, 348887126612))):
        values = pictures.reshape(-1).astype(np.int64)
        found = int(values.sum()), int((values * (np.arange(values.size) % 9973)).sum())
        np.testing.assert_allclose(found, sums, rtol=4e-6)


def test_the_words_of_the_vqa_judge_keep_their_numbers():
    assert VOCABULARY[: len(VQA_VOCABULARY)] == VQA_VOCABULARY
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    assert {f"##{letter.lower()}" for letter in LETTERS} <= set(VOCABULARY)


def test_the_words_of_prompts_can_be_drawn_and_are_never_shown():
    assert len(set(TEXT_WORDS)) == len(TEXT_WORDS)
    assert all(1 <= len(word) <= MAX_LETTERS and set(word) <= set(LETTERS) for word in TEXT_WORDS)
    rng = np.random.default_rng(3)
    # Of 26^2 pairs of letters one is in the list, so several hundred pairs would show it if they could.
    shown = {word.text for _ in range(3000) for word in sample_text_scene(rng).words}
    assert sum(len(word) == 2 for word in shown) > 500
    assert not shown & set(TEXT_WORDS)


def test_a_batch_is_repeatable_and_says_what_is_there():
    batch, again = (sample_reading_batch(5, 2, 40, 6, 8) for _ in range(2))
    assert (batch.questions, batch.answers) == (again.questions, again.answers)
    assert (batch.images == again.images).all()
    assert batch.images.shape == (40, 64, 64, 3)
    assert set(batch.more) == set(EXTRA_LABELS)
    for name, labels in {"shapes": batch.shapes, "colors": batch.colors, **batch.more}.items():
        assert labels.shape == (40, 64), name
    known = set(VOCABULARY)
    assert all(word in known for answer in batch.answers for word in answer.split())
    words = {
        word
        for question in batch.questions
        for word in question.lower().replace("?", " ?").replace(".", " .").split()
    }
    assert words <= known | {"[unk]"}
    has_text = (batch.more["letters"] > 0).any(axis=1)
    assert (has_text == ~(batch.shapes > 0).any(axis=1)).all()
    # Four of ten pictures: five standard deviations of 40 such coins.
    assert abs(has_text.sum() - 16) <= 5 * np.sqrt(40 * 0.6 * 0.4)
    objects = batch.more["objects"]
    assert ((objects > 0).any(axis=1) == ~has_text).all()
    for of_image, nth in zip(objects, batch.more["nth_of_shape"], strict=True):
        for shape in set(of_image) - {0}:
            assert sorted(nth[of_image == shape]) == list(range(1, (of_image == shape).sum() + 1))
    assert (batch.more["nth_of_color"] <= batch.more["nth_of_shape"]).all()
    # A patch has the middle of what it shows, or of a ring's hole.
    shown = batch.shapes[objects > 0]
    assert ((shown == objects[objects > 0]) | (shown == 0)).all()
    for question_number, (question, answer) in enumerate(zip(batch.questions, batch.answers, strict=True)):
        image = question_number // 6
        if question.startswith(READ):
            labels = batch.more["letters"][image][batch.more["places"][image].argsort(kind="stable")]
            read = "".join(LETTERS[label - 1] for label in labels if label).lower()
            assert answer.replace("##", "").replace(" ", "") == read
        tokens = batch.glimpses[question_number]
        if question.startswith("Read"):
            looked = [
                LETTERS[batch.more["letters"][image][where] - 1].lower() for where in tokens if where >= 0
            ]
            assert answer.replace("##", "").split() == looked
        else:
            assert (tokens == -1).all()
        if question.startswith("Is there text?"):
            assert answer == ("yes" if has_text[image] else "no")


def test_numbers_are_asked_for_evenly_and_answered_rightly():
    rng = np.random.default_rng(4)
    most = Counter(
        max(Counter(item.shape for item in sample_shape_scene(rng).objects).values()) for _ in range(500)
    )
    # The scenes of groups alone give each number a fifth of 0.3; five standard deviations below that.
    assert all(most[n] > 500 * 0.06 - 5 * np.sqrt(500 * 0.06) for n in range(1, 6))
    batch = sample_reading_batch(0, 0, 200, 8, 8)
    numbers = Counter(
        answer
        for question, answer in zip(batch.questions, batch.answers, strict=True)
        if question.startswith("How many")
    )
    assert set(numbers) == set(COUNT_WORDS)


def test_words_are_spelled_by_the_letter():
    assert spelled("OPEN") == "o ##p ##e ##n"
    assert spelled("A") == "a"
    assert counted_question("cross") == "How many crosses are there?"
    assert counted_question("ring", "red") == "How many red rings are there?"
