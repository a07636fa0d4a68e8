"""Checks of the metrics whose judge reads: a judge that recites, through the metrics, to numbers worked out by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sana_bench.core.samples import Prompt, Sample
from sana_bench.judges.base import FirstToken
from sana_bench.metrics.geneval2.metric import PROTOCOLS as GENEVAL2
from sana_bench.metrics.geneval2.metric import GenEval2Metric
from sana_bench.metrics.geneval2.rules import OFFICIAL
from sana_bench.metrics.longtext.metric import PROTOCOLS as LONGTEXT
from sana_bench.metrics.longtext.metric import LongTextMetric
from sana_bench.metrics.selfcheck.check import Bench, Check, Tolerance, user_judge

__all__ = ["CHECKS", "Reciter"]


@dataclass(frozen=True)
class Reciter:
    """A judge that looks at nothing and knows what to say: first tokens by spelling, answers by question, one text."""

    tokens: Mapping[str, FirstToken] = field(default_factory=dict)
    answers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    def load(self) -> None:
        """Nothing to load."""

    def identity(self) -> dict[str, Any]:
        return {"network": "reciter"}

    def probabilities(
        self, image: NDArray[np.uint8], questions: Sequence[str], spellings: Sequence[Sequence[str]]
    ) -> list[list[FirstToken]]:
        return [[self.tokens[spelling] for spelling in asked] for asked in spellings]

    def answer(
        self, image: NDArray[np.uint8], questions: Sequence[str], *, max_tokens: int = 16
    ) -> list[str]:
        return [self.answers[question] for question in questions]

    def read_text(self, image: NDArray[np.uint8], request: str, *, max_tokens: int = 1024) -> str:
        return self.text


def _sample(folder: Path, prompt_id: str, metadata: dict[str, Any]) -> Sample:
    """A grey image of a prompt."""
    path = folder / f"{prompt_id}.png"
    Image.new("RGB", (8, 8), (128, 128, 128)).save(path)
    return Sample("self-check", "self-check", Prompt(prompt_id, prompt_id, "tag", metadata), 0, path)


# A tokenizer that drops the blank in front of a word, so that two spellings begin with one token.
_TOKENS = {
    **dict.fromkeys(("three", " three"), FirstToken(1, 0.125)),
    **dict.fromkeys(("Three", " Three"), FirstToken(2, 0.0625)),
    "3": FirstToken(3, 0.125),
    " 3": FirstToken(4, 0.0),
    **dict.fromkeys(("Yes", " Yes"), FirstToken(5, 0.03125)),
    **dict.fromkeys(("yes", " yes"), FirstToken(6, 0.03125)),
}
_COWS = {
    "vqa_list": [["How many cows are in the image?", "three"], ["Are the cows red?", "Yes"]],
    "skills": ["count", "attribute"],
}
# Scores of the two questions: 1/2 and 1/8 with tokens counted for each spelling, 5/16 and 1/16 with each counted once.
_SOFT = {
    OFFICIAL: {"overall": 25, "am": 31.25, "count": 50, "attribute": 12.5, "tag": 25},
    GENEVAL2[1]: {"overall": 100 * sqrt(5) / 16, "am": 18.75, "count": 31.25, "attribute": 6.25,
                  "tag": 100 * sqrt(5) / 16},
}  # fmt: skip


def _geneval2(bench: Bench) -> float:
    sample = _sample(bench.folder("geneval2"), "cows", _COWS)
    errors = []
    for protocol, expected in _SOFT.items():
        metric = GenEval2Metric(protocol, Reciter(tokens=_TOKENS))
        found = {row.key: row.value for row in metric.summarise(metric.score([sample]), 1, seed=0)}
        if found.keys() != expected.keys():
            return float("inf")
        errors += [abs(found[key] - value) / value for key, value in expected.items()]
    return max(errors)


# Asked for, read, and how many words or characters of how many that are.
_READ = (
    ("en", ["Open daily:", "5-7 PM"], "No text recognized.OPEN 57, daily", 3, 4),
    ("en", ["no no yes"], "yes yes no addCriterion", 2, 3),
    ("zh", ["\u6bcf\u65e5 5", "\u5f00"], "\u5f00\u65e5\u65e5", 2, 4),
)


def _longtext(bench: Bench) -> float:
    folder = bench.folder("longtext")
    rows = []
    for place, (language, texts, read, _, _) in enumerate(_READ):
        sample = _sample(folder, f"prompt-{place}", {"text": texts, "language": language})
        rows += LongTextMetric(LONGTEXT[0], Reciter(text=read)).score([sample])
    wrong = sum(
        (row.details["matched"], row.details["words"]) != case[3:]
        for row, case in zip(rows, _READ, strict=True)
    )
    overall = LongTextMetric(LONGTEXT[0], Reciter()).summarise(rows, len(rows), seed=0)[0]
    return float(wrong + (overall.value != 7 / 11))


_ROUNDING = "float64 logarithms and sums"

CHECKS = (
    Check(
        "GenEval 2: soft scores and their means",
        (*GENEVAL2, user_judge("geneval2")),
        _geneval2,
        Tolerance(1e-12, "relative", _ROUNDING),
        quick=True,
    ),
    Check(
        "LongText-Bench: words and characters",
        (*LONGTEXT, user_judge("longtext")),
        _longtext,
        Tolerance(0, "numbers that differ", "counts, and one division"),
        quick=True,
    ),
)
