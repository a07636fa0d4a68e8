"""Metrics by name."""

from typing import TYPE_CHECKING, Any

from sana_bench import plugins
from sana_bench.errors import SuiteError, nearest
from sana_bench.metrics.choice import MetricChoice

if TYPE_CHECKING:
    from sana_bench.metrics.assets import MetricAssets
    from sana_bench.metrics.base import FeatureMetric, Metric

__all__ = ["NAMES", "MetricChoice", "build", "identity", "names"]

NAMES = ("geneval", "clip_score", "fid", "kid", "dpg", "image_reward")
_NEEDS = ("name", "protocol", "higher_is_better", "identity")


def names() -> list[str]:
    """Return the names of the known metrics, plug-ins last."""
    return [*NAMES, *plugins.names("metrics")]


def identity(metric: "Metric | FeatureMetric") -> dict[str, Any]:
    """Return everything that changes a metric's scores; for a plug-in also its package and version."""
    plugin = plugins.find("metrics", metric.name)
    return {**metric.identity(), **({"plugin": plugin.identity} if plugin is not None else {})}


def build(
    name: str, tier: str, assets: "MetricAssets", choice: MetricChoice | None = None
) -> "Metric | FeatureMetric":
    """The metric called `name` for `tier` (`micro` or `full`), its weights loaded on first use.

    `choice` says which of its protocols, and with which parameters; without it the default of the tier.

    `assets` says where weights and caches are: `weights_dir` holds one folder per network (`clip/`), and
    `cache_dir` receives reference statistics.

    Raises:
        SuiteError: no such metric, tier, protocol or parameter, with the nearest valid name.
        AssetError: weights or data of the tier are missing; the message names them and how to get them.
    """
    plugin = plugins.find("metrics", name)
    if name not in NAMES and plugin is None:
        raise SuiteError(f"unknown metric {name!r}{nearest(name, names())}; available: {', '.join(names())}")
    if tier not in ("micro", "full"):
        raise SuiteError(f"unknown tier {tier!r}, expected 'micro' or 'full'")
    choice = choice or MetricChoice(name)
    if plugin is not None:
        if choice.protocol is not None or choice.parameters:
            raise SuiteError(f"{plugin.label} has one protocol and no parameters; name it alone")
        metric: Metric | FeatureMetric = plugin.build(tier, assets, needs=_NEEDS)
        if metric.name != name:
            raise SuiteError(f"{plugin.label} calls itself {metric.name!r}")
        return metric
    if name == "geneval":
        from sana_bench.metrics.geneval import build_geneval

        return build_geneval(tier, assets, choice)
    if name == "clip_score":
        from sana_bench.metrics.clip_score import build_clip_score

        return build_clip_score(tier, assets, choice)
    if name == "dpg":
        from sana_bench.metrics.dpg import build_dpg

        return build_dpg(tier, assets, choice)
    if name == "image_reward":
        from sana_bench.metrics.image_reward import build_image_reward

        return build_image_reward(tier, assets, choice)
    if name == "kid":
        from sana_bench.metrics.inception_distances import build_inception_distance

        choice.needs_full_tier(tier)
        return build_inception_distance(assets, choice)
    from sana_bench.metrics.frechet_clip import build_fid

    return build_fid(tier, assets, choice)
