"""What a judge is: an image-and-text model that answers questions about an image.

Every judge has weights to load and an identity (`Judge`). A `QuestionJudge` answers questions with yes or no, which is what
DPG-Bench needs. A `ReadingJudge` answers in its own words, reads text, and says how probable an answer is. A `PromptJudge`
says whether an image shows its prompt, which is what a search needs; one is made of a judge that answers questions by a rule
that turns a prompt into questions.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from sana_bench.core.errors import SuiteError
from sana_bench.core.preprocess import prefetch
from sana_bench.suites.schema import JudgeSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Answer",
    "AskedAtOnce",
    "CutsQuestions",
    "Distant",
    "FirstToken",
    "Judge",
    "PromptJudge",
    "QuestionJudge",
    "ReadingJudge",
    "YesNo",
    "needs_fp32",
    "over_images",
]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Answer:
    """A judge's words, and the probability of yes where the judge works with one."""

    text: str
    p_yes: float | None = None


@dataclass(frozen=True)
class FirstToken:
    """The token that begins a spelling, by its id in the judge's vocabulary, and its probability as the next token.

    The probability is that of a softmax over the whole vocabulary. `whole` says whether the token is the spelling to its end.
    """

    token: int
    probability: float
    whole: bool = True


@dataclass(frozen=True)
class YesNo:
    """How strongly a judge says yes and no to whether an image shows its prompt; log-probabilities where it has any.

    Raises ValueError for values that are not numbers.
    """

    yes: float
    no: float

    def __post_init__(self) -> None:
        if math.isnan(self.yes) or math.isnan(self.no):
            raise ValueError("a judge answered with a value that is not a number")

    @property
    def says_yes(self) -> bool:
        """Whether the answer is yes; undecided counts as no."""
        return self.yes > self.no


@runtime_checkable
class CutsQuestions(Protocol):
    """A judge whose tokenizer cuts long questions."""

    @property
    def question_limit(self) -> int:
        """Tokens of a question that it reads, the special ones included."""
        ...

    def cut(self, questions: Sequence[str]) -> list[bool]:
        """Say of each question whether it is read without its end."""
        ...


@runtime_checkable
class AskedAtOnce(Protocol):
    """A judge that can be asked about several images at the same time, from as many threads."""

    @property
    def images_at_once(self) -> int:
        """About how many."""
        ...

    def stop(self) -> None:
        """Give up what is being asked."""
        ...


@runtime_checkable
class Distant(Protocol):
    """A judge that another machine answers for, or can."""

    def reach(self, tries: int) -> None:
        """Ask whether it is there; of one on this machine, nothing.

        Raises `AssetError` where nobody has answered after so many tries, and `UsageError` for a server that will not do.
        """
        ...


class Judge(Protocol):
    """What all judges have. Making one reads weights only to hash them; what it says is a pure function of what it is shown."""

    def load(self) -> None:
        """Load now what is otherwise loaded on first use; raises `AssetError` for files that are not what they should be."""
        ...

    def identity(self) -> dict[str, Any]:
        """Everything that can change what it says: network, settings, hashes of weights. JSON-able."""
        ...


class QuestionJudge(Judge, Protocol):
    """Answers questions about one image."""

    def answers(self, image: "NDArray[np.uint8]", questions: Sequence[str]) -> list[Answer]:
        """One answer a question about an RGB image (height, width, 3), in order."""
        ...


@runtime_checkable
class ReadingJudge(Judge, Protocol):
    """Answers in its own words, and says how probably an answer begins with given spellings.

    Images are RGB (height, width, 3). All questions about an image belong in one call, which encodes the image once. A question
    is complete: what tells the judge how to answer is a part of it. Each is answered on its own.
    """

    def probabilities(
        self, image: "NDArray[np.uint8]", questions: Sequence[str], spellings: Sequence[Sequence[str]]
    ) -> list[list[FirstToken]]:
        """One list a question, with an entry for each of its spellings in order; a first token that several share is repeated."""
        ...

    def answer(
        self, image: "NDArray[np.uint8]", questions: Sequence[str], *, max_tokens: int = 16
    ) -> list[str]:
        """One answer a question, in order: the most probable token at each step, `max_tokens` at most, no space around."""
        ...

    def read_text(self, image: "NDArray[np.uint8]", request: str, *, max_tokens: int = 1024) -> str:
        """The text that the judge reads in an image when it is asked by `request`."""
        ...


@runtime_checkable
class PromptJudge(Judge, Protocol):
    """Says whether images show their prompts, each judged on its own."""

    def judge(self, prompts: Sequence[str], images: "NDArray[np.uint8]") -> list[YesNo]:
        """One pair of scores for each prompt and RGB image (n, height, width, 3), in order."""
        ...


def over_images(judge: Judge, work: Callable[[_Item], _Result], images: Sequence[_Item]) -> list[_Result]:
    """What `work`, which asks the judge, makes of each image, in order; of several at the same time where the judge allows it."""
    if not isinstance(judge, AskedAtOnce) or judge.images_at_once == 1:
        return [work(image) for image in images]
    return list(prefetch(work, images, judge.images_at_once, judge.stop))


def needs_fp32(spec: JudgeSpec) -> None:
    """Raise `SuiteError` when a judge that computes in fp32 alone is asked for another precision."""
    if spec.precision != "fp32":
        raise SuiteError(f"best_of_n.judge: {spec.name} computes in fp32; precision is {spec.precision}")
