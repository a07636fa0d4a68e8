"""`sana-bench validate`: whether a suite could run, without loading a model."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sana_bench.cli.options import SetOption, SuiteArgument
from sana_bench.core.errors import AssetError, BenchError, SuiteError, UsageError
from sana_bench.core.progress import say

if TYPE_CHECKING:
    from sana_bench.suites.schema import MetricSpec, Suite

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: sana-bench validate geneval")(validate)


def validate(suite: SuiteArgument, set_: SetOption = None) -> None:
    """Check a suite and its variants without loading a model."""
    from sana_bench.suites.load import load_all_tiers

    tiers = load_all_tiers(suite, tuple(set_ or ()))
    notes = [[*_check_benchmarks(loaded), *_absent_weights(loaded)] for loaded in tiers]
    for loaded, lines in zip(tiers, notes, strict=True):
        names = ", ".join(variant.name for variant in loaded.variants)
        say(f"{loaded.path}: {loaded.tier} tier is valid: {names}")
        for line in loaded.borrowed + lines:
            say(line)


def _check_benchmarks(suite: "Suite") -> list[str]:
    """One line for each judge behind an address that does not answer.

    Raises `SuiteError` for a choice that a metric does not have, and for prompts that lack what a metric looks for.
    """
    from sana_bench.core.fingerprint import FileHashes
    from sana_bench.core.registry import MEASURED
    from sana_bench.runner.benchmarks import is_as_shipped, resolve_benchmark

    notes = []
    for benchmark in suite.file.benchmarks:
        chosen = [spec for spec in benchmark.metric_specs if spec.name not in MEASURED and spec.is_choice]
        try:
            for spec in chosen:
                notes += _build(spec, suite)
            if not is_as_shipped(benchmark, suite):
                with contextlib.suppress(AssetError):  # published prompts that are not on this machine
                    resolve_benchmark(benchmark, suite, FileHashes())
        except UsageError as error:
            where = f"{suite.path}: benchmark {benchmark.label!r} on the {suite.tier} tier"
            raise SuiteError(
                f"{where}: {str(error).removeprefix(f'benchmark {benchmark.label!r}: ')}"
            ) from None
    return list(dict.fromkeys(notes))


def _build(spec: "MetricSpec", suite: "Suite") -> list[str]:
    from sana_bench import metrics
    from sana_bench.assets.locate import micro_weights_root
    from sana_bench.metrics.base import MetricAssets
    from sana_bench.runner.checks import distant_judges

    try:
        metric = metrics.build(spec, suite.tier, MetricAssets(micro_weights_root(), Path("results/cache")))
    except AssetError:  # found after the choices were judged, and no mistake of the suite
        return []
    notes = []
    for judge in distant_judges([metric]):
        try:
            judge.reach(1)
        except BenchError as error:
            notes.append(f"note: {error}")
    return notes


def _absent_weights(suite: "Suite") -> Iterator[str]:
    """One line for each variant whose weights are not on this machine; raises `SuiteError` for settings that do not fit."""
    from sana_bench import generators
    from sana_bench.suites.cells import NO_WEIGHTS

    for variant in suite.variants:
        if variant.model.weights == NO_WEIGHTS:
            continue
        try:
            generators.find(variant, suite.folder(variant))
        except AssetError:
            yield (
                f"note: the weights of {variant.name}, {variant.model.weights}, are not on this machine; "
                "a run says what is missing and how to get it"
            )
