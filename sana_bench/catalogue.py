"""What this installation knows by name: the benchmarks with their metrics, the generators, and the judges."""

from collections.abc import Iterator, Mapping

from sana_bench import benchmarks, generators, plugins
from sana_bench.generators import judges
from sana_bench.suite import Catalogue

__all__ = ["catalogue"]


class _Benchmarks(Mapping[str, tuple[str, ...]]):
    """Metrics by benchmark, looked up when asked for: a broken plug-in matters only to the suites that use it."""

    def __init__(self) -> None:
        self._names = benchmarks.names()

    def __getitem__(self, name: str) -> tuple[str, ...]:
        if name not in self._names:
            raise KeyError(name)
        return tuple(dict.fromkeys((*benchmarks.get(name).metric_names, *plugins.names("metrics"))))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def catalogue() -> Catalogue:
    """Return the names that suite and variant files may use."""
    return Catalogue(_Benchmarks(), tuple(generators.names()), tuple(judges.names()))
