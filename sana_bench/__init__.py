"""Generate, score, profile and compare text-to-image variants.

What the command line does is `run`, `score`, `load_run`, `compare`, `gate` and `leaderboard` here. Importing this costs no torch:
every name below is imported when it is first used. Those of plug-ins are here too, so that a plug-in needs this import alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sana_bench.analysis.baselines import export_baseline
    from sana_bench.analysis.comparison import Comparison
    from sana_bench.analysis.gate import GateResult, gate
    from sana_bench.analysis.leaderboard import leaderboard
    from sana_bench.analysis.runs import Run, compare, load_run
    from sana_bench.core.errors import (
        AssetError,
        BenchError,
        IncompleteError,
        SampleError,
        SuiteError,
        UsageError,
    )
    from sana_bench.core.images import load_image
    from sana_bench.core.registry import REGISTRIES, Entry
    from sana_bench.core.samples import Prompt, Sample
    from sana_bench.generators.base import Generator, Request
    from sana_bench.metrics.base import (
        FeatureMetric,
        Metric,
        MetricAssets,
        ScoreRow,
        Summary,
        check_rows,
        mean_summary,
    )
    from sana_bench.results.statistics.intervals import clustered_bootstrap
    from sana_bench.runner.face import run, score
    from sana_bench.suites.cells import GeneratorSpec
    from sana_bench.suites.schema import MetricSpec, Variant

_MODULES = {
    "REGISTRIES": "core.registry",
    "AssetError": "core.errors",
    "BenchError": "core.errors",
    "Comparison": "analysis.comparison",
    "Entry": "core.registry",
    "FeatureMetric": "metrics.base",
    "GateResult": "analysis.gate",
    "Generator": "generators.base",
    "GeneratorSpec": "suites.cells",
    "IncompleteError": "core.errors",
    "Metric": "metrics.base",
    "MetricAssets": "metrics.base",
    "MetricSpec": "suites.schema",
    "Prompt": "core.samples",
    "Request": "generators.base",
    "Run": "analysis.runs",
    "Sample": "core.samples",
    "SampleError": "core.errors",
    "ScoreRow": "metrics.base",
    "SuiteError": "core.errors",
    "Summary": "metrics.base",
    "UsageError": "core.errors",
    "Variant": "suites.schema",
    "check_rows": "metrics.base",
    "clustered_bootstrap": "results.statistics.intervals",
    "compare": "analysis.runs",
    "export_baseline": "analysis.baselines",
    "gate": "analysis.gate",
    "leaderboard": "analysis.leaderboard",
    "load_image": "core.images",
    "load_run": "analysis.runs",
    "mean_summary": "metrics.base",
    "run": "runner.face",
    "score": "runner.face",
}

__all__ = [
    "REGISTRIES",
    "AssetError",
    "BenchError",
    "Comparison",
    "Entry",
    "FeatureMetric",
    "GateResult",
    "Generator",
    "GeneratorSpec",
    "IncompleteError",
    "Metric",
    "MetricAssets",
    "MetricSpec",
    "Prompt",
    "Request",
    "Run",
    "Sample",
    "SampleError",
    "ScoreRow",
    "SuiteError",
    "Summary",
    "UsageError",
    "Variant",
    "__version__",
    "check_rows",
    "clustered_bootstrap",
    "compare",
    "export_baseline",
    "gate",
    "leaderboard",
    "load_image",
    "load_run",
    "mean_summary",
    "run",
    "score",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
