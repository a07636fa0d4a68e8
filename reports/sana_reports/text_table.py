"""A titled table of ready text, for parts of a report that are neither scores nor samples."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["TextTable"]


# Characters; the longest intervals and names have fewer.
_SENTENCE = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """`header` names the columns, the first of which names the rows; `notes` are sentences below the table.

    Raises `ValueError` for a row of another length than the header.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    @property
    def wordy(self) -> frozenset[int]:
        """Columns that have a sentence in some cell, and may take several lines; the names and numbers of others stay on one."""
        columns = range(len(self.header))
        return frozenset(place for place in columns if any(len(row[place]) > _SENTENCE for row in self.rows))

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"{self.title}: a row of {len(row)} cells under {len(self.header)} columns")
