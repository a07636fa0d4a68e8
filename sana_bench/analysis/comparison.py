"""The comparison of two variants as records, in tables and as plain data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sana_bench.core.plain import plain
from sana_bench.results.statistics.effect import Effect

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "Flip", "MetricComparison", "Verdict"]

Verdict = Literal["better", "worse", "no evidence", "not comparable", "not measured"]


@dataclass(frozen=True)
class MetricComparison:
    """One metric of one benchmark, or one task of it (`key`).

    `p_value` is Holm's, corrected over the tasks of the metric; the row `overall` stands alone.
    `detectable` is the smallest difference these prompts would show with 80 % power, where it is known; `matters` is the
    difference that the caller cares about, and `prompts_needed` how many prompts would show that one.
    """

    benchmark: str
    metric: str
    key: str
    value_a: float | None
    value_b: float | None
    higher_is_better: bool
    verdict: Verdict
    reason: str = ""
    effect: Effect | None = None
    p_value: float | None = None
    detectable: float | None = None
    matters: float | None = None
    prompts_needed: int | None = None
    no_interval: str = field(init=False, default="")

    def __post_init__(self) -> None:
        """Say why a difference has no interval."""
        if self.effect is not None and not self.effect.has_interval:
            unit = "measurement" if self.metric == "latency" else "prompt"
            few = f"one {unit}" if self.effect.n_clusters == 1 else f"a task of one {unit}"
            object.__setattr__(self, "no_interval", f"no interval: {few}")


@dataclass(frozen=True)
class Flip:
    """A sample that one variant passed and the other failed."""

    benchmark: str
    metric: str
    prompt_id: str
    index: int
    prompt: str
    lost: bool
    image_a: Path
    image_b: Path


@dataclass(frozen=True)
class Comparison:
    """Everything that `compare` shows; differences are B minus A."""

    a: str
    b: str
    settings: dict[str, tuple[Any, Any]]
    metrics: list[MetricComparison]
    flips: list[Flip] = field(default_factory=list)

    @property
    def comparable(self) -> bool:
        """Whether any metric could be compared."""
        return any(row.effect is not None for row in self.metrics)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON holds it: paths as text, a number that does not exist as None."""
        return {**plain(self), "comparable": self.comparable}

    def table(self) -> "pd.DataFrame":
        """One row a metric, and one a task of it.

        benchmark, metric, key, a, b, difference (B minus A; of latency the relative change), low, high (its 95 % interval),
        p_value (Holm's), verdict, reason.
        """
        import pandas as pd

        return pd.DataFrame([_row(one) for one in self.metrics], columns=_COLUMNS)

    def __str__(self) -> str:
        from sana_bench.analysis.compare_text import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from sana_reports.notebook import section

        return section([f"A: {self.a}", f"B: {self.b}"], self.table())


_COLUMNS = (
    "benchmark",
    "metric",
    "key",
    "a",
    "b",
    "difference",
    "low",
    "high",
    "p_value",
    "verdict",
    "reason",
)


def _row(one: MetricComparison) -> tuple[object, ...]:
    effect = (None,) * 3 if one.effect is None else (one.effect.difference, one.effect.low, one.effect.high)
    values = (one.value_a, one.value_b, *effect, one.p_value)
    return (one.benchmark, one.metric, one.key, *values, one.verdict, one.reason or one.no_interval)
