"""Errors a user can cause or must act on: each knows its process exit code and reads as one line."""

from collections.abc import Iterable
from difflib import get_close_matches


class BenchError(Exception):
    """Base of every expected failure; `str(error)` is the one line shown to the user."""

    exit_code = 1


class UsageError(BenchError):
    """A command or option that cannot be carried out as given."""

    exit_code = 2


class SuiteError(UsageError):
    """A suite or variant file that cannot be read or does not validate."""


class AssetError(UsageError):
    """Weights or data that are missing, truncated or not what their name promises."""


class IncompleteError(BenchError):
    """A result that covers fewer samples than the suite asks for."""

    exit_code = 3


class RegressionError(BenchError):
    """A result worse than its baseline allows."""

    exit_code = 4


class IncomparableError(BenchError):
    """Two results of different protocol, tier, device or completeness."""

    exit_code = 5


class SampleError(Exception):
    """The generator could not make one sample; the sample is recorded as failed and the run as incomplete."""


def nearest_names(name: str, choices: Iterable[str]) -> list[str]:
    """Return the closest of `choices`, or nothing when none is close."""
    return get_close_matches(name, list(choices), n=1, cutoff=0.5)


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the closest of `choices`, or an empty string when none is close."""
    matches = nearest_names(name, choices)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
