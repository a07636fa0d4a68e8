"""mPLUG as a judge of inference-time scaling: how probably it says yes to questions about what the prompt asks for."""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sana_bench.assets.locate import MICRO_SCHEME, resolve_folder
from sana_bench.core.errors import AssetError, SuiteError
from sana_bench.judges.base import YesNo, needs_fp32
from sana_bench.judges.mplug.judge import MPLUG_ID, MPlugJudge, find_mplug
from sana_bench.micro.prompt_claims import prompt_claims
from sana_bench.suites.schema import JudgeSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["QUESTION", "VQAJudge", "build_vqa", "claim_questions", "whole_question"]

#: What the published network is asked; `{prompt}` is the image's prompt. It reads 25 tokens of it.
QUESTION = "Does the image show {prompt}?"
_MICRO_WEIGHTS = f"{MICRO_SCHEME}vqa"

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
        self._network.load()

    def identity(self) -> dict[str, Any]:
        return {"judge": "vqa@1", "questions": self._kind, **self._network.identity()}

    def judge(self, prompts: Sequence[str], images: "NDArray[np.uint8]") -> list[YesNo]:
        """Raises `SuiteError` for a prompt that has no questions."""
        return [
            yes_no(self._network.log_odds(image, self._questions(prompt)))
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


def build_vqa(spec: JudgeSpec, relative_to: Path, device: str) -> VQAJudge:
    """The judge `vqa`: micro weights, the default, ask about claims, published ones about the whole prompt.

    Raises `SuiteError` for another precision than fp32 and `AssetError` for missing weights.
    """
    needs_fp32(spec)
    weights = spec.weights or _MICRO_WEIGHTS
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


def yes_no(log_odds: "NDArray[np.float64]") -> YesNo:
    """`log_odds` (questions,) are log(p / (1 - p))."""
    import numpy as np

    mean = float(np.mean(-np.logaddexp(0.0, -log_odds)))
    # Never quite sure: the logarithm of the rest stays finite.
    mean = min(mean, -sys.float_info.min)
    return YesNo(mean, math.log(-math.expm1(mean)))
