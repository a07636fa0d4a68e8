"""Text that a judge reads off images, against the text that was asked for: what the text benchmarks share."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from sana_bench.core.errors import UsageError

__all__ = [
    "HALLUCINATED",
    "REQUEST",
    "Language",
    "check_language",
    "has_chinese",
    "kept",
    "n_matched",
    "without",
]

Language = Literal["en", "zh"]

#: What a judge is asked for a text, in both benchmarks word for word (X-Omni's `textbench`, Apache-2.0).
REQUEST = (
    "Recognize the text in the image, only reply with the text content, but avoid repeating previously mentioned content. "
    "If no text is recognized, please reply with 'No text recognized'."
)

#: What the reader says without being asked to, in the order in which the published scripts remove it.
HALLUCINATED = ("addCriterion", "No text recognized.")

_CHINESE = "\u4e00-\u9fa5"
_LETTERS = "a-zA-Z0-9àâäéèêëîïôöùûüçÀÂÄÉÈÊËÎÏÔÖÙÛÜÇ"
_DROPPED = re.compile(rf"[^{_CHINESE}{_LETTERS}\s]")


def check_language(language: str) -> None:
    """Raise `UsageError` for anything but `en` and `zh`."""
    if language not in get_args(Language):
        raise UsageError(f"language: {language!r}, expected 'en' or 'zh'")


def language_of(record: Mapping[str, Any], where: str) -> str:
    """The `language` of a prompt's record, `en` where it has none; the message of a `UsageError` begins with `where`."""
    language = record.get("language", "en")
    try:
        check_language(language)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return str(language)


def kept(text: str, *, blanks: bool) -> str:
    """Digits, Latin letters with the accents of French and Chinese characters; runs of white space as one blank, or none."""
    return (" " if blanks else "").join(_DROPPED.sub("", text).split())


def has_chinese(text: str) -> bool:
    """Whether a Chinese character is in `text`."""
    return re.search(f"[{_CHINESE}]", text) is not None


def without(text: str, phrase: str) -> str:
    """`text` with the phrase taken out, then what is left of it at the end and at the beginning of a line."""
    for part in (phrase, f"\n{phrase}", f"{phrase}\n"):
        text = text.replace(part, "")
    return text


def n_matched(wanted: Iterable[str], read: Iterable[str]) -> int:
    """How many words or characters the two have in common, each as often as both have it."""
    return (Counter(wanted) & Counter(read)).total()
