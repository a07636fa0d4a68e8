"""What every comparison of two variants returns."""

from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True)
class Effect:
    """How b differs from a, with interval, p-value and standardised size.

    Attributes:
        difference: b minus a in the units of the score; for latency the relative change of the median.
        low: lower bound of the confidence interval of the difference; NaN where the data cannot give one.
        high: upper bound.
        p_value: two-sided, not corrected for other comparisons (see `holm`).
        n_pairs: samples compared; for latency the size of the smaller group.
        n_clusters: prompts compared; for latency as `n_pairs`.
        effect_size: without unit, its kind depends on the comparison; NaN where there is no spread to divide by.
        test: name of the test behind `p_value`.
    """

    difference: float
    low: float
    high: float
    p_value: float
    n_pairs: int
    n_clusters: int
    effect_size: float
    test: str

    @property
    def has_interval(self) -> bool:
        """Whether both bounds are there."""
        return isfinite(self.low) and isfinite(self.high)

    def __str__(self) -> str:
        bounds = f"[{self.low:+.4g}, {self.high:+.4g}]" if self.has_interval else "(no interval)"
        return f"{self.difference:+.4g} {bounds}, p = {self.p_value:.3g} ({self.test})"
