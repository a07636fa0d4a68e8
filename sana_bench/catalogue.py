"""What this installation knows by name: the benchmarks with their metrics, and the generators."""

from sana_bench import benchmarks, generators
from sana_bench.suite import Catalogue

__all__ = ["catalogue"]


def catalogue() -> Catalogue:
    """Return the names that suite and variant files may use."""
    known = {name: tuple(benchmarks.get(name).metric_names) for name in benchmarks.NAMES}
    return Catalogue(known, tuple(generators.names()))
