"""The tournament of inference-time scaling (SANA-1.5, arXiv 2501.18427, section 2.4): neighbours meet, winners advance."""

from collections.abc import Sequence

from sana_bench.judges.base import YesNo

__all__ = ["beats", "tournament"]


def beats(first: YesNo, second: YesNo) -> bool:
    """Say whether the first of a pair advances.

    A yes beats a no; of two yes the larger `yes` advances, of two no the smaller `no`; a tie goes to the second.
    """
    if first.says_yes != second.says_yes:
        return first.says_yes
    return first.yes > second.yes if first.says_yes else first.no < second.no


def tournament(answers: Sequence[YesNo], keep: int) -> list[int]:
    """Return the numbers of the `keep` candidates that are left, in their old order.

    Raises ValueError unless both counts are powers of two and `keep` is at most the number of candidates.
    """
    for name, count in (("candidates", len(answers)), ("keep", keep)):
        if count < 1 or count & (count - 1):
            raise ValueError(f"{name} is {count}; a tournament needs a power of two")
    if keep > len(answers):
        raise ValueError(f"keep is {keep} of {len(answers)} candidates")
    left = list(range(len(answers)))
    while len(left) > keep:
        left = [a if beats(answers[a], answers[b]) else b for a, b in zip(left[::2], left[1::2], strict=True)]
    return left
