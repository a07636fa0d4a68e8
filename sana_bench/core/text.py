"""Text files, the same on every system: UTF-8, and lines that end at a line feed."""

from pathlib import Path

__all__ = ["lines", "read_text"]


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text, without the byte order mark that some editors write and otherwise as it is.

    Raises `OSError`, and `UnicodeDecodeError` for other bytes.
    """
    return path.read_bytes().decode("utf-8-sig")


def lines(text: str) -> list[str]:
    """Return the lines of a text, which end at a line feed or at carriage return and line feed.

    `str.splitlines` also ends them at U+2028, U+0085 and others, which JSON leaves as they are inside a string.
    """
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
