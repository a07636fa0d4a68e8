"""mPLUG as a judge that reads: the micro tier's, which counts in words and reads letters."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sana_bench.core.errors import UsageError
from sana_bench.judges.base import FirstToken
from sana_bench.judges.mplug.judge import MPlugJudge
from sana_bench.micro.reading_data import READ

__all__ = ["ReadingMPlug"]


class ReadingMPlug(MPlugJudge):
    """Answers by the most probable word at each step, begun with a capital; letters in pictures are all capitals.

    It is trained to read on one request alone, so that is what it asks itself, whatever the wording of another.
    """

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "network": "mplug-reading@1", "request": READ}

    def probabilities(
        self, image: NDArray[np.uint8], questions: Sequence[str], spellings: Sequence[Sequence[str]]
    ) -> list[list[FirstToken]]:
        """Case and blanks before a word are one to its vocabulary; raises `UsageError` for a spelling without a word."""
        import torch

        tokens = [[self._first(spelling) for spelling in of_question] for of_question in spellings]
        if not questions:
            return []
        with torch.inference_mode():
            logits = self.network.first_logits(*self._asked(image, questions))
            found = torch.softmax(logits.double(), dim=-1).cpu()
        return [
            [FirstToken(token, float(row[token])) for token in of_question]
            for row, of_question in zip(found, tokens, strict=True)
        ]

    def answer(
        self, image: NDArray[np.uint8], questions: Sequence[str], *, max_tokens: int = 16
    ) -> list[str]:
        return [text[:1].upper() + text[1:] for text in self._greedy(image, questions, max_tokens)]

    def read_text(self, image: NDArray[np.uint8], request: str, *, max_tokens: int = 1024) -> str:
        return self._greedy(image, [READ], max_tokens)[0].upper()

    def _greedy(self, image: NDArray[np.uint8], questions: Sequence[str], max_tokens: int) -> list[str]:
        import torch

        if not questions:
            return []
        # The start token takes the first of the places that an answer can have.
        longest = min(max_tokens, self.network.config.max_position_embeddings - 1)
        with torch.inference_mode():
            found = self.network.answer(
                *self._asked(image, questions), beam_size=1, min_length=0, max_length=longest
            )
        return [self._text(hypotheses[0].tokens).strip() for hypotheses in found]

    def _first(self, spelling: str) -> int:
        ids = self.tokenizer(spelling.lower(), add_special_tokens=False)["input_ids"]
        if not ids:
            raise UsageError(f"spelling {spelling!r} has no word in it")
        return int(ids[0])
