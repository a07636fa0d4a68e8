"""Fields of records that other people's scripts hand in: there and of the right kind, or one line that says which is not."""

from collections.abc import Mapping, Sequence
from math import isinf, nan
from numbers import Integral, Real
from reprlib import repr as short
from typing import Any

from sana_bench.core.errors import UsageError

__all__ = ["entries", "field", "number", "text", "whole_number"]


def field(record: Any, where: str, name: str) -> Any:
    """`record[name]`; raises `UsageError` where there is none."""
    if not isinstance(record, Mapping):
        raise UsageError(f"{where}: {short(record)} is not a record with the field {name!r}")
    if name not in record:
        raise UsageError(f"{where}: the field {name!r} is missing")
    return record[name]


def entries(value: Any, where: str) -> list[Any]:
    """The entries of a sequence that is no text; raises `UsageError` for anything else, or when it is empty."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise UsageError(f"{where}: {short(value)} is not a list")
    if not value:
        raise UsageError(f"{where}: the list is empty")
    return list(value)


def text(value: Any, where: str) -> str:
    """`value` if it is text; raises `UsageError` if not."""
    if not isinstance(value, str):
        raise UsageError(f"{where}: {short(value)} is not a text")
    return value


def number(value: Any, where: str, *, at_most: float) -> float:
    """`value` as a float from 0 to `at_most`; raises `UsageError` for anything else, NaN and infinity among it."""
    found = nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not 0 <= found <= at_most or isinf(found):
        upper = "up" if isinf(at_most) else f"to {at_most:g}"
        raise UsageError(f"{where}: {short(value)} is not a finite number from 0 {upper}")
    return found


def whole_number(value: Any, where: str, *, at_least: int) -> int:
    """`value` as an int; raises `UsageError` for anything but a whole number of `at_least` or more."""
    found = None if isinstance(value, bool) or not isinstance(value, Integral) else int(value)
    if found is None or found < at_least:
        raise UsageError(f"{where}: {short(value)} is not a whole number from {at_least} up")
    return found
