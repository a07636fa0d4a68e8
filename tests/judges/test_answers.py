"""Answers that are kept: nothing is asked twice, and nothing of another judge, image or question is taken for it."""

import numpy as np
import pytest

from sana_bench.core.fingerprint import unsealed
from sana_bench.judges.answers import RememberingJudge, RememberingQuestionJudge
from sana_bench.judges.base import Answer, FirstToken, ReadingJudge

IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


class Judge:
    """Answers with what it was asked, and remembers that it was."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def load(self) -> None:
        self.asked.append("load")

    def identity(self):
        return {"judge": "echo"}

    def probabilities(self, image, questions, spellings):
        self.asked += list(questions)
        return [
            [FirstToken(len(one), 1 / (3 + len(question)), len(one) < 3) for one in group]
            for question, group in zip(questions, spellings, strict=True)
        ]

    def answer(self, image, questions, *, max_tokens=16):
        self.asked += list(questions)
        return [f"{question} {int(image.sum())}"[:max_tokens] for question in questions]

    def read_text(self, image, request, *, max_tokens=1024):
        self.asked.append(request)
        return f"read {request}"[:max_tokens]

    def answers(self, image, questions):
        self.asked += list(questions)
        return [Answer(question, len(question) / 7) for question in questions]


@pytest.fixture
def judge():
    return Judge()


@pytest.fixture
def remembering(judge, tmp_path):
    def make(identity: str = "echo") -> RememberingJudge:
        return RememberingJudge(judge, tmp_path, {"judge": identity})

    return make


def test_only_what_is_new_is_asked(judge, remembering):
    first = remembering().answer(IMAGE, ["a", "b", "a"])
    assert judge.asked == ["a", "b"]
    assert first == ["a 153", "b 153", "a 153"]
    # Another object, as in the next run; in another order and with a question more.
    assert remembering().answer(IMAGE, ["c", "b", "a"]) == ["c 153", "b 153", "a 153"]
    assert judge.asked == ["a", "b", "c"]
    assert isinstance(remembering(), ReadingJudge)


def test_kinds_of_question_images_and_judges_are_kept_apart(judge, remembering):
    remembering().answer(IMAGE, ["a"])
    assert remembering().answer(IMAGE, ["a"], max_tokens=1) == ["a"]
    assert remembering().read_text(IMAGE, "a") == "read a"
    assert remembering().answer(IMAGE + 1, ["a"]) == ["a 171"]
    # The same bytes in another shape are another image.
    remembering().answer(IMAGE.reshape(3, 2, 3), ["a"])
    remembering("other").answer(IMAGE, ["a"])
    assert judge.asked == ["a"] * 6


def test_probabilities_come_back_to_the_last_bit(judge, remembering):
    groups = [["Yes", "yes"], ["No"]]
    first = remembering().probabilities(IMAGE, ["a", "bb"], groups)
    assert remembering().probabilities(IMAGE, ["a", "bb"], groups) == first
    assert judge.asked == ["a", "bb"]
    assert first[0][0] == FirstToken(3, 1 / 4, False)
    # Other spellings are another question: what a judge says of one may depend on those beside it.
    remembering().probabilities(IMAGE, ["a"], [["Yes"]])
    assert judge.asked == ["a", "bb", "a"]


def test_a_question_judge_remembers_too(judge, tmp_path):
    for _ in range(2):
        found = RememberingQuestionJudge(judge, tmp_path).answers(IMAGE, ["a", "bb"])
        assert found == [Answer("a", 1 / 7), Answer("bb", 2 / 7)]
    assert judge.asked == ["a", "bb"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"answer'])
def test_a_damaged_file_is_asked_again(judge, remembering, tmp_path, content):
    remembering().answer(IMAGE, ["a"])
    (path,) = tmp_path.rglob("*.json")
    path.write_text(content)
    assert remembering().answer(IMAGE, ["a"]) == ["a 153"]
    assert judge.asked == ["a", "a"]
    assert unsealed(path.read_text()) == {'["answer","a",16]': "a 153"}


def test_what_was_answered_before_a_failure_is_kept(judge, remembering):
    remembering().answer(IMAGE, ["a"])

    def fail(*_, **__):
        raise OSError("gone")

    judge.answer = fail
    with pytest.raises(OSError, match="gone"):
        remembering().answer(IMAGE, ["a", "b"])
    assert remembering().answer(IMAGE, ["a"]) == ["a 153"]
