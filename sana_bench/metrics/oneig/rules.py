"""OneIG-Bench's rules for alignment and text: from a judge's answers and readings to scores.

Reference: `scripts/alignment` and `scripts/text` of OneIG-Bench/OneIG-Benchmark (Chang et al. 2025, arXiv 2506.07977).
Nothing here looks at pixels or loads a network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as short
from typing import TYPE_CHECKING, Any, TypedDict

from sana_bench.core import fields
from sana_bench.core.errors import UsageError
from sana_bench.core.fields import entries, field
from sana_bench.metrics.read_text import HALLUCINATED, check_language, has_chinese, kept, n_matched, without

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Reading",
    "TextScore",
    "alignment",
    "compare",
    "contributions",
    "counted",
    "edit_distance",
    "pairwise_distance",
    "pooled",
    "text",
]

_YES = "Yes"
# Edit distances from here up count as this, per language.
_MAX_DISTANCE = {"en": 100, "zh": 50}


class TextScore(TypedDict):
    """Text rendering over a set of images.

    `ED` is the mean edit distance, `CR` the share of images with distance 0, `WAC` the share of asked-for words (Chinese:
    characters) that were read, pooled over images. `score` = 1 - min(MAX, ED) (1 - CR) (1 - WAC) / MAX, with MAX 100 in English
    and 50 in Chinese.
    """

    ED: float
    CR: float
    WAC: float
    score: float


@dataclass(frozen=True)
class Reading:
    """One image's text against what was asked for: edit distance in characters, words matched, words asked for."""

    edit_distance: int
    matched: int
    words: int


def alignment(dependency: Mapping[Any, Sequence[int]], answers: Mapping[Any, Sequence[str]]) -> float:
    """The alignment score of one prompt, from 0 to 1: the mean over images of the share of questions that count.

    A question counts in an image when it is answered with exactly `Yes` and so is every question it depends on. Only those
    own answers matter, as in the published script: a parent that its own parent undoes still carries its children.

    Args:
        dependency: by question id (a number or its text), the ids of the questions it depends on, 0 for none.
        answers: by question id, one answer an image.

    Raises:
        UsageError: no questions, other questions in `dependency` than in `answers`, a parent that is not asked, or unequally
            many images; the message names the question.
    """
    parents = {key: _parents(value, key) for key, value in _by_question(dependency, "dependency").items()}
    yes = {key: _yes(value, key) for key, value in _by_question(answers, "answers").items()}
    if lonely := sorted(parents.keys() ^ yes.keys()):
        place = "answers" if lonely[0] in parents else "dependency"
        raise UsageError(f"{place}: question {lonely[0]} is missing")
    n_images = len(next(iter(yes.values())))
    for key, says in yes.items():
        if len(says) != n_images:
            raise UsageError(f"answers[{key}]: {len(says)} answers, the others have {n_images}")
        if unknown := [parent for parent in parents[key] if parent not in yes]:
            raise UsageError(f"dependency[{key}]: question {unknown[0]} is not asked")
    images = [{key: says[image] for key, says in yes.items()} for image in range(n_images)]
    shares = [sum(counted(parents, image).values()) / len(yes) for image in images]
    return sum(shares) / n_images


def counted(parents: Mapping[int, Sequence[int]], yes: Mapping[int, bool]) -> dict[int, bool]:
    """By question, whether it counts in one image: it is answered with yes, and so are its parents (0 for none)."""
    return {
        key: says and all(yes[parent] for parent in parents[key] if parent != 0) for key, says in yes.items()
    }


def text(images: Sequence[Mapping[str, Any]], language: str) -> TextScore:
    """Score the text in images. Case matters; punctuation does not.

    Args:
        images: one record an image: `text`, what was asked for, and `read`, what the judge read. Other fields are ignored.
        language: `en` or `zh`; decides how much an edit counts. Whether words or characters are compared depends on the text.

    Raises:
        UsageError: no images, no word asked for in any of them, another language, or a field that is missing or no text; the
            message names image and field.
    """
    check_language(language)
    readings = []
    for index, image in enumerate(entries(images, "images")):
        where = f"images[{index}]"
        wanted = fields.text(field(image, where, "text"), f"{where}.text")
        read = fields.text(field(image, where, "read"), f"{where}.read")
        readings.append(compare(wanted, read))
    if sum(reading.words for reading in readings) == 0:
        raise UsageError("images: no text has a word in it")
    return pooled(readings, language)


