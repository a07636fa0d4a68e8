"""Metrics by name."""

from typing import TYPE_CHECKING, Any

from sana_bench.core.errors import SuiteError
from sana_bench.core.registry import METRICS
from sana_bench.core.tiers import TIERS, unknown_tier
from sana_bench.suites.schema import MetricSpec

if TYPE_CHECKING:
    from sana_bench.metrics.base import FeatureMetric, Metric, MetricAssets

__all__ = ["build", "identity"]


def identity(metric: "Metric | FeatureMetric") -> dict[str, Any]:
    """Return everything that changes a metric's scores; for a plug-in also its package and version."""
    plugin = METRICS.plugin(metric.name)
    return {**metric.identity(), **({"plugin": plugin.identity} if plugin is not None else {})}


def build(spec: MetricSpec | str, tier: str, assets: "MetricAssets") -> "Metric | FeatureMetric":
    """The metric that `spec` names for `tier` (`micro` or `full`), its weights loaded on first use.

    A plain name stands for the metric with the default protocol of the tier. `assets` says where weights and caches are:
    `weights_dir` holds one folder per network (`clip/`), and `cache_dir` receives reference statistics.

    Raises:
        SuiteError: no such metric, tier, protocol or parameter, with the nearest valid name.
        AssetError: weights or data of the tier are missing; the message names them and how to get them.
    """
    if isinstance(spec, str):
        spec = MetricSpec(name=spec)
    if spec.function is not None:
        from sana_bench.metrics.own_function.metric import build_function_metric

        return build_function_metric(spec)
    entry = METRICS.entry(spec.name)
    if tier not in TIERS:
        raise unknown_tier(f"metric {spec.name!r}", tier)
    metric: Metric | FeatureMetric = METRICS.build(spec.name, tier, assets, spec)
    if spec.protocol not in (None, metric.protocol) and spec.reference is None:
        raise SuiteError(f"{entry.label} has no protocol {spec.protocol!r}; it has {metric.protocol}")
    return metric
