"""GenEval 2's rules: from the judge's token probabilities to the soft score of a question, and from those to Soft-TIFA.

Reference: `evaluation.py` and `soft_tifa_analysis.py` of facebookresearch/GenEval2 (Kamath et al. 2025, arXiv 2512.16853).
Nothing here looks at pixels or loads a network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, fsum, inf, log
from typing import Any, TypedDict

from sana_bench.core.errors import UsageError, nearest
from sana_bench.core.fields import entries, field, number, text, whole_number

__all__ = [
    "DISTINCT_TOKENS",
    "INSTRUCTION",
    "OFFICIAL",
    "Question",
    "SoftTIFA",
    "accepted_spellings",
    "geometric_mean",
    "questions",
    "soft_score",
    "summarise",
]

#: First tokens that several spellings share count once for each of them, as in the published script.
OFFICIAL = "geneval2/official@1"
#: The same with every first token counted once: a score is a probability again.
DISTINCT_TOKENS = "geneval2/distinct-tokens@1"

#: What follows each question, after a blank.
INSTRUCTION = "Answer in one word."

_COUNT_QUESTION = "How many"
_YES = ("Yes", "yes", " yes", " Yes")
_NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(value) for value, word in enumerate(_NUMBER_WORDS, start=1)}
# A softmax in float32 sums to 1 within about 1e-6 over a vocabulary of 150,000; more is no rounding.
_LARGEST_PROBABILITY = 1 + 1e-6


@dataclass(frozen=True)
class Question:
    """What is asked about an image, the right answer (a number word from one to ten, or `Yes`), and the skill that it tests."""

    text: str
    answer: str
    skill: str


class SoftTIFA(TypedDict):
    """Soft-TIFA of a whole set, in percent.

    `am` and `gm` are means over prompts of the arithmetic and the geometric mean of a prompt's question scores; `per_skill`
    pools the questions of all prompts, `per_atom_count` is `gm` over the prompts of one atom count, its keys as text.
    """

    am: float
    gm: float
    per_skill: dict[str, float]
    per_atom_count: dict[str, float]


def summarise(rows: Sequence[Mapping[str, Any]]) -> SoftTIFA:
    """Soft-TIFA over prompts, as the official analysis computes it.

    A score of 0 makes its prompt's geometric mean 0. Scores above 1, which double-counted first tokens give, stay as they are,
    so that a result may exceed 100. Skills and atom counts that no row has are left out.

    Args:
        rows: one record a prompt: `atom_count` (a whole number from 1 up), `skills` (a name a question) and `scores` (a number
            from 0 up for each, in the same order).

    Raises:
        UsageError: no rows, or a field that is missing or of another kind; the message names row and field.
    """
    by_skill: dict[str, list[float]] = {}
    by_atom_count: dict[int, list[float]] = {}
    means = []
    for index, row in enumerate(entries(rows, "rows")):
        atom_count, skills, scores = _fields(row, f"rows[{index}]")
        for skill, score in zip(skills, scores, strict=True):
            by_skill.setdefault(skill, []).append(score)
        by_atom_count.setdefault(atom_count, []).append(geometric_mean(scores))
        means.append(_mean(scores))
    return {
        "am": 100 * _mean(means),
        "gm": 100 * _mean([score for scores in by_atom_count.values() for score in scores]),
        "per_skill": {skill: 100 * _mean(by_skill[skill]) for skill in sorted(by_skill)},
        "per_atom_count": {str(count): 100 * _mean(by_atom_count[count]) for count in sorted(by_atom_count)},
    }


def questions(record: Mapping[str, Any], where: str) -> list[Question]:
    """The questions of a prompt's record: its pairs of question and answer in `vqa_list`, and a skill for each in `skills`.

    Raises:
        UsageError: a field is missing or of another kind, or an answer cannot be scored; the message begins with `where`.
    """
    pairs = entries(field(record, where, "vqa_list"), f"{where}: vqa_list")
    skills = entries(field(record, where, "skills"), f"{where}: skills")
    if len(pairs) != len(skills):
        raise UsageError(f"{where}: {len(pairs)} pairs in vqa_list for {len(skills)} skills")
    found = []
    for place, (pair, skill) in enumerate(zip(pairs, skills, strict=True)):
        at = f"{where}: vqa_list[{place}]"
        parts = entries(pair, at)
        if len(parts) != 2:
            raise UsageError(f"{at}: {len(parts)} texts, expected a question and its answer")
        question, answer = (text(part, at) for part in parts)
        try:
            accepted_spellings(question, answer)
        except UsageError as error:
            raise UsageError(f"{at}: {error}") from None
        found.append(Question(question, answer, text(skill, f"{where}: skills[{place}]")))
    return found


def accepted_spellings(question: str, answer: str) -> list[str]:
    """The spellings whose first tokens count as the right answer, in the official order.

    Six for a question that begins with `How many`: the number word as it is and capitalised, each without and with a blank in
    front, then the digit without and with one. Four for any other: `Yes` and `yes`, without and with a blank.

    Qwen's tokenizer splits a blank from a digit: the first token of ` 7` is the blank, whose probability is then part of every
    count's score, by either protocol.

    Raises:
        UsageError: the answer to a count is not a number word from one to ten, or that to another question is not `Yes`.
    """
    if question.startswith(_COUNT_QUESTION):
        if answer not in _DIGITS:
            raise UsageError(
                f"answer: {answer!r} is not a number word from one to ten{nearest(answer, _DIGITS)}"
            )
        words = (answer, answer.capitalize(), f" {answer}", f" {answer.capitalize()}")
        return [*words, _DIGITS[answer], f" {_DIGITS[answer]}"]
    if answer != "Yes":
        raise UsageError(f"answer: {answer!r}, but only 'Yes' is right for a question that counts nothing")
    return list(_YES)


def soft_score(
    first_tokens: Sequence[int], probabilities: Mapping[int, float], protocol: str = OFFICIAL
) -> float:
    """The judge's probability of the right answer to one question.

    By `geneval2/official@1` the probabilities of the first tokens are added up spelling by spelling: a token that begins two
    spellings counts twice, and the score may exceed 1. By `geneval2/distinct-tokens@1` each token counts once.

    Args:
        first_tokens: token id that begins each accepted spelling, in their order.
        probabilities: by token id, of the judge's next token over its whole vocabulary.

    Raises:
        UsageError: an unknown protocol, no tokens, or a token whose probability is missing or not from 0 to 1.
    """
    if protocol not in (OFFICIAL, DISTINCT_TOKENS):
        known = (OFFICIAL, DISTINCT_TOKENS)
        raise UsageError(f"protocol: {protocol!r}, expected {' or '.join(known)}{nearest(protocol, known)}")
    tokens = entries(first_tokens, "first_tokens")
    counted = tokens if protocol == OFFICIAL else dict.fromkeys(tokens)
    return fsum(_probability(probabilities, token) for token in counted)


def geometric_mean(scores: Sequence[float]) -> float:
    """The geometric mean of scores from 0 up, of which there is at least one: 0 as soon as one of them is."""
    return exp(fsum(map(log, scores)) / len(scores)) if all(scores) else 0.0


def _fields(row: Any, where: str) -> tuple[int, list[str], list[float]]:
    atom_count = whole_number(field(row, where, "atom_count"), f"{where}.atom_count", at_least=1)
    skills = [
        text(skill, f"{where}.skills[{index}]")
        for index, skill in enumerate(entries(field(row, where, "skills"), f"{where}.skills"))
    ]
    scores = [
        number(score, f"{where}.scores[{index}]", at_most=inf)
        for index, score in enumerate(entries(field(row, where, "scores"), f"{where}.scores"))
    ]
    if len(skills) != len(scores):
        raise UsageError(f"{where}: {len(skills)} skills for {len(scores)} scores")
    return atom_count, skills, scores


def _probability(probabilities: Mapping[int, float], token: int) -> float:
    where = f"probabilities[{token!r}]"
    if token not in probabilities:
        raise UsageError(f"{where} is missing")
    return number(probabilities[token], where, at_most=_LARGEST_PROBABILITY)


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)
