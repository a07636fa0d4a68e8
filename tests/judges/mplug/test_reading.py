"""mPLUG as a judge that reads: probabilities of first words, greedy answers, and text."""

import numpy as np
import pytest
import torch

from sana_bench.core.errors import UsageError
from sana_bench.judges.base import FirstToken
from sana_bench.judges.mplug.judge import MPlugJudge
from sana_bench.judges.mplug.network import END, START
from sana_bench.judges.mplug.reading import ReadingMPlug
from sana_bench.metrics.geneval2.rules import DISTINCT_TOKENS, accepted_spellings, soft_score
from sana_bench.micro.reading_data import READ
from tests.tiny_weights import write_tiny_reading

QUESTIONS = ["How many red circles are there?", "Is there a ring? Answer in one word.", READ]


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> ReadingMPlug:
    return ReadingMPlug(write_tiny_reading(tmp_path_factory.mktemp("judge") / "reading", seed=3))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)


@torch.inference_mode()
def stepwise(judge: ReadingMPlug, image: np.ndarray, question: str, longest: int) -> list[int]:
    """Token after token by the network's own parts, without a search."""
    seen, ids, mask = judge._asked(image, [question])
    fused, text = judge.network.fuse(seen, ids, mask)
    context = judge.network.context(fused, text)
    visible = torch.cat([torch.ones(1, fused.shape[1], dtype=torch.bool), mask.bool()], dim=1)
    tokens = [START]
    while len(tokens) <= longest and tokens[-1] != END:
        hidden = judge.network.decode(torch.tensor([[tokens]]), context, visible)[0, 0, -1]
        tokens.append(int(judge.network.logits(hidden).argmax()))
    return tokens


@pytest.mark.parametrize("longest", [1, 3, 16])
def test_answers_are_the_most_probable_token_at_each_step(judge, images, longest):
    texts = set()
    for image in images:
        found = judge.answer(image, QUESTIONS, max_tokens=longest)
        for question, answer in zip(QUESTIONS, found, strict=True):
            expected = judge.tokenizer.decode(
                stepwise(judge, image, question, longest), skip_special_tokens=True
            )
            assert answer.lower() == expected.strip()
            assert answer[:1] == answer[:1].upper()
            texts.add(answer)
    # The first word alone is the one that was pushed most.
    assert len(texts) > (longest > 1)


def test_text_is_read_in_capitals_whatever_the_request(judge, images):
    read = {judge.read_text(image, request) for image in images for request in ("Read it.", READ)}
    own = {judge.answer(image, [READ], max_tokens=31)[0].upper() for image in images}
    assert read == own
    assert all(text == text.upper() for text in read)


@torch.inference_mode()
def test_probabilities_are_the_softmax_over_the_whole_vocabulary(judge, images):
    spellings = [accepted_spellings(QUESTIONS[0], "two"), accepted_spellings(QUESTIONS[1], "Yes"), ["open"]]
    found = judge.probabilities(images[0], QUESTIONS, spellings)
    logits = judge.network.first_logits(*judge._asked(images[0], QUESTIONS)).double()
    for row, asked, tokens in zip(logits.softmax(-1), spellings, found, strict=True):
        assert len(tokens) == len(asked)
        for token in tokens:
            # Computed twice from the same numbers: only the kind of sum may differ.
            assert token.probability == pytest.approx(float(row[token.token]), abs=1e-15)
    vocabulary = judge.tokenizer.get_vocab()
    two, yes = vocabulary["two"], vocabulary["yes"]
    unknown = judge.tokenizer.unk_token_id
    # Case and blanks are one to the vocabulary; digits it lacks.
    assert [token.token for token in found[0]] == [two, two, two, two, unknown, unknown]
    assert {token.token for token in found[1]} == {yes}
    assert [token.token for token in found[2]] == [vocabulary["o"]]
    score = soft_score([yes] * 4, {yes: found[1][0].probability}, DISTINCT_TOKENS)
    assert score == found[1][0].probability


def test_each_question_is_answered_on_its_own(judge, images):
    """The batch of questions changes the order of float32 sums: probabilities to a hundred of their roundings."""
    together = judge.probabilities(images[1], QUESTIONS, [["yes"]] * 3)
    alone = [judge.probabilities(images[1], [question], [["yes"]])[0] for question in QUESTIONS]
    for (one,), (other,) in zip(together, alone, strict=True):
        assert isinstance(one, FirstToken)
        assert one.probability == pytest.approx(other.probability, rel=100 * 2**-24)


def test_no_questions_have_no_answers_and_a_blank_is_no_spelling(judge, images):
    assert judge.answer(images[0], []) == []
    assert judge.probabilities(images[0], [], []) == []
    with pytest.raises(UsageError, match=r"spelling ' ' has no word in it"):
        judge.probabilities(images[0], QUESTIONS[:1], [[" "]])


def test_its_identity_is_not_that_of_the_question_judge(judge):
    other = MPlugJudge(judge._folder).identity()
    own = judge.identity()
    assert own["weights_sha256"] == other["weights_sha256"]
    assert own["request"] == READ
    assert own["network"] != other["network"]


def test_published_search_settings_are_untouched(judge, images):
    """The answers of `dpg` still come from the configuration's own search."""
    beams = judge.network.answer(*judge._asked(images[0], QUESTIONS))
    assert all(1 <= len(found) <= judge.network.config.beam_size + 1 for found in beams)
    assert max(len(found) for found in beams) > 1
    greedy = judge.network.answer(
        *judge._asked(images[0], QUESTIONS), beam_size=1, min_length=0, max_length=5
    )
    assert all(len(found) == 1 for found in greedy)
