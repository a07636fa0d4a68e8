"""What judges said about images, kept on disk: a second metric, or a run that goes on, asks nothing twice.

A file holds the answers of one judge about one image, by the content of both: `FOLDER/JUDGE/IMAGE.json`.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sana_bench.core import atomic
from sana_bench.core.fingerprint import canonical_json, fingerprint, sealed, unsealed
from sana_bench.core.text import read_text
from sana_bench.judges.base import Answer, AskedAtOnce, Distant, FirstToken, QuestionJudge, ReadingJudge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Answers", "RememberingJudge", "RememberingQuestionJudge"]


class Answers:
    """The answers of one judge, by image and by what was asked."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """`identity` holds everything that changes an answer."""
        self._folder = folder / fingerprint(identity)[:16]

    def recall(
        self, image: "NDArray[np.uint8]", asked: Sequence[Any], ask: Callable[[list[int]], Sequence[Any]]
    ) -> list[Any]:
        """The answers, JSON-able, to what was `asked` about an image; `ask` is given the places of those that are not known.

        What was asked is JSON-able too. A damaged file counts as none.
        """
        path = self._path(image)
        known = _read(path)
        keys = [canonical_json(one) for one in asked]
        # Asked twice in one call is asked once.
        places = {key: place for place, key in reversed(list(enumerate(keys))) if key not in known}
        if places:
            new = sorted(places.values())
            known |= zip([keys[place] for place in new], ask(new), strict=True)
            atomic.write_text(path, sealed(known, path.stem))
        return [known[key] for key in keys]

    def _path(self, image: "NDArray[np.uint8]") -> Path:
        content = hashlib.sha256(str(image.shape).encode())
        content.update(image.tobytes())
        name = content.hexdigest()
        return self._folder / name[:2] / f"{name}.json"


class RememberingJudge:
    """A `ReadingJudge` that asks another one, and only what it was not asked before."""

    def __init__(self, judge: ReadingJudge, folder: Path, identity: dict[str, Any]) -> None:
        """Answers are kept below `folder`; `identity` is the judge's."""
        self._judge, self._identity = judge, identity
        self._answers = Answers(folder, identity)

    @property
    def images_at_once(self) -> int:
        return self._judge.images_at_once if isinstance(self._judge, AskedAtOnce) else 1

    def stop(self) -> None:
        if isinstance(self._judge, AskedAtOnce):
            self._judge.stop()

    def reach(self, tries: int) -> None:
        if isinstance(self._judge, Distant):
            self._judge.reach(tries)

    def load(self) -> None:
        self._judge.load()

    def identity(self) -> dict[str, Any]:
        return self._identity

    def probabilities(
        self, image: "NDArray[np.uint8]", questions: Sequence[str], spellings: Sequence[Sequence[str]]
    ) -> list[list[FirstToken]]:
        pairs = list(zip(questions, spellings, strict=True))

        def ask(places: list[int]) -> list[Any]:
            of = [pairs[place] for place in places]
            found = self._judge.probabilities(image, [pair[0] for pair in of], [pair[1] for pair in of])
            return [[astuple(token) for token in tokens] for tokens in found]

        asked = [["probabilities", question, list(group)] for question, group in pairs]
        return [[FirstToken(*token) for token in one] for one in self._answers.recall(image, asked, ask)]

    def answer(
        self, image: "NDArray[np.uint8]", questions: Sequence[str], *, max_tokens: int = 16
    ) -> list[str]:
        def ask(places: list[int]) -> list[str]:
            return self._judge.answer(image, [questions[place] for place in places], max_tokens=max_tokens)

        asked = [["answer", question, max_tokens] for question in questions]
        return self._answers.recall(image, asked, ask)

    def read_text(self, image: "NDArray[np.uint8]", request: str, *, max_tokens: int = 1024) -> str:
        def ask(_: list[int]) -> list[str]:
            return [self._judge.read_text(image, request, max_tokens=max_tokens)]

        text: str = self._answers.recall(image, [["text", request, max_tokens]], ask)[0]
        return text


class RememberingQuestionJudge:
    """A `QuestionJudge` that asks another one, and only what it was not asked before."""

    def __init__(self, judge: QuestionJudge, folder: Path) -> None:
        """Answers are kept below `folder`."""
        self._judge = judge
        self._answers = Answers(folder, judge.identity())

    def load(self) -> None:
        self._judge.load()

    def identity(self) -> dict[str, Any]:
        return self._judge.identity()

    def answers(self, image: "NDArray[np.uint8]", questions: Sequence[str]) -> list[Answer]:
        def ask(places: list[int]) -> list[Any]:
            return [
                astuple(one) for one in self._judge.answers(image, [questions[place] for place in places])
            ]

        return [Answer(*one) for one in self._answers.recall(image, questions, ask)]


def _read(path: Path) -> dict[str, Any]:
    try:
        return unsealed(read_text(path), path.stem)
    except (OSError, ValueError):
        return {}
