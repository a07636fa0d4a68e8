"""What a run checks before it writes anything, and what holds while it writes."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sana_bench import generators, metrics
from sana_bench.assets import micro_weights_root
from sana_bench.benchmarks.latency import MEASURED
from sana_bench.completeness import listed, surplus_images
from sana_bench.errors import IncompleteError, UsageError
from sana_bench.execution.scoring import metric_key
from sana_bench.fingerprint import HashCache, canonical_json
from sana_bench.metrics.base import FeatureMetric, Metric
from sana_bench.plan import CellPlan
from sana_bench.progress import say
from sana_bench.resolve import Cell, ResolvedBenchmark, ResolvedSuite
from sana_bench.results.store import Store

__all__ = [
    "check_generators",
    "check_output",
    "choice_key",
    "create_output",
    "load_metrics",
    "missing_reasons",
    "reading",
    "refuse_surplus",
    "stoppable",
]


def missing_reasons(plans: Sequence[CellPlan]) -> list[str]:
    """Say which cells lack images, and how many failed."""
    reasons = []
    for plan in plans:
        if len(plan.done) == plan.n_expected:
            continue
        failed = f", {plan.failed} failed" if plan.failed else ""
        reasons.append(f"{plan.cell.label} has {len(plan.done)}/{plan.n_expected} images{failed}")
    return reasons


def refuse_surplus(cells: Sequence[Cell], allowed: bool) -> dict[str, list[str]]:
    """Return images of existing folders that nobody asked for, by variant.

    Raises `IncompleteError` after listing them, unless `allowed`.
    """
    found = surplus_images(cells)
    for line in listed({f"{name} has images that nobody asked for:": files for name, files in found.items()}):
        say(line)
    if found and not allowed:
        count = sum(map(len, found.values()))
        raise IncompleteError(
            f"{count} images belong to no sample of the suite; --allow-incomplete scores the others and marks the result"
        )
    return found


def load_metrics(
    resolved: ResolvedSuite, output: Path, hashes: HashCache
) -> dict[str, Metric | FeatureMetric]:
    """Return the metrics by `choice_key`, their weights hashed; benchmarks that score alike share one.

    Raises `AssetError` or `SuiteError` for one that cannot be built.
    """
    from sana_bench.metrics.assets import MetricAssets

    assets = MetricAssets(micro_weights_root(), output / "cache", resolved.tier.device, hashes)
    loaded: dict[str, Metric | FeatureMetric] = {}
    for benchmark in resolved.benchmarks:
        for name in benchmark.metrics:
            if name in MEASURED:
                continue
            key, spec = choice_key(benchmark, name), benchmark.choice(name)
            if key not in loaded:
                choice = metrics.MetricChoice(name, spec.protocol, spec.parameters)
                loaded[key] = metrics.build(name, resolved.tier.tier, assets, choice)
    for metric in loaded.values():
        metric_key(metric)  # hashes the weights, so that a missing file is found before anything is written
    return loaded


def choice_key(benchmark: ResolvedBenchmark, metric: str) -> str:
    """Benchmarks that choose alike share one loaded metric."""
    return canonical_json(benchmark.choice(metric).model_dump())


def check_generators(plans: Sequence[CellPlan], device: str) -> None:
    """Load each checkpoint, and judge, that will be used once, so that a foreign one is found before hours of work."""
    seen: set[tuple[Any, ...]] = set()
    for plan in plans:
        spec = plan.cell.variant.spec
        model = spec.variant.model
        identity = (
            *(spec.generator, spec.weights_sha256, spec.variant.precision, model.height, model.width),
            spec.variant.best_of_n,
        )
        if plan.missing and identity not in seen:
            seen.add(identity)
            generators.build(spec, device)


def check_output(output: Path) -> None:
    """Refuse an output folder that cannot be written, without creating it."""
    existing = output
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"--output {output}: {existing} is a file, not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"--output {output}: no permission to write into {existing}")


def create_output(output: Path) -> None:
    """Make the output folder; raises `UsageError` where that is impossible."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {output}: cannot be created: {error.strerror}") from None


@contextmanager
def reading(output: Path) -> Iterator[Store | None]:
    """The store of an output folder, for reading; None where there is none."""
    store = Store.open_existing(output)
    try:
        yield store
    finally:
        if store is not None:
            store.close()


@contextmanager
def stoppable() -> Iterator[None]:
    """Let a termination request end the run as Ctrl-C does."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
