"""Sections of a training configuration, read value by value: known keys, right types, inside their bounds."""

import errno
import math
import os
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sana_models.files import first_line

__all__ = ["LARGEST_BATCH", "LARGEST_SIDE", "Section", "check_keys", "read_path"]

#: Images of a batch over all processes, and pixels of a side: more is a slip of the hand, told before it takes the memory.
LARGEST_BATCH, LARGEST_SIDE = 1 << 16, 1 << 14
#: More than any count, which numbers of 64 bits hold.
_LARGEST = 1 << 62

_MISSING = object()
#: Bytes of a name, on every usual file system.
_LONGEST_NAME = 255
#: As long as the longest name below a folder: that of a cached latent that is being written.
_INSIDE = "x" * 100
#: Letters of a value that a message shows.
_MOST_SHOWN = 80


def check_keys(data: Mapping[str, Any], allowed: Collection[str], prefix: str = "") -> None:
    """Raise ValueError for the first unknown key, with the nearest known one."""
    unknown = sorted(str(key) for key in data.keys() - set(allowed))
    if unknown:
        close = get_close_matches(unknown[0], list(allowed), n=1, cutoff=0.5)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"unknown key '{prefix}{unknown[0]}'{hint}; allowed: {', '.join(sorted(allowed))}")


def read_path(key: str, value: Any) -> Path:
    """Return the path that the value of a key names, whether there is something or not.

    Raises ValueError, one line with the key, for what is no text, and for a path that the system refuses, such as one that is too
    long, or that leaves no room for the names below it.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} is {_shown(value)}; expected a path")
    try:
        # Below a folder that is not there yet the system says nothing of the names.
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in Path(value).parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        os.stat(Path(value, _INSIDE))
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError) or error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise ValueError(f"{key} is {_shown(value)}: {first_line(error).lower()}") from None
    return Path(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text):,} letters)"


class Section:
    """A mapping under a name; every error is a ValueError of one line that names the key, what is there and what may be."""

    def __init__(self, data: Any, name: str, allowed: Collection[str]) -> None:
        if not isinstance(data, Mapping):
            raise ValueError(f"section {name!r} is missing or not a mapping")
        self._data, self._prefix = data, f"{name}." if name else ""
        check_keys(data, allowed, self._prefix)

    @classmethod
    def of(cls, data: Mapping[str, Any], name: str, allowed: Collection[str]) -> "Section":
        """Return the section called `name` of a configuration."""
        return cls(data.get(name), name, allowed)

    def integer(self, name: str, default: Any = _MISSING, *, low: int = 1, high: int = _LARGEST) -> int:
        """Return a whole number from `low` to `high`."""
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            most = f", at most {high}" if high < _LARGEST or (isinstance(value, int) and value > high) else ""
            raise self._error(name, value, f"a whole number, at least {low}{most}")
        return value

    def optional_integer(self, name: str, *, high: int = _LARGEST) -> int | None:
        """Return a whole number from 1 to `high`, or None where it is missing or null."""
        return None if self._data.get(name) is None else self.integer(name, high=high)

    def number(
        self,
        name: str,
        default: Any = _MISSING,
        *,
        low: float = -math.inf,
        high: float = math.inf,
        above: bool = False,
    ) -> float:
        """Return a finite number from `low` (which `above` leaves out) to `high`.

        YAML reads 1e-4, without a dot, as text: it counts as the number it says.
        """
        value = self._value(name, default)
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not low <= number <= high or not math.isfinite(number) or (above and number == low):
            least = f" above {low:g}" if above else f", at least {low:g}" if low > -math.inf else ""
            most = f", at most {high:g}" if high < math.inf else ""
            raise self._error(name, value, f"a number{least}{most}")
        return number

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """Return a list of numbers, or None where it is missing or null."""
        values = self._data.get(name)
        if values is None:
            return None
        if not isinstance(values, list | tuple):
            raise self._error(name, values, "a list of numbers")
        inner = Section({name: None}, self._prefix.removesuffix("."), {name})
        found = []
        for value in values:
            inner._data = {name: value}
            found.append(inner.number(name))
        return tuple(found)

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self._error(name, value, "true or false")
        return value

    def text(self, name: str, default: Any = _MISSING, *, choices: Collection[str] = ()) -> str:
        """Return a text, one of `choices` where there are some."""
        value = self._value(name, default)
        if not isinstance(value, str) or (choices and value not in choices):
            allowed = f"allowed: {', '.join(map(repr, choices))}" if choices else "expected a text"
            raise ValueError(f"{self._prefix}{name} is {_shown(value)}; {allowed}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts, empty where it is missing."""
        value = self._value(name, [])
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self._error(name, value, "a list of texts")
        return tuple(value)

    def path(self, name: str) -> Path | None:
        """Return a path, or None where it is missing or null; raises as `read_path`."""
        value = self._data.get(name)
        return None if value is None else read_path(f"{self._prefix}{name}", value)

    def paths(self, name: str) -> tuple[Path, ...]:
        """Return a list of paths, empty where it is missing; raises as `read_path`."""
        return tuple(read_path(f"{self._prefix}{name}", value) for value in self.texts(name))

    def source(self, name: str, default: Any = _MISSING) -> str:
        """Return a path or a hub id as it is given; raises as `read_path`."""
        value = self._value(name, default)
        read_path(f"{self._prefix}{name}", value)
        return str(value)

    def _value(self, name: str, default: Any) -> Any:
        value = self._data.get(name, default)
        if value is _MISSING:
            raise ValueError(f"{self._prefix}{name} is missing")
        return value

    def _error(self, name: str, value: object, expected: str) -> ValueError:
        return ValueError(f"{self._prefix}{name} is {_shown(value)}; expected {expected}")
