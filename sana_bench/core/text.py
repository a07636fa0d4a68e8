"""Text files, the same on every system: UTF-8, and lines that end at a line feed."""

import re
import unicodedata
from pathlib import Path

__all__ = ["difference", "escaped", "lines", "lone_surrogate", "look_alike", "read_text"]

# Code points of a difference that a message names.
_SHOWN = 8
_HALF = re.compile("[\ud800-\udfff]")


def read_text(path: Path) -> str:
    """`sana_models.files.read_text`, imported where a file is read: `--help` reads none."""
    from sana_models.files import read_text as read

    return read(path)


def lines(text: str) -> list[str]:
    """Return the lines of a text, which end at a line feed or at carriage return and line feed.

    `str.splitlines` also ends them at U+2028, U+0085 and others, which JSON leaves as they are inside a string.
    """
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def lone_surrogate(text: str) -> str | None:
    """Return the first character of a text that is half of a pair, as `U+D800`; no file can keep such a text."""
    found = _HALF.search(text)
    return None if found is None else _code_points(found[0])


def escaped(text: str, keep: str = "\n\t") -> str:
    """Return a text for a terminal, a log or a page, where characters that move, hide or turn what is shown stand as in JSON.

    These are control characters (but those in `keep`), marks of direction and other invisible ones, line ends of Unicode, halves
    of a pair, and what is no character. The two joiners of scripts and emoji are left.
    """
    if text.isprintable():
        return text
    return "".join(
        _as_json(character) if character not in keep and _is_unseen(character) else character
        for character in text
    )


def _as_json(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))


def _is_unseen(character: str) -> bool:
    if character in "\u200c\u200d":
        return False
    return (
        unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") or ord(character) & 0xFFFE == 0xFFFE
    )


def look_alike(text: str) -> str:
    """Return what texts that look the same share: forms of characters, spaces and invisible characters do not count."""
    composed = unicodedata.normalize("NFKC", text)
    visible = "".join(character for character in composed if unicodedata.category(character) != "Cf")
    return " ".join(visible.split())


def difference(found: str, expected: str) -> str:
    """Say where a text that looks like another differs from it, by code points."""
    place = _agreeing(found, expected)
    tail = _agreeing(found[place:][::-1], expected[place:][::-1])
    ends = len(found) - tail, len(expected) - tail
    here, there = (_code_points(text[place:end]) for text, end in zip((found, expected), ends, strict=True))
    return f"character {place + 1} is {here} here and {there} there"


def _agreeing(one: str, other: str) -> int:
    """Length of the beginning that two texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _code_points(text: str) -> str:
    shown = [f"U+{ord(character):04X}" for character in text[:_SHOWN]]
    return " ".join([*shown, ".."] if len(text) > _SHOWN else shown) or "nothing"
