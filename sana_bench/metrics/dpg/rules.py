"""DPG-Bench's rules: from answers about one prompt's images to its score, as published and as corrected.

A question counts when it is answered with the exact string `yes` and the questions it depends on count too.
Nothing here looks at pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from sana_bench.core.errors import AssetError, BenchError

__all__ = [
    "MissingParentError",
    "PromptScores",
    "broad_category",
    "category",
    "check_graph",
    "raw_score",
    "score_official",
    "score_strict",
    "zeroed_official",
    "zeroed_strict",
]

Question = Mapping[str, Any]
Answers = Mapping[str, str] | Mapping[int, str]
Scores = dict[int, float]

YES = "yes"


class MissingParentError(BenchError):
    """A question depends on one that is not asked; the published script then leaves the image out."""


@dataclass(frozen=True)
class PromptScores:
    """Scores of one prompt, all in [0, 1].

    `image_scores` has one number per image, `prompt_score` is their mean, and `category_inputs` gives each
    proposition id (as text) what it adds to the means of its categories.
    """

    image_scores: list[float]
    prompt_score: float
    category_inputs: dict[str, float]


def score_official(questions: Sequence[Question], answers_per_image: Sequence[Answers]) -> PromptScores:
    """Score as `compute_dpg_bench.py` of TencentQQGYLab/ELLA does, for the questions it is given.

    Dependencies are followed in file order, so a child listed before its parent is judged by the parent's own
    answer. Categories get the last image's answers, without regard to dependencies.

    Args:
        questions: records with `proposition_id`, `dependency` (parent ids, 0 for none), in file order.
        answers_per_image: for each image its answers by proposition id, as int or text.

    Raises:
        MissingParentError: a question depends on one that is not there.
        ValueError: no images, no questions, or an answer is missing.
    """
    raw = _raw(questions, answers_per_image)
    images = [_mean(list(zeroed_official(questions, scores).values())) for scores in raw]
    return PromptScores(images, _mean(images), {str(key): value for key, value in raw[-1].items()})


def score_strict(questions: Sequence[Question], answers_per_image: Sequence[Answers]) -> PromptScores:
    """Score by the corrected reading: parents always first, and categories from every image.

    A category gets each question's mean over all images, after dependencies are applied, so that categories
    and overall score speak of the same numbers.

    Raises:
        AssetError: the dependencies point at no question, or in a circle.
        ValueError: no images, no questions, or an answer is missing.
    """
    final = [zeroed_strict(questions, scores) for scores in _raw(questions, answers_per_image)]
    images = [_mean(list(scores.values())) for scores in final]
    inputs = {str(key): _mean([scores[key] for scores in final]) for key in final[0]}
    return PromptScores(images, _mean(images), inputs)


def raw_score(answer: str) -> float:
    """1 for exactly `yes`, else 0: `Yes` and `yes it is` count as no."""
    return 1.0 if answer == YES else 0.0


def zeroed_official(questions: Sequence[Question], raw: Scores) -> Scores:
    """Scores after dependencies in file order, in place of each other as the published script does."""
    scores = dict(raw)
    for question in questions:
        for parent in _parents(question):
            if parent not in scores:
                raise MissingParentError(_missing(question, parent))
            if scores[parent] == 0:
                scores[question["proposition_id"]] = 0.0
    return scores


def zeroed_strict(questions: Sequence[Question], raw: Scores) -> Scores:
    """Scores after dependencies, parents before children; raises `AssetError` for a broken graph."""
    parents = {question["proposition_id"]: _parents(question) for question in questions}
    scores = dict(raw)
    for key in check_graph(questions):
        if any(scores[parent] == 0 for parent in parents[key]):
            scores[key] = 0.0
    return scores


def check_graph(questions: Sequence[Question]) -> list[int]:
    """The proposition ids with parents before children; raises `AssetError` for an unknown parent or a cycle."""
    parents = {question["proposition_id"]: _parents(question) for question in questions}
    for question in questions:
        for parent in _parents(question):
            if parent not in parents:
                raise AssetError(_missing(question, parent))
    try:
        return list(TopologicalSorter(parents).static_order())
    except CycleError as error:
        circle = " -> ".join(str(key) for key in error.args[1])
        raise AssetError(f"questions depend on each other in a circle: {circle}") from None


def category(question: Question) -> str:
    """The detailed category, e.g. `attribute - color`: the question's tuple up to its bracket."""
    return str(question["tuple"]).split("(")[0].strip()


def broad_category(question: Question) -> str:
    """The category before the dash, e.g. `attribute`."""
    return category(question).split("-")[0].strip()


def _raw(questions: Sequence[Question], answers_per_image: Sequence[Answers]) -> list[Scores]:
    if not questions or not answers_per_image:
        raise ValueError(f"{len(questions)} questions about {len(answers_per_image)} images give no score")
    keys = [int(question["proposition_id"]) for question in questions]
    return [{key: raw_score(find(key)) for key in keys} for find in map(_finder, answers_per_image)]


def _finder(answers: Answers) -> Callable[[int], str]:
    known = {int(key): answer for key, answer in answers.items()}

    def find(key: int) -> str:
        if key not in known:
            raise ValueError(f"question {key} has no answer")
        return known[key]

    return find


def _parents(question: Question) -> list[int]:
    return [parent for parent in question["dependency"] if parent != 0]


def _missing(question: Question, parent: int) -> str:
    return f"question {question['proposition_id']} depends on {parent}, which is not asked"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