def pooled(readings: Sequence[Reading], language: str) -> TextScore:
    """The text score of a set of images, of which at least one asks for a word."""
    distance = sum(reading.edit_distance for reading in readings) / len(readings)
    complete = sum(reading.edit_distance == 0 for reading in readings) / len(readings)
    accuracy = sum(reading.matched for reading in readings) / sum(reading.words for reading in readings)
    largest = _MAX_DISTANCE[language]
    score = 1 - min(largest, distance) * (1 - complete) * (1 - accuracy) / largest
    return {"ED": distance, "CR": complete, "WAC": accuracy, "score": score}


def contributions(images: Sequence[Mapping[str, Any]]) -> list[float]:
    """What each image of a set of texts in one language adds to its score: numbers whose mean is the score.

    The score is a product of means and a ratio; these are its linear part, so that paired differences of them are those of the
    score, to first order.

    Args:
        images: records with the fields of `Reading` and `language`.
    """
    readings = [Reading(*(image[name] for name in ("edit_distance", "matched", "words"))) for image in images]
    language = images[0]["language"]
    found, largest = pooled(readings, language), _MAX_DISTANCE[language]
    distance, wrong, unread = min(largest, found["ED"]), 1 - found["CR"], 1 - found["WAC"]
    by_distance = -wrong * unread / largest if found["ED"] < largest else 0.0
    by_complete, by_accuracy = distance * unread / largest, distance * wrong / largest
    mean_words = sum(reading.words for reading in readings) / len(readings)
    return [
        found["score"]
        + by_distance * (reading.edit_distance - found["ED"])
        + by_complete * ((reading.edit_distance == 0) - found["CR"])
        + by_accuracy * (reading.matched - found["WAC"] * reading.words) / mean_words
        for reading in readings
    ]


def pairwise_distance(embeddings: "NDArray[np.floating[Any]]") -> float:
    """The mean over all pairs of 1 - cosine, of at least two embeddings (n, d); computed in float64."""
    import numpy as np

    rows = np.asarray(embeddings, dtype=np.float64)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = np.triu_indices(len(rows), k=1)
    return float(np.mean(1 - np.sum(rows[pairs[0]] * rows[pairs[1]], axis=1)))


def compare(text: str, read: str) -> Reading:
    """One image's reading against the text that was asked for.

    The phrases of `HALLUCINATED` are removed from the reading, and all but letters, digits and Chinese characters from both. A
    side that has Chinese in it loses its white space too. Words are matched in any order; where `text` has Chinese, characters.
    """
    for phrase in HALLUCINATED:
        read = without(read, phrase)
    wanted, found = (kept(side, blanks=not has_chinese(side)) for side in (text, read))
    units = (wanted, found) if has_chinese(wanted) else (wanted.split(), found.split())
    return Reading(edit_distance(found, wanted), n_matched(*units), len(units[0]))


def edit_distance(first: str, second: str) -> int:
    """The least number of characters to insert, delete or replace to turn one text into the other (Levenshtein)."""
    import numpy as np

    codes = np.array([ord(character) for character in second], dtype=np.int64)
    steps = np.arange(len(second) + 1)
    row = steps
    for character in first:
        above = np.concatenate(([row[0] + 1], np.minimum(row[1:] + 1, row[:-1] + (codes != ord(character)))))
        # Insertions: the cheapest way to any place on the left, and one step for each character from there.
        row = np.minimum.accumulate(above - steps) + steps
    return int(row[-1])


def _by_question(value: Any, where: str) -> dict[int, Any]:
    if not isinstance(value, Mapping) or not value:
        raise UsageError(f"{where}: expected an entry for each question, got {short(value)}")
    found: dict[int, Any] = {}
    for name, entry in value.items():
        if not str(name).isdecimal() or int(name) == 0:
            raise UsageError(f"{where}: the question id {name!r} is not a whole number from 1 up")
        if int(name) in found:
            raise UsageError(f"{where}: question {int(name)} appears twice")
        found[int(name)] = entry
    return found


def _parents(value: Any, key: int) -> list[int]:
    where = f"dependency[{key}]"
    parents = [fields.whole_number(parent, where, at_least=0) for parent in entries(value, where)]
    return [parent for parent in parents if parent != 0]


def _yes(value: Any, key: int) -> list[bool]:
    where = f"answers[{key}]"
    return [fields.text(answer, where) == _YES for answer in entries(value, where)]
