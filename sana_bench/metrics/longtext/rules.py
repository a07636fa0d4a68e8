"""LongText-Bench's rule: from what a judge reads off images to the share of the text that is there.

Reference: `textbench` of X-Omni-Team/X-Omni (Geng et al. 2025, arXiv 2507.22058). Nothing here looks at pixels or loads a
network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sana_bench.core import fields
from sana_bench.core.errors import UsageError
from sana_bench.core.fields import entries, field
from sana_bench.metrics.read_text import HALLUCINATED, check_language, kept, language_of, n_matched, without

__all__ = ["Match", "asked_texts", "compare", "contributions", "score"]


@dataclass(frozen=True)
class Match:
    """Words (Chinese: characters) of one image that were read as asked for, and how many were asked for."""

    matched: int
    words: int


def score(images: Sequence[Mapping[str, Any]], language: str) -> float:
    """The share of all words (Chinese: characters) asked for that were read, from 0 to 1, pooled over images.

    Words are matched in any order, each as often as both sides have it. Punctuation does not matter; case does not in English.

    The published cleaner is meant to remove two phrases that the reader makes up, `addCriterion` and `No text recognized.`, but
    keeps only the effect of the last: `addCriterion` stays in the reading. That is reproduced. In English it adds one word at
    most and changes a score only where it is joined to a word or asked for; in Chinese its letters may match letters asked for.

    Args:
        images: one record an image: `text`, the list of texts asked for, and `read`, what the judge read. Other fields are
            ignored.
        language: `en` or `zh`.

    Raises:
        UsageError: no images, no word asked for in any of them, another language, or a field that is missing or of another kind;
            the message names image and field.
    """
    check_language(language)
    matches = []
    for index, image in enumerate(entries(images, "images")):
        where = f"images[{index}]"
        texts = entries(field(image, where, "text"), f"{where}.text")
        wanted = [fields.text(part, f"{where}.text[{place}]") for place, part in enumerate(texts)]
        read = fields.text(field(image, where, "read"), f"{where}.read")
        matches.append(compare(wanted, read, language))
    n_words = sum(match.words for match in matches)
    if n_words == 0:
        raise UsageError("images: no text has a word in it")
    return sum(match.matched for match in matches) / n_words


def asked_texts(record: Mapping[str, Any], where: str) -> tuple[list[str], str]:
    """The texts that a prompt's record asks for (`text`) and their `language`, `en` where it has none.

    Raises:
        UsageError: texts that are missing, of another kind or without a word, or another language; it begins with `where`.
    """
    texts = entries(field(record, where, "text"), f"{where}: text")
    wanted = [fields.text(part, f"{where}: text[{place}]") for place, part in enumerate(texts)]
    language = language_of(record, where)
    if compare(wanted, "", language).words == 0:
        raise UsageError(f"{where}: text: there is no word in it")
    return wanted, language


def contributions(images: Sequence[Mapping[str, Any]]) -> list[float]:
    """What each image of a set adds to its score: numbers whose mean is the pooled score, images with much text counting more.

    The share is a ratio of sums; these are its linear part (Cochran, Sampling Techniques, 1977, section 6.3), so that paired
    differences of them are those of the score.

    Args:
        images: records with `matched` and `words`, the words read and asked for.
    """
    matched, words = ([image[name] for image in images] for name in ("matched", "words"))
    share, mean = sum(matched) / sum(words), sum(words) / len(words)
    return [share + (found - share * asked) / mean for found, asked in zip(matched, words, strict=True)]


def compare(texts: Sequence[str], read: str, language: str) -> Match:
    """One image's reading against the texts that were asked for, by the rule of `score`."""
    # Not every phrase: see `score`.
    sides = (" ".join(texts), without(read, HALLUCINATED[-1]))
    if language == "en":
        wanted, found = (kept(side, blanks=True).lower().split() for side in sides)
        return Match(n_matched(wanted, found), len(wanted))
    wanted_characters, found_characters = (kept(side, blanks=False) for side in sides)
    return Match(n_matched(wanted_characters, found_characters), len(wanted_characters))
