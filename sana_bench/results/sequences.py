"""Sequences of looks as a run has them: what was asked, what was found after each round, and how it ended."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from sana_bench.results.schema import Look

__all__ = ["ALL_USED", "NARROW", "UNDECIDED", "StoredSequence", "grouped", "stopped_early"]

#: Verdicts of a look beside those on a difference: more images are needed, there are none left, the interval is narrow enough.
UNDECIDED, ALL_USED, NARROW = "undecided", "all prompts used", "narrow enough"


@dataclass(frozen=True)
class StoredSequence:
    """The looks of one sequence in their order, at least one."""

    looks: tuple[Look, ...]

    @property
    def last(self) -> Look:
        """Where it stands."""
        return self.looks[-1]

    @property
    def answered(self) -> bool:
        """Whether it stopped before all prompts were used, with an answer."""
        return self.last.verdict not in (UNDECIDED, ALL_USED)

    @property
    def variants(self) -> tuple[str, ...]:
        """The variant, and the one that it was held against."""
        return tuple(name for name in (self.last.variant, self.last.against) if name is not None)

    @property
    def rule(self) -> str:
        """When it was to stop, in words."""
        last, error = self.last, f"error {100 * self.last.error:g} %"
        if last.width is not None:
            return f"until the interval of {last.variant} is {last.width:g} wide, {error}"
        return f"until {last.variant} against {last.against} is decided, effect {last.effect:g}, {error}"

    @property
    def finding(self) -> str:
        """What it says, in one line with its interval and the images that it took."""
        last = self.last
        if last.width is not None:
            found = f"{last.variant}: {last.metric} {last.value:.4g} [{last.low:.4g}, {last.high:.4g}]"
        else:
            found = f"{_claim(last)}: {last.metric} {last.value:+.4g} [{last.low:+.4g}, {last.high:+.4g}]"
        of_each = " of each" if last.against is not None else ""
        return f"{found} at every look, after {last.n_images} of {last.n_expected} images{of_each}"


def grouped(looks: Iterable[Look]) -> list[StoredSequence]:
    """The sequences that looks, each sequence's together and in order, belong to."""
    by_key = groupby(looks, key=lambda look: look.sequence_key)
    return [StoredSequence(tuple(found)) for _, found in by_key]


def stopped_early(sequences: Sequence[StoredSequence], variant: str, benchmark: str) -> list[str]:
    """What sequences that were answered say of a variant on a benchmark."""
    return [
        one.finding
        for one in sequences
        if one.answered and variant in one.variants and one.last.benchmark == benchmark
    ]


def _claim(look: Look) -> str:
    b, a = look.variant, look.against
    match look.verdict:
        case "better" | "worse":
            return f"{b} is {look.verdict} than {a}"
        case "equivalent":
            return f"{b} and {a} are equivalent within {look.effect:g}"
        case _:
            return f"no verdict on {b} against {a} ({look.verdict})"
