"""What single images add to a metric's overall number: what is compared, ranked and turned into gains."""

from collections.abc import Sequence

from sana_bench.core.registry import METRICS
from sana_bench.results.reader import SampleResult

__all__ = ["contributions"]


def contributions(metric: str, samples: Sequence[SampleResult]) -> list[float]:
    """One number for each of these scored samples, whose mean is the metric's number over them: for most metrics their scores."""
    records = [one.scores[metric] for one in samples]
    linear = METRICS.entry(metric).load_contributions() if metric in METRICS else None
    if linear is None or not records:
        return [record.value for record in records]
    return [float(value) for value in linear([record.details for record in records])]
