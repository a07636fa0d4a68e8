"""Benchmarks by name."""

from sana_bench import plugins
from sana_bench.benchmarks.base import Benchmark
from sana_bench.errors import SuiteError, nearest

__all__ = ["NAMES", "Benchmark", "get", "names"]

NAMES = ("geneval", "dpg_bench", "image_reward", "mjhq30k", "latency")
_NEEDS = ("name", "default_images_per_prompt", "metric_names", "prompts", "image_size")


def names() -> list[str]:
    """Return the names of the known benchmarks, plug-ins last."""
    return [*NAMES, *plugins.names("benchmarks")]


def get(name: str) -> Benchmark:
    """The benchmark called `name`; raises `SuiteError` with the nearest valid name."""
    if name == "geneval":
        from sana_bench.benchmarks.geneval import GenEval

        return GenEval()
    if name == "latency":
        from sana_bench.benchmarks.latency import Latency

        return Latency()
    if name == "dpg_bench":
        from sana_bench.benchmarks.dpg_bench import DPGBench

        return DPGBench()
    if name == "image_reward":
        from sana_bench.benchmarks.image_reward import ImageRewardBenchmark

        return ImageRewardBenchmark()
    if name == "mjhq30k":
        from sana_bench.benchmarks.mjhq30k import Mjhq30kBenchmark

        return Mjhq30kBenchmark()
    plugin = plugins.find("benchmarks", name)
    if plugin is None:
        raise SuiteError(
            f"unknown benchmark {name!r}{nearest(name, names())}; available: {', '.join(names())}"
        )
    benchmark: Benchmark = plugin.build(needs=_NEEDS)
    if benchmark.name != name:
        raise SuiteError(f"{plugin.label} calls itself {benchmark.name!r}")
    return benchmark
