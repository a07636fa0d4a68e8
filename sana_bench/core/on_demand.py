"""Long sequences whose items are made as they are looked at."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload

__all__ = ["OnDemand"]

T = TypeVar("T")


class OnDemand(Sequence[T]):
    """A sequence that keeps a number for each item, and makes the item anew each time it is looked at.

    For many thousands of items that are needed a few at a time. A stretch of it is made as late; pickled, it is a tuple.
    """

    __slots__ = ("_make", "_numbers")

    def __init__(self, make: Callable[[int], T], numbers: Sequence[int]) -> None:
        """`make` returns the item of a number."""
        self._make, self._numbers = make, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[T]:
        return map(self._make, self._numbers)

    @overload
    def __getitem__(self, place: int) -> T: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...

    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        if isinstance(place, slice):
            return OnDemand(self._make, self._numbers[place])
        return self._make(self._numbers[place])

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)
