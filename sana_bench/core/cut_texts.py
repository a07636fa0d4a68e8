"""How many texts a network was given without their end, because its tokenizer cuts them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["CUT_TEXTS", "CutTexts", "cut_lines"]

#: The kind of the event that a run records them as.
CUT_TEXTS = "cut_texts"


@dataclass(frozen=True)
class CutTexts:
    """`n_cut` of `n_texts` distinct texts were longer than the `limit` in tokens, the special ones included.

    `reader` is who was given them, such as `text encoder`, and `texts` what they are.
    """

    reader: str
    limit: int
    n_texts: int
    n_cut: int
    texts: str = "prompts"

    @classmethod
    def count(cls, reader: str, limit: int, cut: Sequence[bool], texts: str = "prompts") -> Self:
        """Count the texts that were cut."""
        return cls(reader, limit, len(cut), sum(cut), texts)


def cut_lines(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each model and metric of a run that was given texts without their end, from the run's events."""
    found = [event for event in events if event.get("kind") == CUT_TEXTS and event["n_cut"]]
    return [
        f"{event['of']} read {event['n_cut']} of {event['n_texts']} {event['texts']} of {event['benchmark']} "
        f"without their end: {event['reader']} takes {event['limit']} tokens."
        for event in found
    ]
