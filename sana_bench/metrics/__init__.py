"""Metrics by name."""

from typing import TYPE_CHECKING

from sana_bench.errors import SuiteError, nearest

if TYPE_CHECKING:
    from sana_bench.metrics.assets import MetricAssets
    from sana_bench.metrics.base import FeatureMetric, Metric

__all__ = ["NAMES", "build"]

NAMES = ("geneval", "clip_score", "fid")


def build(name: str, tier: str, assets: "MetricAssets") -> "Metric | FeatureMetric":
    """The metric called `name` for `tier` (`micro` or `full`), its weights loaded on first use.

    `assets` says where weights and caches are: `weights_dir` holds one folder per network (`clip/`), and
    `cache_dir` receives reference statistics.

    Raises:
        SuiteError: no such metric or tier, with the nearest valid name.
        AssetError: weights or data of the tier are missing; the message names them and how to get them.
    """
    if name not in NAMES:
        raise SuiteError(f"unknown metric {name!r}{nearest(name, NAMES)}; available: {', '.join(NAMES)}")
    if tier not in ("micro", "full"):
        raise SuiteError(f"unknown tier {tier!r}, expected 'micro' or 'full'")
    if name == "geneval":
        from sana_bench.metrics.geneval import build_geneval

        return build_geneval(tier)
    if name == "clip_score":
        from sana_bench.metrics.clip_score import build_clip_score

        return build_clip_score(tier, assets)
    from sana_bench.metrics.frechet_clip import build_fid

    return build_fid(tier, assets)
