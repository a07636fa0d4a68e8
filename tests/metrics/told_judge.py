"""A reading judge that says what a test tells it, and remembers what it was asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sana_bench.judges.base import FirstToken


def nothing(*_: Any) -> Any:
    raise AssertionError("the judge is asked for something else than the test expects")


@dataclass
class ToldJudge:
    """`soft` gives the score of a question about an image, `says` its answer, and `reads` the text of an image.

    A soft score is spread over the first two spellings in equal halves, which float64 adds up exactly.
    """

    soft: Callable[[np.ndarray, str], float] = nothing
    says: Callable[[np.ndarray, str], str] = nothing
    reads: Callable[[np.ndarray], str] = nothing
    asked: list[Any] = field(default_factory=list)

    def load(self) -> None:
        pass

    def identity(self) -> dict[str, Any]:
        return {"network": "told"}

    def probabilities(
        self, image: np.ndarray, questions: Sequence[str], spellings: Sequence[Sequence[str]]
    ) -> list[list[FirstToken]]:
        self.asked.append((list(questions), [list(found) for found in spellings]))
        return [
            [
                FirstToken(place, self.soft(image, question) / 2 if place < 2 else 0.0)
                for place in range(len(found))
            ]
            for question, found in zip(questions, spellings, strict=True)
        ]

    def answer(self, image: np.ndarray, questions: Sequence[str], *, max_tokens: int = 16) -> list[str]:
        self.asked.append((list(questions), max_tokens))
        return [self.says(image, question) for question in questions]

    def read_text(self, image: np.ndarray, request: str, *, max_tokens: int = 1024) -> str:
        self.asked.append((request, max_tokens))
        return self.reads(image)


def numbered_image(number: int) -> np.ndarray:
    """A picture that says which it is in its first pixel, also after JPEG: of one colour."""
    return np.full((16, 16, 3), number, dtype=np.uint8)
