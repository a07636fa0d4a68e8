"""Any judge that reads as the judge of a search: how probably it says yes, and no, to whether an image shows its prompt."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sana_bench.core.errors import AssetError
from sana_bench.judges.base import FirstToken, ReadingJudge, YesNo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["REVIEW", "Review"]

#: What a search asks; `{prompt}` is the image's prompt.
REVIEW = (
    "You review pictures made by a computer. The wanted picture is described as: {prompt}\n"
    "Does the image show everything in this description? Answer only yes or no."
)
_WORDS = ("yes", "no")
_SPELLINGS = [
    spelling for word in _WORDS for spelling in (word, word.title(), f" {word}", f" {word.title()}")
]


class Review:
    """A `PromptJudge`: log-probabilities that an answer begins with yes, and with no, to whether an image shows its prompt.

    The probabilities of all spellings (`yes`, `Yes`, with and without a space in front) that are one token are added.
    The published verifier code compares raw scores of one spelling; the paper speaks of log-probabilities.
    """

    def __init__(self, judge: ReadingJudge) -> None:
        self._judge = judge

    def load(self) -> None:
        """Raises `AssetError` as the judge does, and for a vocabulary without single tokens for yes and no."""
        import numpy as np

        self._judge.load()
        self._look("nothing", np.zeros((64, 64, 3), np.uint8))

    def identity(self) -> dict[str, Any]:
        return {**self._judge.identity(), "instruction": REVIEW}

    def judge(self, prompts: Sequence[str], images: "NDArray[np.uint8]") -> list[YesNo]:
        return [self._look(prompt, image) for prompt, image in zip(prompts, images, strict=True)]

    def _look(self, prompt: str, image: "NDArray[np.uint8]") -> YesNo:
        (found,) = self._judge.probabilities(image, [REVIEW.format(prompt=prompt)], [_SPELLINGS])
        half = len(found) // 2
        return YesNo(
            *(_log_sum(word, part) for word, part in zip(_WORDS, (found[:half], found[half:]), strict=True))
        )


def _log_sum(word: str, tokens: Sequence[FirstToken]) -> float:
    """The logarithm of the probability of any of the tokens that spell a word."""
    single = {token.token: token.probability for token in tokens if token.whole}
    if not single:
        raise AssetError(f"judge: its tokenizer has no single token for {word!r}")
    total = math.fsum(single.values())
    return math.log(total) if total else -math.inf
