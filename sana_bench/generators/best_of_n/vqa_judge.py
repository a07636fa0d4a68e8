"""mPLUG as a judge of inference-time scaling: how probably it says yes to questions about what the prompt asks for."""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sana_bench.assets.locate import MICRO_SCHEME, resolve_folder
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.generators.best_of_n.tournament import Answer
from sana_bench.judges.mplug.judge import MPlugJudge
from sana_bench.metrics.dpg.metric import MPLUG_ID, find_mplug
from sana_bench.micro.prompt_claims import prompt_claims

__all__ = ["QUESTION", "VQAJudge", "claim_questions", "find_vqa_judge", "whole_question"]

#: What the published network is asked; `{prompt}` is the image's prompt. It reads 25 tokens of it.
QUESTION = "Does the image show {prompt}?"
MICRO_WEIGHTS = f"{MICRO_SCHEME}vqa"

Questions = Callable[[str], list[str]]


class VQAJudge:
    """Asks questions about each image and takes the geometric mean of the probabilities of yes, among yes and no.

    `yes` is the logarithm of that mean, `no` that of the rest, so the larger mean always wins.
    """

    def __init__(self, network: MPlugJudge, questions: Questions, kind: str) -> None:
        """`questions` makes a prompt's questions; `kind` names how, as part of the judge's identity."""
        self._network, self._questions, self._kind = network, questions, kind

    def load(self) -> None:
        """Raises `AssetError` for damaged files."""
        _ = self._network.network, self._network.tokenizer

    def identity(self) -> dict[str, Any]:
        return {"judge": "vqa@1", "questions": self._kind, **self._network.identity()}

    def judge(self, prompts: Sequence[str], images: np.ndarray) -> list[Answer]:
        """Raises `SuiteError` for a prompt that has no questions."""
        return [
            _answer(self._network.log_odds(image, self._questions(prompt)))
            for prompt, image in zip(prompts, images, strict=True)
        ]


def claim_questions(prompt: str) -> list[str]:
    """The questions that the micro network is trained on, one a claim; raises `SuiteError` for a prompt of another world."""
    try:
        return [claim.question for claim in prompt_claims(prompt)]
    except ValueError as error:
        raise SuiteError(f"judge vqa: micro weights judge prompts of the micro world only: {error}") from None


def whole_question(prompt: str) -> list[str]:
    """One question about all of the prompt."""
    return [QUESTION.format(prompt=prompt.strip().removesuffix("."))]


def find_vqa_judge(weights: str | None, relative_to: Path, device: str) -> VQAJudge:
    """The judge of `weights`: micro weights ask about claims, published ones about the whole prompt.

    Raises `AssetError` for missing weights.
    """
    weights = weights or MICRO_WEIGHTS
    if weights.startswith(MICRO_SCHEME):
        try:
            folder = resolve_folder(weights, relative_to)
        except AssetError as error:
            how = "sana-bench train configs/train/vqa_micro.yaml makes them"
            raise AssetError(f"judge vqa: {error}; {how}") from None
        return VQAJudge(MPlugJudge(folder, device), claim_questions, "claims@1")
    if weights == MPLUG_ID:
        folder = find_mplug("judge vqa")
    else:
        folder = resolve_folder(weights, relative_to, "configuration.json, weights and vocabulary of mPLUG")
    return VQAJudge(MPlugJudge(folder, device), whole_question, QUESTION)


def _answer(log_odds: np.ndarray) -> Answer:
    """`log_odds` (questions,) are log(p / (1 - p))."""
    mean = float(np.mean(-np.logaddexp(0.0, -log_odds)))
    # Never quite sure: the logarithm of the rest stays finite.
    mean = min(mean, -sys.float_info.min)
    return Answer(mean, math.log(-math.expm1(mean)))
