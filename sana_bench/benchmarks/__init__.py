"""Benchmarks by name."""

from sana_bench.benchmarks.base import Benchmark
from sana_bench.errors import SuiteError, nearest

__all__ = ["NAMES", "Benchmark", "get"]

NAMES = ("geneval",)


def get(name: str) -> Benchmark:
    """The benchmark called `name`; raises `SuiteError` with the nearest valid name."""
    if name == "geneval":
        from sana_bench.benchmarks.geneval import GenEval

        return GenEval()
    raise SuiteError(f"unknown benchmark {name!r}{nearest(name, NAMES)}; available: {', '.join(NAMES)}")
